"""The file that an author sees: importable, documented, and with a sane region to start from."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from benchmark.models import ARCHITECTURES, build_model, init_config
from benchmark.report_lines import final_metrics_lines, task_report, train_metrics_line
from benchmark.results import EpochMetrics, EvaluationResult, StepZero
from sandbox import custom_init
from sandbox.region import NAMES_IN_SCOPE, scaffold
from sandbox.rules import check_region

ROOT = Path(__file__).resolve().parents[2]


def _epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=number, train_loss=0.35968, train_acc=88.7, test_loss=1.27876, test_acc=67.66, lr=0.00954915, seconds=1.0
    )


def _result(seed: int, best: float, epochs: int = 200, status: str = "ok") -> EvaluationResult:
    return EvaluationResult.model_validate(
        {
            "key": "k",
            "task": "resnet56-cifar100",
            "seed": seed,
            "region_sha256": "0",
            "status": status,
            "best_test_acc": best,
            "last_test_acc": best,
            "test_loss": 1.0,
            "curve": [_epoch(n) for n in range(1, epochs + 1)],
            "step_zero": StepZero(accuracy=1.0, loss=4.6, p_value=0.5, suspicious=False),
            "isolation_level": "none",
            "isolation_seconds": 0.0,
            "training_seconds": 1.0,
            "device": "cpu",
            "precision": "fp32",
            "threads": 1,
            "versions": {},
        }
    )


def test_every_promised_name_is_in_scope() -> None:
    assert [name for name in NAMES_IN_SCOPE if not hasattr(custom_init, name)] == []


def test_importing_the_scaffold_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.random.get_rng_state()
    importlib.reload(custom_init)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_the_untouched_region_is_kaiming_normal(arch: str) -> None:
    """Convolutions fan_out, Linear fan_in, BN (1, 0), no bias; every parameter is set."""
    model = build_model(arch, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    torch.manual_seed(0)
    custom_init.initialize_weights(model, init_config(model, arch, 10))
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            mode: Literal["fan_in", "fan_out"] = "fan_out" if isinstance(module, nn.Conv2d) else "fan_in"
            expected = nn.init.kaiming_normal_(torch.empty_like(module.weight), mode=mode, nonlinearity="relu")
            assert torch.equal(module.weight, expected)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    assert biases
    assert all(bias.eq(0).all() for bias in biases)


def test_the_untouched_region_passes_the_checks_and_the_file_is_short() -> None:
    """A language model reads all of it, more than once."""
    assert check_region(scaffold().region) is None
    assert len(scaffold().text) < 5_000


def test_an_epoch_is_reported_as_in_the_public_benchmark() -> None:
    assert train_metrics_line(_epoch(160)) == (
        "TRAIN_METRICS: epoch=160 train_loss=0.3597 train_acc=88.70 test_loss=1.2788 test_acc=67.66 lr=0.009549"
    )
    assert final_metrics_lines("resnet56-cifar100", 72.608) == [
        "Final metrics (resnet56-cifar100):",
        "test_acc_resnet56-cifar100=72.61",
    ]


def test_a_task_shows_every_tenth_of_its_last_epochs_and_its_score() -> None:
    lines = task_report("resnet56-cifar100", [_result(0, 72.61)]).split("\n")
    assert lines[:2] == ["### resnet56-cifar100", "Training progress (last epochs):"]
    assert [line.split()[1] for line in lines[2:7]] == [f"epoch={n}" for n in (160, 170, 180, 190, 200)]
    assert lines[7:] == ["", "Final metrics (resnet56-cifar100):", "test_acc_resnet56-cifar100=72.61"]


def test_several_seeds_give_a_mean_and_a_failure_gives_no_score() -> None:
    report = task_report("resnet56-cifar100", [_result(0, 70.0, epochs=3), _result(1, 72.0, epochs=3)])
    assert report.count("Training progress") == 2
    assert report.endswith("test_acc_resnet56-cifar100=71.00")
    failed = task_report("t", [_result(0, 70.0, epochs=1, status="diverged")], ["seed 1: timeout: after 60 s"])
    assert "[DIVERGED] the loss became NaN or infinite after epoch 1" in failed
    assert failed.endswith("[FAILED] seed 1: timeout: after 60 s")
    assert "test_acc_t=" not in failed


def test_the_scaffold_runs_by_hand() -> None:
    """`python -m sandbox.custom_init` trains one task and prints its score."""
    pytest.importorskip("benchmark.data", reason="the data loaders are not there yet")
    command = [sys.executable, "-m", "sandbox.custom_init", "--arch", "resnet20", "--dataset", "tiny", "--epochs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().split("\n")
    assert lines[0].startswith("TRAIN_METRICS: epoch=1 train_loss=")
    assert lines[-2:][0] == "Final metrics (resnet20-tiny):"
    assert lines[-1].startswith("test_acc_resnet20-tiny=")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--epochs", "0"], "--epochs and --batch-size must be at least 1"),
        (["--arch", "alexnet"], "invalid choice: 'alexnet'"),
        (["--dataset", "cifar10", "--data-root", "/nonexistent/data"], "/nonexistent/data"),
    ],
)
def test_a_wrong_command_line_ends_with_a_sentence(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("benchmark.data", reason="the data loaders are not there yet")
    monkeypatch.setattr(sys, "argv", ["custom_init", *arguments])
    with pytest.raises(SystemExit) as caught:
        custom_init.main()
    assert caught.value.code in (1, 2)
    assert complaint in capsys.readouterr().err
