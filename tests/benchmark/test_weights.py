"""The trusted loader against files that a hostile process may have had a hand in."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmark.models import build_model
from benchmark.weights import WeightsRejected, load_initial_weights


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def values(model: nn.Module) -> dict[str, Tensor]:
    """Acceptable values for `model`."""
    return {name: torch.full_like(parameter, 0.25).detach() for name, parameter in model.named_parameters()}


def rejected(path: Path, model: nn.Module) -> WeightsRejected:
    """Load, expect a rejection, and check that nothing has been copied."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsRejected) as caught:
        load_initial_weights(path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert path.name in str(caught.value)
    return caught.value


def test_values_are_copied_into_the_models_own_parameters(model: nn.Module, tmp_path: Path) -> None:
    """What the candidate made is what is trained; objects, buffers, hooks and flags stay the trainer's."""
    path = tmp_path / "w.safetensors"
    save_file(values(model), path)
    parameters = dict(model.named_parameters())
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    load_initial_weights(path, model)
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
        assert parameter.requires_grad
        assert parameter.grad is None
        assert bool((parameter == 0.25).all())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("arch", ["resnet20", "mobilenetv2"])
def test_every_bit_arrives(arch: str, tmp_path: Path) -> None:
    """Weights written from one network and loaded into another are the same weights."""
    source, target = build_model(arch, 10), build_model(arch, 10)
    save_file(dict(source.named_parameters()), tmp_path / "w")
    load_initial_weights(tmp_path / "w", target)
    pairs = zip(source.parameters(), target.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_missing_file_is_named(model: nn.Module, tmp_path: Path) -> None:
    assert rejected(tmp_path / "none", model).kind == "missing"


def test_a_link_is_not_followed(model: nn.Module, tmp_path: Path) -> None:
    """With a link as output, an attacker could choose the file that the trainer reads."""
    save_file(values(model), tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert rejected(tmp_path / "link", model).kind == "not_regular"


def test_a_named_pipe_does_not_block(model: nn.Module, tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would hang the trainer for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert rejected(tmp_path / "pipe", model).kind == "not_regular"


def test_a_folder_and_a_device_are_refused(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert rejected(tmp_path / "folder", model).kind == "not_regular"
    assert rejected(Path("/dev/zero"), model).kind == "not_regular"


def test_a_sparse_giant_is_not_read(model: nn.Module, tmp_path: Path) -> None:
    """A file of a terabyte that takes no room on the disk would take all memory."""
    with (tmp_path / "giant").open("wb") as stream:
        stream.truncate(1 << 40)
    assert rejected(tmp_path / "giant", model).kind == "too_large"


def test_a_pickle_is_not_executed(model: nn.Module, tmp_path: Path) -> None:
    """A checkpoint in torch's own format runs code when it is loaded."""
    torch.save(values(model), tmp_path / "torch.pt")
    assert rejected(tmp_path / "torch.pt", model).kind == "format"
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    (tmp_path / "payload").write_bytes(pickle.dumps(Payload()))
    assert rejected(tmp_path / "payload", model).kind == "format"
    assert not marker.exists()


def header(**entries: object) -> bytes:
    """A safetensors file with this header and 64 zero bytes of data."""
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        (1 << 62).to_bytes(8, "little") + b"{}",
        b"\x02\x00\x00\x00\x00\x00\x00\x00{}trailing",
        header(w={"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}),
        header(w={"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}),
        header(w={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}),
        header(w={"dtype": "EVIL", "shape": [16], "data_offsets": [0, 64]}),
        header(
            a={"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
            b={"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
        ),
    ],
    ids=["empty", "short", "endless header", "trailing", "shape", "offsets", "negative", "dtype", "overlap"],
)
def test_broken_files_are_refused(content: bytes, model: nn.Module, tmp_path: Path) -> None:
    """A malformed file ends in a rejection, not in a crash."""
    (tmp_path / "w").write_bytes(content)
    assert rejected(tmp_path / "w", model).kind == "format"


def test_exactly_the_models_names(model: nn.Module, tmp_path: Path) -> None:
    """A tensor too few would stay at torch's default, one too many is somebody's attempt: both are named."""
    tensors = values(model)
    few = {name: tensor for name, tensor in tensors.items() if name != "3.bias"}
    save_file(few, tmp_path / "few")
    assert "3.bias" in str(rejected(tmp_path / "few", model))
    save_file({**tensors, "1.running_mean": torch.zeros(4)}, tmp_path / "many")
    error = rejected(tmp_path / "many", model)
    assert error.kind == "keys"
    assert "1.running_mean" in str(error)


@pytest.mark.parametrize(
    ("name", "tensor", "kind"),
    [
        ("3.weight", torch.zeros(2, 5), "shape"),
        ("3.weight", torch.zeros(8), "shape"),
        ("3.weight", torch.zeros(2, 4, dtype=torch.float64), "dtype"),
        ("3.weight", torch.zeros(2, 4, dtype=torch.int32), "dtype"),
        ("3.bias", torch.tensor([0.0, float("nan")]), "not_finite"),
        ("3.bias", torch.tensor([float("inf"), 0.0]), "not_finite"),
    ],
)
def test_every_tensor_must_fit(name: str, tensor: Tensor, kind: str, model: nn.Module, tmp_path: Path) -> None:
    """One tensor that does not fit makes the file invalid, and the message says which one and why."""
    save_file({**values(model), name: tensor}, tmp_path / "w")
    error = rejected(tmp_path / "w", model)
    assert error.kind == kind
    assert name in str(error)
