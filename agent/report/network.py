"""Measures each network before training: its weights, and the forward and backward signal.

The candidate's function runs again in isolation. Trusted code measures the resulting network. The numbers are kept in
`network.json`, so that a page can be made again without running anything.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import RunDamaged
from agent.runs.directory import RunDirectory
from agent.runs.files import read_object
from agent.runs.lines import Fields
from agent.runs.record import RunRecord, text
from benchmark.data import DataError, ImageDataset, load_dataset
from benchmark.files import write_atomically
from benchmark.results import region_sha256

if TYPE_CHECKING:
    from torch import nn

    from sandbox.isolate import Isolation

SCHEMA = 1
IMAGES = 32
"""Pictures in the batch. This is enough to measure scales, and takes one or two seconds per network."""
_MAX_NETWORKS = 8


def measure_network(record: RunRecord, test: int, isolation: Isolation, *, data_root: Path | None = None) -> Fields:
    """Initialise every network of the run with the baseline and with test `test`, and measure.

    Data are looked for in `data_root` and the usual places, not in the folder that the run names. The hidden task's
    network is measured only after a submission. Failures become `error` entries.
    """
    regions = {"baseline": record.baseline_region, "submission": record.regions[test]}
    tasks = [*record.tasks("visible"), *(record.tasks("hidden") if record.submitted is not None else [])]
    seed = _first_seed(record)
    load = lru_cache(1)(partial(load_dataset, data_root=data_root))
    found: Fields = {}
    with tempfile.TemporaryDirectory(prefix="initsearch-report-") as folder:
        for task in tasks[:_MAX_NETWORKS]:
            name = text(task["name"])
            found[name] = {
                role: _measure(region, task, seed, isolation, Path(folder), load) for role, region in regions.items()
            }
    return {"schema": SCHEMA, "seed": seed, "images": IMAGES, "regions": _digests(regions), "tasks": found}


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


def _measure(
    region: str, task: Fields, seed: int, isolation: Isolation, folder: Path, load: Callable[[str], ImageDataset]
) -> dict[str, Any]:
    """One region on one task: parameters and signal, or an error."""
    import torch

    from benchmark.models import build_model
    from benchmark.signal_stats import signal_statistics
    from benchmark.weights import WeightsRejected, load_initial_weights
    from sandbox.isolate import Job

    try:
        dataset = load(text(task.get("dataset")))
        model = build_model(text(task.get("arch")), dataset.num_classes)
    except (DataError, ValueError, KeyError) as error:
        return {"error": str(error)}
    weights = folder / "weights.safetensors"
    made = isolation.initialise(Job(region, text(task.get("arch")), dataset.num_classes, seed, weights))
    if not made.ok:
        return {"error": f"{made.kind}: {made.message}"}
    try:
        load_initial_weights(weights, model)
    except WeightsRejected as error:
        return {"error": str(error)}
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (dataset.mean, dataset.std))
    images = (dataset.train_images[:IMAGES].float() / 255 - mean) / std
    signal = signal_statistics(model, images, dataset.train_labels[:IMAGES])
    return {"parameters": describe_parameters(model), "signal": _finite(signal.as_json())}


def describe_parameters(model: nn.Module) -> list[Fields]:
    """Role, statistics and std relative to Kaiming's of every parameter, in the model's order."""
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
                    "kaiming_ratio": None if constant else _kaiming_ratio(values.std(correction=0).item(), module),
                }
            )
    return rows


def _role(module: nn.Module, last_linear: bool, name: str) -> str:
    """The role of a parameter in its network, such as `depthwise convolution weight`."""
    from torch import nn

    what = "bias" if name.endswith("bias") else "weight"
    if isinstance(module, nn.Conv2d):
        kind = "depthwise convolution" if module.groups > 1 else "convolution"
        return f"{kind} {what}"
    if isinstance(module, nn.Linear):
        return f"{'head' if last_linear else 'hidden linear'} {what}"
    return f"norm {what}"


def _kaiming_ratio(std: float, module: nn.Module) -> float | None:
    """The std over √(2 / fan_in): 1 keeps the signal's scale through ReLU layers (He et al. 2015, equation 10)."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() < 2:
        return None
    fan_in = math.prod(weight.shape[1:])
    return std / math.sqrt(2 / fan_in)


def _finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite, because JSON has no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
