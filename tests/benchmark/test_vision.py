"""torchvision is optional: where it is missing or does not fit torch, the message says what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmark.data import DataError, load_dataset
from benchmark.speed import main
from benchmark.vision import VisionMissing, install_command, installed_version, vision


@pytest.fixture
def no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages are looked for in this checkout only; torch is already imported."""
    _forget_torchvision(monkeypatch)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2])])


@pytest.fixture
def unfit_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installed torchvision that was built for another torch."""
    _forget_torchvision(monkeypatch)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("from torchvision import early, late\n")
    (tmp_path / "torchvision/early.py").touch()
    (tmp_path / "torchvision/late.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    (tmp_path / "torchvision-0.99.1.dist-info").mkdir()
    (tmp_path / "torchvision-0.99.1.dist-info/METADATA").write_text("Name: torchvision\nVersion: 0.99.1\n")
    monkeypatch.syspath_prepend(tmp_path)


def _forget_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("no_torchvision")
def test_a_missing_torchvision_is_named_with_the_command_that_installs_it() -> None:
    """Not a ModuleNotFoundError: the release that fits the installed torch, and nothing that would replace torch."""
    assert installed_version() is None
    with pytest.raises(VisionMissing, match=r"torchvision is not installed; next: pip install .* 'torchvision=="):
        vision("datasets")


@pytest.mark.usefixtures("unfit_torchvision")
def test_a_torchvision_for_another_torch_is_told_from_a_missing_one() -> None:
    """Users saw `RuntimeError: operator torchvision::nms does not exist`, which names neither package's version."""
    for _ in range(2):
        with pytest.raises(VisionMissing, match=r"torchvision 0\.99\.1 does not fit torch .* \(operator .*; next: pip"):
            vision("datasets")
        assert "torchvision.early" not in sys.modules


@pytest.mark.usefixtures("unfit_torchvision")
def test_a_download_without_torchvision_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--download` ends with the data set, the reason, and both remedies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"which downloads cifar10, .* does not fit .* next: pip .* --data-root"):
        load_dataset("cifar10", download=True)


@pytest.mark.usefixtures("no_torchvision")
def test_a_comparison_without_torchvision_is_refused_before_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m benchmark.speed` names the missing package and the flag that does without it."""
    with pytest.raises(SystemExit) as caught:
        main(["--arch", "resnet20"])
    assert caught.value.code == 2
    assert "torchvision is not installed" in (error := capsys.readouterr().err)
    assert "--only-ours" in error


@pytest.mark.parametrize(
    ("torch_version", "command"),
    [
        ("2.9.1+cpu", "--no-deps --index-url https://download.pytorch.org/whl/cpu 'torchvision==0.24.*'"),
        ("2.13.0+cu130", "--no-deps --index-url https://download.pytorch.org/whl/cu130 'torchvision==0.28.*'"),
        ("2.14.1", "--no-deps 'torchvision==0.29.*'"),
        ("2.10.0a0+git1f2e3d4", "--no-deps 'torchvision==0.25.*'"),
    ],
)
def test_the_release_that_fits(torch_version: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each torch has one torchvision; the label of a build by PyTorch is the name of its index."""
    monkeypatch.setattr(torch, "__version__", torch_version)
    assert install_command().endswith(command)
