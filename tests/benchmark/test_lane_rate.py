"""What lanes give: measured on the CPU with two, and chosen from such measurements."""

from __future__ import annotations

import json

import pytest
import torch

from benchmark.floors import count_work, floor
from benchmark.lane_rate import best_lanes, measure_lanes
from benchmark.lane_speed import measure_lane_speeds
from benchmark.models import build_model
from benchmark.speed import main


def test_two_lanes_on_a_cpu() -> None:
    """Both train to the end; the rate is that of both, and the set-up is counted apart."""
    rate = measure_lanes("resnet20", 2, batch_size=4, steps=2, epochs=2, device="cpu")
    assert (rate.arch, rate.lanes, rate.memory_bytes) == ("resnet20", 2, 0)
    assert rate.images_per_second > 0
    assert rate.setup_seconds > 0


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [({}, 1), ({1: 1.0}, 1), ({1: 1.0, 2: 0.6, 4: 0.45, 8: 0.44}, 4), ({1: 1.0, 2: 1.2}, 1), ({1: 1.0, 8: 0.5}, 8)],
)
def test_the_fewest_lanes_that_are_about_the_fastest(seconds: dict[int, float], expected: int) -> None:
    """A lane costs memory, so eight lanes must be clearly faster than four to be taken."""
    assert best_lanes(seconds) == expected


def test_work_is_counted_from_the_network() -> None:
    """VGG-16 has 313 million multiplications a picture, so a step has about six times as many operations."""
    work = count_work("vgg16bn", 100)
    assert work.operations == pytest.approx(6 * 313.7e6, rel=0.01)
    assert count_work("resnet56").activations > count_work("resnet20").activations
    assert build_model("vgg16bn", 100).training  # what was counted was another instance


def test_floors_of_known_cards() -> None:
    """ResNet-56 is bound by bytes and VGG-16-BN by operations; an unknown card has no floor."""
    assert floor("resnet56", "NVIDIA H100 80GB HBM3", "bf16") == pytest.approx(184e3, rel=0.01)
    assert floor("vgg16bn", "NVIDIA H100 80GB HBM3", "bf16") == pytest.approx(319e3, rel=0.01)
    assert floor("resnet56", "cpu", "fp32") is None


def test_lanes_that_do_not_fit_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--lanes 1,2` where two do not fit: one is measured, the other has a note."""

    def measured(arch: str, lanes: int, **where: object) -> object:
        if lanes > 1:
            raise torch.OutOfMemoryError("full")
        return measure_lanes(arch, lanes, batch_size=4, steps=1, epochs=1, device="cpu")

    monkeypatch.setattr("benchmark.lane_speed.measure_lanes", measured)
    one, two = measure_lane_speeds("resnet20", (1, 2), only_ours=True, rounds=2, device="cpu")
    assert one.images_per_second is not None
    assert "images_per_second=" in one.in_words()
    assert two.images_per_second is None
    assert two.in_words().endswith("lanes=2 does not fit into the memory")


def test_lanes_are_measured_from_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One JSON object a line, for each network and number of lanes."""
    monkeypatch.setattr("benchmark.lane_speed._STEPS", 1)
    main(["--arch", "resnet20", "--lanes", "1,2", "--only-ours", "--rounds", "1", "--batch-size", "4", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["lanes"], line["kernels"], line["device"]) for line in lines] == [
        (1, "eager", "cpu"),
        (2, "eager", "cpu"),
    ]


@pytest.mark.parametrize("arguments", [["--lanes", "0"], ["--lanes", "1,99"], ["--lanes", "x"], ["--kernels", "graph"]])
def test_lanes_that_make_no_sense_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """None, more than torch has streams for, no number, and graphs on a CPU."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err
