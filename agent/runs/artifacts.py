"""Writes the artifacts of a submission: the patch, and the function as a stand-alone module."""

from __future__ import annotations

import ast
import email.utils
import textwrap
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from agent.runs.directory import RunDirectory
from agent.runs.files import read_bytes
from agent.runs.log import Launch, Submitted, chain, read_events
from benchmark.files import write_atomically
from sandbox.diff import unified_diff
from sandbox.parsing import parse
from sandbox.region import scaffold, split

PATCH, MODULE = "submission.patch", "initialize_weights.py"
VERSION, LOG = "Initsearch-Version", "Initsearch-Log"
"""Trailers of the patch: the version of this package; the SHA-256 of the log line with the submission."""
_NO_TRAILERS: Mapping[str, str] = {}


_HEADER = '''"""A weight initialisation found by initsearch (run {run}, test {number}).

    import torchvision
    from initialize_weights import {helper}initialize_weights
    model = torchvision.models.resnet18()
    initialize_weights(model, {example})

For networks of Conv2d, BatchNorm2d and Linear layers. `config` has arch (any string), num_classes, and depth, the
number of Conv2d and Linear layers.

What was measured ({units}, against {baseline}):

{measured}
"""

from __future__ import annotations

{imports}
'''

_IMPORTS = {
    "math": "import math",
    "np": "import numpy as np",
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "init": "from torch.nn import init",
}

_HELPER = '''

def config_of(model: nn.Module) -> dict[str, str | int]:
    """The `config` that initialize_weights wants, read from the network."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    linears = [module for module in layers if isinstance(module, nn.Linear)]
    classes = linears[-1].out_features if linears else 0
    return {"arch": type(model).__name__.lower(), "num_classes": classes, "depth": len(layers)}
'''

_BLOCK = '''

class {name}(nn.Module):
    """Stands for this project's block of that name: no other network has one, so branches that ask for it are idle."""
'''


def write_artifacts(run: RunDirectory, region: str, number: int, measured: Sequence[str] = ()) -> None:
    """Write `submission.patch` and `initialize_weights.py` into the run directory.

    `measured` are the sentences about the gains. Writing again gives the same bytes, so a review stays valid.
    """
    for name, content in artifacts(run, run.path.name, region, number, measured).items():
        write_atomically(run.path / name, content)


def artifacts(run: RunDirectory, name: str, region: str, number: int, measured: Sequence[str] = ()) -> dict[str, bytes]:
    """File name → content. It depends only on the log, the region and the sentences; `name` is the run's."""
    return {
        PATCH: patch_text(run, name, region, number).encode(),
        MODULE: stand_alone(region, name, number, measured, **_against(run)).encode(),
    }


def _against(run: RunDirectory) -> dict[str, str]:
    """What a user's own tasks were measured in and against; {} for our own, of which the defaults are true."""
    records = read_events(run.events) if run.has(run.events.name) else []
    launch = next((record.event for record in records if isinstance(record.event, Launch)), None)
    if launch is None or launch.tasks is None:
        return {}
    own = any(task.get("metric") for kind in ("visible", "hidden") for task in launch.tasks[kind])
    name = str(launch.tasks["baseline_name"])
    known = {"as_built": "the network as its own constructors make it", "kaiming_normal": "Kaiming initialisation"}
    units = {"units": "scores and gains in the metric of each task"} if own else {}
    return {**units, "baseline": known.get(name, f"the baseline {_plain(name)}")}


def patch_text(run: RunDirectory, name: str, region: str, number: int) -> str:
    """The content of submission.patch. It contains no numbers, because the hidden ones come after its review.

    Its trailers are the version of this package and the hash of the log line that records the submission.
    """
    records = read_events(run.events) if run.has(run.events.name) else []
    hashes = chain(run.events)
    before = next((split(r.event.scaffold) for r in records if isinstance(r.event, Launch)), scaffold())
    at = next((record for record in reversed(records) if isinstance(record.event, Submitted)), None)
    trailers = {VERSION: version("initsearch")} | ({} if at is None else {LOG: hashes[at.seq]})
    diff = unified_diff(before.text, before.with_region(region).text)
    return mail(diff, name, number, when=time.time() if at is None else at.ts, trailers=trailers)


def mail(diff: str, run: str, number: int, *, when: float, trailers: Mapping[str, str] = _NO_TRAILERS) -> str:
    """The diff as a mail for `git am`, dated `when` (seconds since the epoch), with git trailers."""
    last = "".join(f"{key}: {value}\n" for key, value in trailers.items())
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
        "From: initsearch <initsearch@localhost>\n"
        f"Date: {email.utils.formatdate(when)}\n"
        f"Subject: [PATCH] Initialise weights as submitted by {run}, test {number}\n"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n"
        "What was measured, and what was not resolved: report.html and run.json of that run.\n"
        + (f"\n{last}" if last else "")
        + f"---\n{diff.rstrip(chr(10))}\n-- \ninitsearch\n"
    )


def trailers_of(run: RunDirectory) -> dict[str, str]:
    """The trailers VERSION and LOG of the patch on the disk; {} without a patch or for a patch of an old version."""
    try:
        head = read_bytes(run.path, PATCH).decode(errors="replace").partition("\n---\n")[0]
    except FileNotFoundError:
        return {}
    pairs = (line.partition(": ") for line in head.split("\n\n")[-1].split("\n"))
    return {key: value for key, _, value in pairs if key in (VERSION, LOG)}


def stand_alone(
    region: str,
    run: str,
    number: int,
    measured: Sequence[str] = (),
    *,
    units: str = "accuracy in percent, gains in points",
    baseline: str = "Kaiming initialisation",
) -> str:
    """The region as a module that needs only torch (and numpy, if it uses it), nothing of this project.

    `sandbox.region.region_of` takes the region out of it again, by the form of what stands before the region.
    """
    tree = parse(region)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    blocks = [name for name in ("BasicBlock", "InvertedResidual") if name in used - defined]
    helper = "config_of" not in defined
    if blocks or helper:
        used.add("nn")
    lines = measured or ["Nothing: the run had not ended. Its report has the rest."]
    header = _HEADER.format(
        units=units,
        baseline=baseline,
        run=run,
        number=number,
        helper="config_of, " if helper else "",
        example="config_of(model)" if helper else '{"arch": "resnet18", "num_classes": 1000, "depth": 21}',
        measured="\n".join(textwrap.fill(_plain(line), 116, subsequent_indent="  ") for line in lines),
        imports="\n".join(line for name, line in _IMPORTS.items() if name in used),
    )
    parts = [header, _HELPER if helper else "", *(_BLOCK.format(name=name) for name in blocks)]
    return "".join(parts) + "\n\n" + region


def _plain(sentence: str) -> str:
    """The sentence without characters that could end the docstring around it."""
    return sentence.replace("\\", "/").replace('"', "'")
