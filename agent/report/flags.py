"""Finds flags in the code, the weights and the numbers: the points that a reviewer should look at."""

from __future__ import annotations

import ast
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agent.report.diff import changed_lines
from agent.report.findings import Findings
from agent.report.verdicts import overall_of
from agent.runs.log_lines import Fields
from agent.runs.record import RunRecord
from agent.runs.untrusted import mapping, mappings, number, text
from agent.spaces.rendering import helper_functions
from benchmark.comparison import places_for, signed
from benchmark.tasks import PROFILES
from sandbox.parsing import parse

Weight = Literal["stop", "look", "note"]

_OWN_RANDOMNESS = {
    "torch.seed": "draws a seed from the machine",
    "torch.manual_seed": "sets its own seed, so that every training seed gets the same weights",
    "torch.random.manual_seed": "sets its own seed, so that every training seed gets the same weights",
    "torch.Generator": "makes its own generator, which does not use the trial's seed",
    "np.random": "the trial does not seed numpy's generator",
    "numpy.random": "the trial does not seed numpy's generator",
}
_KNOWN = (math.sqrt(2), math.sqrt(3), math.sqrt(1 / 2), math.sqrt(1 / 3), math.pi, math.e, 5 / 3, 1 / 3, 2 / 3)
_ARCHITECTURES = sorted({task.arch for profile in PROFILES.values() for task in profile.tasks})
_MOST_DOTS = 8
_LONG_NUMBER = 4
"""A literal with at least this many significant digits looks like the output of a program."""
_LARGE_CHANGE = 15
"""A submission that adds at least this many lines should show a gain."""
_SAME_SCALE = 1.5
"""Two architectures count as treated equally when their scales differ by at most this factor."""


@dataclass(frozen=True)
class Flag:
    """One flag. Weights: `stop` (explain it before you trust the numbers), `look` (check it), `note` (good to know).

    `line` is a line of the region's text, from 1.
    """

    weight: Weight
    kind: str
    message: str
    line: int | None = None


def raise_flags(record: RunRecord, findings: Findings, network: Fields | None) -> tuple[Flag, ...]:
    """All flags of a run, the most serious first."""
    region = record.regions.get(findings.subject or 0)
    flags = [*_run_flags(record, findings)]
    if region is not None:
        flags += code_flags(region)
        flags += _gain_flags(record, findings, region)
    flags += weight_flags(network or {})
    order = {"stop": 0, "look": 1, "note": 2}
    return tuple(sorted(flags, key=lambda flag: order[flag.weight]))


def code_flags(region: str) -> list[Flag]:
    """Flags from the text of a region. A region that does not parse has no flags, because it was never tested."""
    try:
        tree = parse(region)
    except SyntaxError:
        return []
    return [*_randomness(tree), *_architecture_names(tree), *_long_numbers(tree), *_unused(tree)]


def weight_flags(network: Fields) -> list[Flag]:
    """Flags from the measured networks; `network` is the content of network.json (`agent.report.network`)."""
    flags: list[Flag] = []
    factors: dict[str, dict[str, float]] = {}
    for task, roles in mapping(network.get("tasks")).items():
        submission, baseline = mapping(mapping(roles).get("submission")), mapping(mapping(roles).get("baseline"))
        if error := submission.get("error"):
            flags.append(Flag("stop", "initialisation", f"It does not initialise the network of {task}: {error}"))
        for fault in mapping(submission.get("signal")).get("faults") or []:
            flags.append(Flag("look", "signal", f"On {task}, {fault}."))
        flags += _constant_weights(task, submission)
        for role, factor in _factors(baseline, submission).items():
            factors.setdefault(role, {})[task] = factor
    for role, by_task in factors.items():
        low, high = min(by_task, key=by_task.__getitem__), max(by_task, key=by_task.__getitem__)
        if by_task[high] > _SAME_SCALE * by_task[low]:
            words = f"× {by_task[low]:.2g} on {low}, × {by_task[high]:.2g} on {high}"
            flags.append(
                Flag(
                    "note", "differs by network", f"{role.capitalize()}s are scaled differently: {words} (median std)."
                )
            )
    return flags


def _run_flags(record: RunRecord, findings: Findings) -> Iterator[Flag]:
    for problem in (*record.problems, *findings.problems):
        weight: Weight = "stop" if "edited" in problem or "hash" in problem or "says" in problem else "look"
        yield Flag("note" if "today's" in problem else weight, "record", problem)
    if record.isolation == "none":
        yield Flag(
            "stop", "isolation", "Candidates ran without isolation: the code could have reached data and results."
        )
    for evaluation in record.evaluations:
        kind, _, reason = text(evaluation.failure).partition(": ")
        if kind == "suspicious":
            yield Flag(
                "look",
                "step zero",
                f"{evaluation.role} was refused on {evaluation.task} (seed {evaluation.seed}): {reason}.",
            )
    for result in record.results.values():
        if result.status == "diverged":
            yield Flag("look", "divergence", f"A training on {result.task} (seed {result.seed}) diverged.")
    if any(event.get("by") == "harness" for event in record.of_kind("submitted")):
        yield Flag("note", "submission", "The proposer did not submit, so the search submitted the best test.")
    seeds = {comparison.n_candidate for comparison in findings.visible.values() if comparison is not None}
    if seeds == {1}:
        more = any(one is not None and one.n_baseline > 1 for one in findings.visible.values())
        shown = "only the baseline shows the noise of seeds" if more else "this run cannot show the noise of seeds"
        message = f"Each test has one seed, so {shown} (--seeds 3 does): {'; '.join(findings.noise)}."
        if not findings.noise:
            message = "Only one seed: its noise comes from a prior, not from this run (--seeds 3 measures it)."
        yield Flag("note", "seeds", message)
    if failed := [test.number for test in findings.tests if test.failures]:
        yield Flag("note", "failures", f"Failed: test {', '.join(map(str, failed))}.")


def _gain_flags(record: RunRecord, findings: Findings, region: str) -> Iterator[Flag]:
    visible, hidden = overall_of(findings.visible), overall_of(findings.hidden)
    for comparisons in (findings.visible, findings.hidden):
        for task, one in comparisons.items():
            if one is not None and one.resolved == "not resolved":
                places = 1 if one.metric.is_accuracy else places_for(one)
                least = f"the smallest detectable effect is about {one.smallest_visible_effect:.{places}f}."
                if one.known_ci is None:
                    least = "no noise is known for it, and these seeds show none."
                gain = f"{signed(one.gain, places)} {one.metric.points}"
                message = f"{gain} on {task}, no difference shown: {least}"
                yield Flag("note", "small gain", message)
    if visible is not None and hidden is not None and visible.resolved == "improvement" != hidden.resolved:
        yield Flag("look", "transfer", "The gain is resolved on the visible tasks only.")
    helpers = _helper_lines(region) - _helper_lines(record.baseline_region)
    grown = _code_lines(region) - _code_lines(record.baseline_region) - helpers
    if grown >= _LARGE_CHANGE and visible is not None and visible.resolved != "improvement":
        added, removed = changed_lines(record.baseline_region, region)
        ours = f" ({helpers} of them in the built-in space's own helper functions)" if helpers > 0 else ""
        yield Flag("look", "complexity", f"{added} lines came{ours} and {removed} went, for no resolved gain.")


def _code_lines(region: str) -> int:
    return sum(1 for line in region.splitlines() if line.strip() and not line.strip().startswith("#"))


def _helper_lines(region: str) -> int:
    """Lines of the functions that the built-in space puts into regions for other people's networks, word for word."""
    if "def is_layer(" not in region:  # so torch is not imported for nothing
        return 0
    return sum(_code_lines(one) for one in helper_functions() if one in region)


def _randomness(tree: ast.Module) -> Iterator[Flag]:
    for node in ast.walk(tree):
        name = _dotted(node) if isinstance(node, ast.Attribute) else ""
        if reason := _OWN_RANDOMNESS.get(name):
            yield Flag("look", "randomness", f"{name}: {reason}.", node.lineno)  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hash", "id"):
            yield Flag("look", "randomness", f"{node.func.id}() differs from process to process.", node.lineno)


def _architecture_names(tree: ast.Module) -> Iterator[Flag]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = [arch for arch in _ARCHITECTURES if arch in node.value.lower().replace("-", "").replace("_", "")]
            if (named and len(node.value) <= 40) or node.value == "arch":
                message = f"{node.value!r}: depends on the architecture's name, so it cannot work for a new network."
                yield Flag("look", "architecture", message, node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr == "__name__":
            yield Flag("look", "architecture", "__name__: depends on what a class is called.", node.lineno)


def _long_numbers(tree: ast.Module) -> Iterator[Flag]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, float) or not math.isfinite(node.value):
            continue
        digits = f"{abs(node.value):.12g}".partition("e")[0].replace(".", "").strip("0")
        if len(digits) >= _LONG_NUMBER and not any(abs(node.value - known) < 1e-3 * known for known in _KNOWN):
            yield Flag(
                "note", "leftover number", f"{node.value!r} looks like a tuned value: are 2 digits enough?", node.lineno
            )


def _unused(tree: ast.Module) -> Iterator[Flag]:
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    read = {node.id for node in names if not isinstance(node.ctx, ast.Store)}
    for node in names:
        if isinstance(node.ctx, ast.Store) and node.id not in read and not node.id.startswith("_"):
            yield Flag("note", "leftover", f"{node.id} is set and never used.", node.lineno)
    for defined in tree.body:
        if isinstance(defined, ast.FunctionDef) and defined.name not in (read | {"initialize_weights"}):
            yield Flag("note", "leftover", f"{defined.name}() is never called.", defined.lineno)


def _dotted(node: ast.expr) -> str:
    """A name with its attributes, such as `torch.rand`; "" when it has more than `_MOST_DOTS` dots."""
    names: list[str] = []
    while isinstance(node, ast.Attribute) and len(names) < _MOST_DOTS:
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _constant_weights(task: str, submission: Fields) -> Iterator[Flag]:
    constant: dict[float, list[str]] = {}
    for parameter in mappings(submission.get("parameters")):
        value = number(parameter.get("constant"))
        if value is not None and len(parameter.get("shape") or []) > 1:
            constant.setdefault(value, []).append(text(parameter.get("name")))
    for value, names in constant.items():
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        weight: Weight = "note" if value == 0 else "look"
        yield Flag(weight, "constant weights", f"On {task}, all weights are {value:g} in {listed}.")


def _factors(baseline: Fields, submission: Fields) -> dict[str, float]:
    """Role → std of the weights relative to the baseline's, the median over the layers."""
    before = {text(parameter.get("name")): parameter for parameter in mappings(baseline.get("parameters"))}
    ratios: dict[str, list[float]] = {}
    for parameter in mappings(submission.get("parameters")):
        ours, theirs = number(parameter.get("std")), number(before.get(text(parameter.get("name")), {}).get("std"))
        if ours and theirs and parameter.get("kaiming_ratio") is not None:
            ratios.setdefault(text(parameter.get("role")), []).append(ours / theirs)
    return {role: statistics.median(values) for role, values in ratios.items()}
