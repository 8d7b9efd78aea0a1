"""`python -m benchmark.speed`: both loops run, and what is printed can be read by a program."""

from __future__ import annotations

import json

import pytest
import torch

from benchmark.speed import Agreement, main, measure_speed, plain_loop
from benchmark.tasks import Recipe
from benchmark.vision import installed_version
from tests.benchmark.test_train import coloured_noise, small_net

needs_torchvision = pytest.mark.skipif(
    installed_version() is None, reason="torchvision is not installed; the extra `vision` brings it"
)


@needs_torchvision
def test_both_loops_are_measured() -> None:
    """One round on a small network gives the speed of both loops and their ratio."""
    speed = measure_speed("resnet20", rounds=1, steps=2, batch_size=8)
    assert speed.images_per_second > 0
    assert speed.plain_images_per_second is not None
    assert speed.ratio == pytest.approx(speed.images_per_second / speed.plain_images_per_second, rel=0.05)


def test_json_has_one_object_per_network(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json --only-ours` prints `images_per_second`, and no ratio where nothing was compared."""
    main(["--arch", "resnet20", "--only-ours", "--json", "--rounds", "1", "--batch-size", "8"])
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert answer["arch"] == "resnet20"
    assert answer["images_per_second"] > 0
    assert answer["ratio"] is None


@pytest.mark.parametrize(
    "arguments", [["--arch", "alexnet"], ["--rounds", "0"], ["--accuracy", "-1"], ["--precision", "fp8"]]
)
def test_bad_arguments_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown network or a count below one ends with exit code 2 and says what was wrong."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`--device cuda` without a GPU says so instead of raising from the depths of torch."""
    with pytest.raises(SystemExit) as caught:
        main(["--device", "cuda"])
    assert caught.value.code == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_float32_is_measured_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """`--precision fp32` shows what a processor without bfloat16 gets."""
    main(["--arch", "resnet20", "--only-ours", "--json", "--rounds", "1", "--batch-size", "4", "--precision", "fp32"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["precision"], answer["device"], answer["backend"]) == ("fp32", "cpu", None)


@needs_torchvision
def test_the_plain_loop_learns_what_ours_learns() -> None:
    """The reference is a real training: on an easy task it gets far above chance."""
    accuracies = [
        accuracy for _, accuracy in plain_loop(small_net(), coloured_noise(), Recipe(8, 0.05, batch_size=16), seed=0)
    ]
    assert len(accuracies) == 8
    assert accuracies[-1] > 60


def test_agreement_has_a_standard_error() -> None:
    """The difference of two means of n seeds has the standard error √((s₁² + s₂²) / n)."""
    agreement = Agreement("resnet20", "tiny", 1, ours=(1.0, 3.0), plain=(2.0, 2.0))
    assert agreement.difference == 0
    assert agreement.standard_error == pytest.approx(1.0)
