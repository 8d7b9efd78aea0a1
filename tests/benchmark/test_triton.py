"""The Triton kernels on a CPU: in Triton's interpreter, and compiled for cards that are not here.

Whether they are fast, and right on a card, `make test-gpu` says (tests/gpu/triton_kernels.py).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from benchmark.floors import triton_traffic
from benchmark.models import BasicBlock, build_model
from benchmark.triton_layers import joined_activations, triton_layers

Found = dict[str, dict[str, str | None]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Each case of tests/benchmark/triton_cases.py by kind: its error or None. The interpreter's only if it works."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed: pip install triton (Linux only)")
    versions = [tuple(map(int, importlib.metadata.version(name).split(".")[:2])) for name in ("triton", "numpy")]
    kinds = ["compile"] if versions[0] < (3, 7) and versions[1] >= (2, 4) else ["interpret", "compile"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmark.triton_cases", *kinds],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {kind: {case["case"]: case["error"] for case in cases if case["kind"] == kind} for kind in kinds}


def no_error(found: dict[str, str | None], at_least: int) -> None:
    assert len(found) >= at_least
    failed = {case: error for case, error in found.items() if error is not None}
    assert not failed, "\n".join(f"{case}: {error}" for case, error in failed.items())


def test_the_kernels_compute_what_torch_computes(found: Found) -> None:
    """Outputs, gradients, running statistics and a whole training, in float32 and bfloat16; twice with equal bits."""
    if "interpret" not in found:
        pytest.skip("Triton's interpreter before 3.7 fails with numpy 2.4")
    no_error(found["interpret"], 19)


def test_the_kernels_compile_for_cards(found: Found) -> None:
    """The interpreter accepts more than the compiler does, so each kernel is compiled for an A100 or an H100."""
    no_error(found["compile"], 7)


@pytest.mark.parametrize(
    ("arch", "joined", "depthwise"), [("resnet20", 10, 0), ("vgg16bn", 13, 0), ("mobilenetv2", 35, 17)]
)
def test_watching_a_network_finds_its_pairs(arch: str, joined: int, depthwise: int) -> None:
    """A residual block's ReLU belongs to its first normalisation; the second is followed by an addition."""
    torch.manual_seed(0)
    model = build_model(arch, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    drawn = generator.get_state()
    model.features.eval() if arch == "vgg16bn" else None  # type: ignore[union-attr]
    modes = [module.training for module in model.modules()]
    found = joined_activations(model, torch.randn(2, 3, 32, 32), "fp32", generator)
    assert len(found) == joined
    if arch == "resnet20":
        blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
        assert all(found[block.bn1] is block.relu and block.bn2 not in found for block in blocks)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(generator.get_state(), drawn)
    state = list(model.state_dict())
    with triton_layers(model, found):
        replaced = [module for module in model.modules() if "forward" in vars(module)]
        kinds = [type(module).__name__ for module in replaced]
        assert kinds.count("Conv2d") == depthwise
        assert kinds.count("BatchNorm2d") == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        assert list(model.state_dict()) == state
    assert not any("forward" in vars(module) for module in model.modules())


class Odd(nn.Module):
    """Normalisations whose output somebody else needs as well, or that are called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.twice, self.last = (nn.BatchNorm2d(3) for _ in range(4))
        self.relu, self.own, self.hooked = nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU()
        self.hooked.register_forward_hook(lambda module, inputs, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        x = self.relu(y) + y
        x = self.hooked(self.second(x))
        x = self.own(self.twice(self.twice(x)))
        y = self.last(x)
        if self.training:
            y = self.relu(y)
        mean: Tensor = y.mean((2, 3))
        return mean


def test_a_normalisation_that_others_use_keeps_its_output() -> None:
    """Joining a ReLU to it would change what the others get."""
    assert joined_activations(Odd(), torch.randn(2, 3, 4, 4), "fp32", torch.Generator()) == {}


def test_bytes_that_the_kernels_save() -> None:
    """Counted by hand for VGG: 13 joined normalisations; MobileNetV2 has the depthwise convolutions too."""
    vgg = triton_traffic("vgg16bn")
    numbers = 2 * 32**2 * 64 + 2 * 16**2 * 128 + 3 * 8**2 * 256 + 3 * 4**2 * 512 + 3 * 2**2 * 512
    assert (vgg.torch, vgg.triton) == (2 * 13 * numbers, 2 * 8 * numbers)
    assert triton_traffic("mobilenetv2", "fp32").torch == 2 * triton_traffic("mobilenetv2").torch
