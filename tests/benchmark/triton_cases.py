"""What tests/benchmark/test_triton.py runs in processes of their own, since Triton chooses its interpreter at import.

    python -m tests.benchmark.triton_cases interpret compile

One JSON object a line: the kind, the case, and its error or null.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.lane_rate import noise
from benchmark.models import BasicBlock, InvertedResidual
from benchmark.results import EpochMetrics
from benchmark.steps import Eager
from benchmark.tasks import Recipe
from benchmark.train import train
from benchmark.triton_layers import joined_activations, triton_layers
from tests.gpu.triton_kernels import compare_depthwise, compare_norm

Case = tuple[str, Callable[[], None]]
FP32, BF16 = torch.float32, torch.bfloat16


def interpreted() -> Iterator[Case]:
    """Odd sizes, both strides, channels that fill no block, one picture, more than one part of a sum."""
    depthwise = (
        ((1, 3, 7, 7), 2, FP32),
        ((1, 3, 1, 1), 1, FP32),
        ((1, 5, 12, 14), 2, FP32),
        ((1, 5, 33, 33), 1, FP32),
        ((2, 70, 3, 5), 1, BF16),
        ((3, 9, 7, 5), 2, BF16),
    )
    for shape, stride, dtype in depthwise:
        name = f"depthwise {'x'.join(map(str, shape))} stride {stride} {str(dtype)[6:]}"
        yield name, partial(compare_depthwise, "cpu", dtype, shape, stride)
    norms: tuple[tuple[tuple[int, int, int, int], str, torch.dtype, dict[str, Any]], ...] = (
        ((1, 3, 7, 7), "none", FP32, {}),
        ((1, 20, 17, 17), "relu", FP32, {}),
        ((1, 7, 33, 33), "relu6", FP32, {}),
        ((5, 33, 1, 1), "relu", FP32, {}),
        ((3, 70, 5, 3), "relu6", BF16, {}),
        ((1, 16, 23, 23), "relu", BF16, {}),
        ((2, 5, 7, 7), "none", BF16, {"batch": False}),
        ((2, 5, 7, 7), "relu6", FP32, {"batch": False}),
    )
    for shape, activation, dtype, options in norms:
        mode = "evaluation" if options else "training"
        name = f"norm {'x'.join(map(str, shape))} {activation} {mode} {str(dtype)[6:]}"
        yield name, partial(compare_norm, "cpu", dtype, shape, activation, **options)
    yield "far from zero", far_from_zero
    yield "nan", nan_stays
    yield "other formats", other_formats
    yield "another way later", another_way_later
    yield "a training", a_training


def far_from_zero() -> None:
    """A mean a thousand times the deviation, which a sum of squares would lose in float32."""
    from benchmark.triton_norm import batch_norm

    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0)) + 1000
    norm = nn.BatchNorm2d(3)
    one = torch.ones(3)
    buffers = torch.zeros(3), torch.ones(3), torch.tensor(0)
    y = batch_norm(x, one, 0 * one, buffers, batch=True, update=True, momentum=0.1, eps=norm.eps)
    torch.testing.assert_close(y.double(), norm.double()(x.double()).detach(), rtol=0, atol=2e-3)


def nan_stays() -> None:
    """A NaN reaches the output and the running statistics, so a divergence shows."""
    from benchmark.triton_norm import batch_norm

    x = torch.ones(2, 3, 4, 4)
    x[0, 1, 0, 0] = torch.nan
    buffers = torch.zeros(3), torch.ones(3), torch.tensor(0)
    y = batch_norm(
        *(x, torch.ones(3), torch.zeros(3), buffers),
        batch=True,
        update=True,
        momentum=0.1,
        eps=1e-5,
        activation="relu6",
    )
    assert y.isnan().any(dim=(0, 2, 3)).tolist() == [False, True, False]
    assert buffers[0].isnan().tolist() == [False, True, False]


def other_formats() -> None:
    """Inputs and gradients that are not channels_last, such as that of a mean, give the same numbers."""
    from benchmark.triton_depthwise import depthwise
    from benchmark.triton_norm import batch_norm

    start = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    found = []
    for layout in (torch.channels_last, torch.contiguous_format):
        x = start.contiguous(memory_format=layout).requires_grad_()
        buffers = torch.zeros(6), torch.ones(6), torch.tensor(0)
        y = batch_norm(*(x, torch.ones(6), torch.zeros(6), buffers), batch=True, update=False, momentum=0.1, eps=1e-5)
        depthwise(y, weight, 1).mean(dim=(2, 3)).square().sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        found.append(x.grad)
        assert buffers[0].eq(0).all()
        assert buffers[2] == 0
    assert torch.equal(*found)


class Changing(nn.Module):
    """Leaves its ReLU out from some pass on."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu, self.plain = nn.BatchNorm2d(3), nn.ReLU(), False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y if self.plain else self.relu(y)


def another_way_later() -> None:
    """A network that stops handing a joined output to its ReLU is refused, because it got a rectified one."""
    model, x = Changing(), torch.randn(2, 3, 2, 2)
    with triton_layers(model, joined_activations(model, x, "fp32", torch.Generator())):
        assert model(x).min() == 0
        model.plain = True
        model(x)
        with pytest.raises(RuntimeError, match="went to its ReLU in the first forward pass, and not in this one"):
            model(x)


class Small(nn.Module):
    """Every kind of layer that is replaced: pairs in a sequence, a ReLU with two places, a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(InvertedResidual(4, 6, 2, 2), BasicBlock(6, 6))
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return logits


def a_training() -> None:
    """A training with the kernels ends where torch's own ends, within rounding, and leaves the modules as they were."""

    def trained(kernels: str, precision: str) -> tuple[EpochMetrics, dict[str, Tensor]]:
        torch.manual_seed(5)
        model = Small()
        names = list(model.state_dict())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("benchmark.train.resolve_kernels", lambda *_: kernels)
            patch.setattr("benchmark.train.open_steps", lambda kernels, device, seed: Eager(device, seed))
            patch.setattr("benchmark.train.fast_ops", lambda *_: nullcontext())  # a GPU has none
            outcome = train(
                model,
                noise(4, 2, picture=(3, 8, 8), classes=10),
                Recipe(epochs=1, lr=0.05, batch_size=2),
                seed=1,
                precision=precision,
            )
        assert list(model.state_dict()) == names
        assert not any("forward" in vars(module) for module in model.modules())
        return outcome.curve[-1], model.state_dict()

    for precision, near in (("fp32", 1e-4), ("bf16", 0.1)):
        (curve, state), (expected_curve, expected) = trained("triton", precision), trained("eager", precision)
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=near, atol=near)
        assert abs(curve.train_loss - expected_curve.train_loss) < near
        assert abs(curve.test_loss - expected_curve.test_loss) < near
    again = trained("triton", "bf16")[1]
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def compiled() -> Iterator[Case]:
    """Every kernel compiles to machine code for a card, which needs no card: an A100, an H100."""
    from benchmark import triton_depthwise, triton_norm

    norm: dict[str, Any] = {"BLOCK_R": 64, "BLOCK_C": 32}
    convolution: dict[str, Any] = {"HEIGHT": 7, "WIDTH": 7, "OUT_HEIGHT": 4, "OUT_WIDTH": 4, "STRIDE": 2}
    convolution |= {"BLOCK_P": 32, "BLOCK_C": 32}
    kernels: tuple[tuple[Any, dict[str, Any]], ...] = (
        (triton_norm._moments, norm),
        (triton_norm._statistics, {"UPDATE": True, "PARTS": 64, "BLOCK_C": 32}),
        (triton_norm._normalise, {**norm, "ACT": 1}),
        (triton_norm._gradient_sums, {**norm, "ACT": 2}),
        (triton_norm._gradient, {**norm, "ACT": 2, "BATCH": True}),
        (triton_depthwise._convolve, convolution),
        (triton_depthwise._gradients, convolution),
    )
    for index, (kernel, constants) in enumerate(kernels):
        card, number = ((90, "bf16"), (80, "fp32"))[index % 2]
        yield f"{kernel.__name__} sm_{card} {number}", partial(compile_for, kernel, constants, card, number)


def compile_for(kernel: Any, constants: dict[str, Any], card: int, number: str) -> None:
    """Compile for a compute capability, such as 80. Raises what Triton raises."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pictures = {"x_ptr", "y_ptr", "grad_ptr"} | ({"out_ptr"} if "rows" not in kernel.arg_names else set())
    types = {
        name: f"*{number}"
        if name in pictures
        else "*i64"
        if name == "batches_ptr"
        else "*fp32"
        if name.endswith("_ptr")
        else "fp32"
        if name in ("eps", "momentum")
        else "i32"
        for name in kernel.arg_names
    }
    signature = types | dict.fromkeys(constants, "constexpr")
    aligned = [(name, place) for place, name in enumerate(kernel.arg_names) if types[name] != "fp32"]
    attributes = {
        (place,): [["tt.divisibility", 16]] for name, place in aligned if name.endswith("_ptr") or name == "channels"
    }
    made = triton.compile(ASTSource(kernel, signature, constants, attributes), target=GPUTarget("cuda", card, 32))
    assert made.asm["cubin"]


def main() -> None:
    """Run the cases of the kinds that the command line names, each kind in a fork that has torch and not Triton."""
    torch.set_num_threads(1)
    for kind in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            os.environ["TRITON_INTERPRET"] = str(int(kind == "interpret"))
            run(kind)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{kind}: the process ended with {os.waitstatus_to_exitcode(status)}")


def run(kind: str) -> None:
    """Run the cases of one kind."""
    assert "triton" not in sys.modules
    for name, case in {"interpret": interpreted, "compile": compiled}[kind]():
        started = time.process_time()
        try:
            case()
            error = None
        except Exception:  # noqa: BLE001 - the test shows it
            error = traceback.format_exc()
        seconds = round(time.process_time() - started, 2)
        print(json.dumps({"kind": kind, "case": name, "error": error, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
