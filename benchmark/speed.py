"""How fast the trainer is, against the loop that people usually write.

python -m benchmark.speed                      images per second of both loops, interleaved, and their ratio
python -m benchmark.speed --arch mobilenetv2 --only-ours --json
python -m benchmark.speed --precision fp32     as on a processor without native bfloat16
python -m benchmark.speed --device cuda --lanes 1,4,8       one training, and several side by side, on a GPU
python -m benchmark.speed --device cuda --kernels eager     without CUDA graphs
python -m benchmark.speed --accuracy 10        both loops to the end of the pocket recipe, 10 seeds: do they agree?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import torch

from benchmark.comparison import signed
from benchmark.data import load_dataset
from benchmark.hardware import threads
from benchmark.lane_rate import noise
from benchmark.lane_speed import LaneSpeed, measure_lane_speeds
from benchmark.lanes import MOST_LANES
from benchmark.models import ARCHITECTURES, build_model
from benchmark.plain_loop import plain_loop, torchvision_transforms
from benchmark.precision import PRECISIONS
from benchmark.steps import KERNELS, resolve_kernels
from benchmark.tasks import Recipe, get_profile
from benchmark.train import ImageData, resolve_precision, train
from benchmark.vision import VisionMissing

__all__ = ["main", "measure_agreement", "measure_speed", "plain_loop"]

NETWORKS = ("resnet56", "vgg16bn", "mobilenetv2")
_CLASSES = 100


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds. `plain_images_per_second` and `ratio` are None if only our loop ran."""

    arch: str
    images_per_second: float
    plain_images_per_second: float | None
    ratio: float | None
    evaluation_cost: float
    """Seconds for one test image divided by seconds for one training image."""
    batch_size: int
    precision: str
    threads: int
    device: str
    backend: str | None
    """The torch.compile backend of our loop; None if it is not compiled."""


def measure_speed(
    arch: str,
    *,
    only_ours: bool = False,
    rounds: int = 3,
    steps: int = 6,
    batch_size: int = 128,
    precision: str = "auto",
    device: str = "cpu",
    backend: str | None = None,
    kernels: str = "auto",
) -> Speed:
    """Run both loops alternately on random pictures, `rounds` times after a warm-up, `steps` batches each.

    `precision` and `backend` apply to our loop; the plain one computes in float32 and is never compiled. Raises
    ValueError for an unknown precision, RuntimeError for a missing device.
    """
    recipe = Recipe(epochs=1, lr=0.01, batch_size=batch_size)
    data = noise(steps * batch_size, 8)
    tests = noise(2, 2 * batch_size)
    ours: list[float] = []
    plain: list[float] = []
    evaluation: list[float] = []

    def train_ours(pictures: ImageData, seed: int) -> float:
        model = build_model(arch, _CLASSES)
        where: dict[str, Any] = {"device": device, "precision": precision, "kernels": kernels}
        return train(model, pictures, recipe, seed=seed, backend=backend, **where).seconds

    for round_ in range(rounds + 1):
        seconds = train_ours(data, round_)
        tested = train_ours(tests, round_)
        ours.append(steps * batch_size / seconds)
        # Two evaluations (step 0 and the last epoch) and one step, whose cost is negligible.
        evaluation.append(tested / (2 * len(tests.test_labels)) * ours[-1])
        if not only_ours:
            model = build_model(arch, _CLASSES)
            plain += [rate for rate, _ in plain_loop(model, data, recipe, seed=round_, device=device)]
    rate, plain_rate = statistics.median(ours[1:]), statistics.median(plain[1:]) if plain else None
    return Speed(
        arch=arch,
        images_per_second=round(rate, 1),
        plain_images_per_second=None if plain_rate is None else round(plain_rate, 1),
        ratio=None if plain_rate is None else round(rate / plain_rate, 3),
        evaluation_cost=round(statistics.median(evaluation[1:]), 3),
        batch_size=batch_size,
        precision=resolve_precision(precision, device),
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        backend=backend,
    )


@dataclass(frozen=True)
class Agreement:
    """Best test accuracy of both loops in percent, one per seed, from the same initial weights."""

    arch: str
    dataset: str
    epochs: int
    ours: tuple[float, ...]
    plain: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Mean difference, ours minus plain, in points."""
        return float(statistics.mean(self.ours) - statistics.mean(self.plain))

    @property
    def standard_error(self) -> float:
        """Standard error of the unpaired difference in points. Needs two seeds."""
        count = len(self.ours)
        return math.sqrt((statistics.variance(self.ours) + statistics.variance(self.plain)) / count)


def measure_agreement(
    arch: str, *, seeds: int, epochs: int | None = None, precision: str = "auto", device: str = "cpu"
) -> Agreement:
    """Train both loops on the pocket task of `arch`, equally long and from the same weights (torch's defaults)."""
    pocket = get_profile("pocket")
    task = next(task for task in pocket.tasks if task.arch == arch)
    data = load_dataset(task.dataset)
    recipe = dataclasses.replace(task.recipe, epochs=epochs or task.recipe.epochs)
    ours: list[float] = []
    plain: list[float] = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        start = build_model(arch, data.num_classes).state_dict()
        for loop in (ours, plain):
            model = build_model(arch, data.num_classes)
            model.load_state_dict(start)
            if loop is ours:
                curve = train(model, data, recipe, seed=seed, device=device, precision=precision).curve
                loop.append(max(epoch.test_acc for epoch in curve))
            else:
                loop.append(max(accuracy for _, accuracy in plain_loop(model, data, recipe, seed=seed, device=device)))
        print(f"{arch} seed {seed}: ours {ours[-1]:.2f} plain {plain[-1]:.2f}", file=sys.stderr, flush=True)
    return Agreement(arch, task.dataset, recipe.epochs, tuple(ours), tuple(plain))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), help="one network instead of the protocol's three")
    parser.add_argument("--only-ours", action="store_true", help="leave the plain loop out")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=_positive, default=3, help="times each loop is measured (3)")
    parser.add_argument("--batch-size", type=_positive, default=128, help="images in a batch (128)")
    parser.add_argument("--accuracy", type=_positive, metavar="SEEDS", help="compare accuracies instead of speed")
    parser.add_argument("--epochs", type=_positive, help="with --accuracy: instead of the pocket recipe's epochs")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="number format of our loop (auto)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--backend", help="compile our loop's steps with this backend of torch.compile (default: not)")
    parser.add_argument("--kernels", choices=KERNELS, default="auto", help="how our steps run on a GPU (auto)")
    parser.add_argument("--lanes", type=_counts, help="numbers of trainings side by side, such as 1,4,8")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"argument --device: torch sees no GPU here, so {options.device} cannot be measured")
    if options.accuracy or not options.only_ours:
        try:
            torchvision_transforms()
        except VisionMissing as error:
            parser.error(f"the plain loop uses torchvision's transforms, and {error}; or leave it out: --only-ours")
    try:
        resolve_kernels(options.kernels, options.device)
    except ValueError as error:
        parser.error(f"argument --kernels: {error}")
    torch.set_num_threads(threads())
    where = {"precision": options.precision, "device": options.device}
    networks = (options.arch,) if options.arch else NETWORKS
    if options.accuracy:
        for arch in networks:
            _print_agreement(
                measure_agreement(arch, seeds=options.accuracy, epochs=options.epochs, **where), options.json
            )
        return
    where["kernels"] = options.kernels
    common = {"only_ours": options.only_ours, "rounds": options.rounds, "batch_size": options.batch_size}
    if options.lanes:
        for arch in networks:
            for one in measure_lane_speeds(arch, options.lanes, **common, **where):
                _print_lanes(one, options.json)
        return
    ratios = []
    for arch in networks:
        speed = measure_speed(arch, backend=options.backend, **common, **where)
        _print_speed(speed, options.json)
        if speed.ratio is not None:
            ratios.append(speed.ratio)
    if len(ratios) > 1:
        mean = round(statistics.geometric_mean(ratios), 3)
        print(json.dumps({"geometric_mean_ratio": mean}) if options.json else f"geometric mean of the ratios: {mean}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(_positive(part) for part in text.split(","))
    if max(counts) > MOST_LANES:
        raise argparse.ArgumentTypeError(f"at most {MOST_LANES} lanes")
    return counts


def _print_lanes(speed: LaneSpeed, as_json: bool) -> None:
    print(json.dumps(dataclasses.asdict(speed)) if as_json else speed.in_words(), flush=True)


def _print_speed(speed: Speed, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(speed)), flush=True)
        return
    line = f"{speed.arch:12} images_per_second={speed.images_per_second:.1f}"
    if speed.ratio is not None:
        line += f" plain={speed.plain_images_per_second:.1f} ratio={speed.ratio:.2f}"
    print(f"{line} ({speed.precision}, {speed.threads} threads, batch {speed.batch_size})", flush=True)


def _print_agreement(agreement: Agreement, as_json: bool) -> None:
    error = agreement.standard_error if len(agreement.ours) > 1 else None
    if as_json:
        difference = round(agreement.difference, 3)
        summary = {"difference": difference, "standard_error": None if error is None else round(error, 3)}
        print(json.dumps(dataclasses.asdict(agreement) | summary), flush=True)
        return
    print(
        f"{agreement.arch:12} {agreement.dataset}, {agreement.epochs} epochs, {len(agreement.ours)} seeds: "
        f"ours {statistics.mean(agreement.ours):.2f} plain {statistics.mean(agreement.plain):.2f} "
        f"difference {signed(agreement.difference, 2)}" + ("" if error is None else f" ± {error:.2f} (standard error)"),
        flush=True,
    )


if __name__ == "__main__":
    main()
