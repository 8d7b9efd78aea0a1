"""Measures each network before training: its weights, and the forward and backward signal.

The candidate's function runs again in isolation. Trusted code measures the resulting network. The numbers are kept in
`network.json`, so that a page can be made again without running anything.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import RunDamaged
from agent.runs.directory import RunDirectory
from agent.runs.files import read_object
from agent.runs.log_lines import Fields
from agent.runs.record import RunRecord
from agent.runs.untrusted import text
from benchmark.data import DataError
from benchmark.files import write_atomically
from benchmark.results import region_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmark.executors import Executor, Parent
    from benchmark.tasks import Profile, Task
    from sandbox.isolate import Initialised, Isolation, Job

SCHEMA = 1
IMAGES = 32
"""Pictures in the batch. This is enough to measure scales, and takes one or two seconds per network."""
_MAX_NETWORKS = 8
_SECONDS = 300.0
"""For one network, on the slowest machine."""


def measure_network(
    record: RunRecord,
    test: int,
    isolation: Isolation,
    *,
    executor: Executor | None = None,
    data_root: Path | None = None,
    profile: Profile | None = None,
) -> Fields:
    """Initialise every network of the run with the baseline and with test `test`, and measure.

    `executor` measures side by side, in processes that have torch; without one it happens in this process. Data are
    looked for in `data_root` and the usual places, not in the folder that the run names. The hidden task's network is
    measured only after a submission. `profile` is that of the run, if the code of its tasks may run here.
    Failures become `error` entries. Raises IsolationCrashed, InfrastructureError.
    """
    regions = {"baseline": record.baseline_region, "submission": record.regions[test]}
    tasks = [*record.tasks("visible"), *(record.tasks("hidden") if record.submitted is not None else [])]
    seed = _first_seed(record)
    calls = []
    for task in tasks[:_MAX_NETWORKS]:
        arch, dataset = text(task.get("arch")), text(task.get("dataset"))
        for role, region in regions.items():
            own = _own_task(profile, text(task["name"]))
            calls.append((text(task["name"]), role, MeasureCall(region, arch, dataset, seed, data_root, own)))
    found: Fields = {}
    for name, role, measured in _each(calls, isolation, executor):
        found.setdefault(name, {})[role] = measured
    return {"schema": SCHEMA, "seed": seed, "images": IMAGES, "regions": _digests(regions), "tasks": found}


def _each(
    calls: Sequence[tuple[str, str, MeasureCall]], isolation: Isolation, executor: Executor | None
) -> Iterator[tuple[str, str, Fields]]:
    """Task, role and measurements of each call, in their order."""
    if executor is None:
        here = _Here(isolation)
        yield from ((name, role, call(here)) for name, role, call in calls)
        return
    futures = [executor.submit(call, timeout=_SECONDS, on_ask=isolation.initialise) for _, _, call in calls]
    # What the page's figures need is imported while others measure.
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401

    yield from ((name, role, future.result()) for (name, role, _), future in zip(calls, futures, strict=True))


def _own_task(profile: Profile | None, name: str) -> Task | None:
    """The task of a user's profile; None for one of ours, which is known by its names."""
    found = [task for task in profile.tasks if task.name == name] if profile is not None else []
    return found[0] if found and (found[0].network is not None or found[0].data is not None) else None


def save_network(directory: RunDirectory, measured: Fields) -> None:
    """Keep the numbers in the run directory."""
    write_atomically(_path(directory), (json.dumps(measured) + "\n").encode())


def read_network(record: RunRecord, test: int) -> Fields | None:
    """The numbers in network.json, if they belong to this baseline and this test; else None."""
    try:
        kept = read_object(record.directory.path, _path(record.directory).name)
    except (OSError, RunDamaged):
        return None
    regions = _digests({"baseline": record.baseline_region, "submission": record.regions.get(test, "")})
    return kept if kept.get("schema") == SCHEMA and kept.get("regions") == regions else None


def _path(directory: RunDirectory) -> Path:
    return directory.path / "network.json"


def _digests(regions: Mapping[str, str]) -> dict[str, str]:
    return {role: region_sha256(region) for role, region in regions.items()}


def _first_seed(record: RunRecord) -> int:
    seeds = record.summary.get("seeds")
    return int(seeds[0]) if isinstance(seeds, list) and seeds and isinstance(seeds[0], int) else 0


@dataclass(frozen=True)
class _Here:
    """The parent of a call that runs in this process."""

    isolation: Isolation

    def report(self, content: Any, /) -> None:
        """There is nothing to show."""

    def ask(self, question: Job, /) -> Initialised:
        return self.isolation.initialise(question)


@dataclass(frozen=True)
class MeasureCall:
    """One region on one network: parameters and signal, or an error."""

    region: str
    arch: str
    dataset: str
    seed: int
    data_root: Path | None = None
    task: Task | None = None
    """A user's task, which names alone do not tell."""

    def __call__(self, parent: Parent) -> Fields:
        """Let the parent initialise in isolation, send one batch forwards and backwards."""
        import torch

        from benchmark.augment import Normalizer
        from benchmark.building import build_task_model
        from benchmark.data.prepared import load_task_data
        from benchmark.models import build_model
        from benchmark.signal_stats import signal_statistics
        from benchmark.weights import WeightsRejected, load_initial_weights
        from sandbox.isolate import Job

        task = self.task
        try:
            dataset = load_task_data(task.data if task else None, self.dataset, self.data_root)
            model = build_task_model(task, self.seed) if task else build_model(self.arch, dataset.num_classes)
        except (DataError, ValueError, KeyError) as error:
            return {"error": str(error)}
        own = task is not None and not task.strict
        built = {name: value.detach().clone() for name, value in model.named_parameters()} if own else {}
        with tempfile.TemporaryDirectory(prefix="initsearch-report-") as folder:
            weights = Path(folder) / "weights.safetensors"
            network = task.network_for(self.region) if task else None
            made = parent.ask(Job(self.region, self.arch, dataset.num_classes, self.seed, weights, network))
            if not made.ok:
                return {"error": f"{made.kind}: {made.message}"}
            try:
                load_initial_weights(weights, model)
            except WeightsRejected as error:
                return {"error": str(error)}
        if task is None:
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (dataset.mean, dataset.std))
            images = (dataset.train_images[:IMAGES].float() / 255 - mean) / std
        else:
            normalize = Normalizer(dataset.mean, dataset.std, torch.device("cpu"))
            images = normalize(dataset.train_images[:IMAGES].contiguous())
        signal = signal_statistics(model, images, dataset.train_labels[:IMAGES])
        return {"parameters": describe_parameters(model, built), "signal": _finite(signal.as_json())}


def describe_parameters(model: nn.Module, built: Mapping[str, Tensor] = {}) -> list[Fields]:
    """Role, statistics and std relative to Kaiming's of every parameter, in the model's order.

    `own` marks a parameter that has the value which the network's constructors gave it (`built`).
    """
    import torch
    from torch import nn

    rows = []
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            values = parameter.detach().double()
            constant = bool((values == values.flatten()[0]).all())
            rows.append(
                {
                    "name": name,
                    "shape": list(values.shape),
                    "role": _role(module, path == linears[-1] if linears else False, name),
                    "mean": values.mean().item(),
                    "std": values.std(correction=0).item(),
                    "constant": values.flatten()[0].item() if constant else None,
                    "kaiming_ratio": None if constant or values.dim() < 2 else _ratio(values),
                    **({"own": True} if name in built and torch.equal(built[name], parameter.detach()) else {}),
                }
            )
    return rows


def _role(module: nn.Module, last_linear: bool, name: str) -> str:
    """The role of a parameter in its network, such as `depthwise convolution weight`."""
    from torch import nn

    from benchmark.initializers.branches import is_norm

    what = "bias" if name.endswith("bias") else "weight"
    if isinstance(module, nn.Conv2d):
        kind = "depthwise convolution" if module.groups > 1 else "convolution"
        return f"{kind} {what}"
    if isinstance(module, nn.Linear):
        return f"{'head' if last_linear else 'hidden linear'} {what}"
    return f"norm {what}" if is_norm(module) else f"{type(module).__name__} {name.rpartition('.')[2]}"


def _ratio(values: Tensor) -> float:
    """The std over √(2 / fan_in): 1 keeps the signal's scale through ReLU layers (He et al. 2015, equation 10)."""
    fan_in = math.prod(values.shape[1:])
    return values.std(correction=0).item() / math.sqrt(2 / fan_in)


def _finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite, because JSON has no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
