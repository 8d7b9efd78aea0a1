"""The project's Triton kernels against torch's own operations in float64, and trainings with them.

The comparisons run on a GPU, and small ones on a CPU in Triton's interpreter (tests/benchmark/test_triton.py).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.steps import no_triton
from benchmark.triton_layers import joined_activations, triton_layers
from tests.gpu.checks import Setting, digest, fresh, run

_EXACT = 1e-5
"""Of the largest number: what float32 sums may differ by."""


def why_no_triton(setting: Setting) -> str | None:
    """Why these checks cannot run, or None."""
    return no_triton(gpu=setting.device.startswith("cuda"))


def values(shape: tuple[int, ...], dtype: torch.dtype, device: str, seed: int) -> Tensor:
    """Random numbers from the CPU's generator; channels_last if they have four dimensions."""
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    return found.contiguous(memory_format=torch.channels_last) if found.dim() == 4 else found


def same(what: str, found: Tensor | None, expected: Tensor | None) -> None:
    """Raise AssertionError if numbers differ by more than their type explains: sums are made in float32."""
    assert found is not None, f"{what}: nothing"
    assert expected is not None
    expected = expected.detach().double()
    difference = (found.detach().double() - expected).abs()
    # The interpreter cuts bfloat16 off where a GPU rounds.
    relative = 2.0**-7 if found.dtype == torch.bfloat16 else 0.0
    allowed = _EXACT * max(1.0, float(expected.abs().max())) + relative * expected.abs()
    assert bool((difference <= allowed).all()), f"{what}: differs by {float((difference - allowed).max()):.2e} too much"


def compare_depthwise(device: str, dtype: torch.dtype, shape: tuple[int, int, int, int], stride: int) -> None:
    """Output and both gradients against F.conv2d; a second time with the same bits."""
    from benchmark.triton_depthwise import depthwise

    channels = shape[1]
    weight = values((channels, 1, 3, 3), torch.float32, device, 1)
    found = []
    for _ in range(2):
        x, w = values(shape, dtype, device, 0).requires_grad_(), weight.clone().requires_grad_()
        y = depthwise(x, w, stride)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        gradient = values(tuple(y.shape), dtype, device, 2)
        y.backward(gradient)  # type: ignore[no-untyped-call]
        found.append((y, x.grad, w.grad))
    x64, w64 = values(shape, dtype, device, 0).double().requires_grad_(), weight.double().requires_grad_()
    expected = F.conv2d(x64, w64, None, stride, 1, 1, channels)
    expected.backward(gradient.double())  # type: ignore[no-untyped-call]
    names = ("output", "gradient of the input", "gradient of the weight")
    for name, one, again, right in zip(names, *found, (expected, x64.grad, w64.grad), strict=True):
        same(name, one, right)
        assert torch.equal(one, again), f"{name}: twice, with different bits"


def compare_norm(
    device: str,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    activation: str,
    *,
    batch: bool = True,
    mean: float = 1.0,
) -> None:
    """Output, gradients and buffers against nn.BatchNorm2d and the activation; a second time with the same bits."""
    from benchmark.triton_norm import batch_norm

    channels = shape[1]

    def inputs(number: torch.dtype) -> tuple[Tensor, nn.BatchNorm2d]:
        x = (values(shape, torch.float32, device, 0) * 2 + mean).to(dtype).to(number).requires_grad_()
        norm = nn.BatchNorm2d(channels).to(device).train(batch)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2.0, channels))
            norm.bias.copy_(torch.linspace(-1.0, 3.0, channels))
            if not batch:
                assert norm.running_var is not None
                norm.running_var.fill_(0.7)
        return x, norm.to(number if number == torch.float64 else torch.float32)

    found = []
    for _ in range(2):
        x, norm = inputs(dtype)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        buffers = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
        y = batch_norm(
            *(x, norm.weight, norm.bias, buffers),
            batch=batch,
            update=batch,
            momentum=0.1,
            eps=norm.eps,
            activation=activation,
        )
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        gradient = values(shape, dtype, device, 2)
        y.backward(gradient)  # type: ignore[no-untyped-call]
        found.append((y, x.grad, norm.weight.grad, norm.bias.grad, *buffers))
    x64, norm64 = inputs(torch.float64)
    normalised = norm64(x64)
    # A gradient passes where the rounded output says so, as in torch.
    passes = {"none": torch.ones_like(y, dtype=torch.bool), "relu": y > 0, "relu6": (y > 0) & (y < 6)}[activation]
    normalised.backward(gradient.double() * passes)
    bounds = {"none": (None, None), "relu": (0.0, None), "relu6": (0.0, 6.0)}[activation]
    expected = normalised if activation == "none" else normalised.clamp(*bounds)
    right = (expected, x64.grad, norm64.weight.grad, norm64.bias.grad)
    names = ("output", "gradient of the input", "of the weight", "of the bias", "mean", "variance", "batches")
    for name, one, again, other in zip(
        names, *found, (*right, norm64.running_mean, norm64.running_var, norm64.num_batches_tracked), strict=True
    ):
        same(name, one, other)
        assert torch.equal(one, again), f"{name}: twice, with different bits"


def check_triton_kernels(setting: Setting) -> str:
    """At a network's own shapes, the kernels compute what torch computes in float64, in both number formats."""
    if (reason := why_no_triton(setting)) is not None:
        return f"not run: {reason}"
    shapes = ((32, 1), (96, 2), (144, 1), (960, 1))
    for channels, stride in shapes:
        size = 4 if channels == 960 else 32
        for dtype in (torch.float32, torch.bfloat16):
            shape = (setting.batch_size, channels, size, size)
            compare_depthwise(setting.device, dtype, shape, stride)
            for activation in ("none", "relu6"):
                compare_norm(setting.device, dtype, shape, activation)
    compare_norm(setting.device, torch.bfloat16, (setting.batch_size, 16, 32, 32), "relu")
    compare_norm(setting.device, torch.float32, (2, 20, 7, 7), "relu", batch=False)
    return f"{2 * len(shapes)} depthwise and {4 * len(shapes) + 2} normalisation shapes are equal to float64's"


def first_gradients(setting: Setting, arch: str, *, ours: bool) -> dict[str, Tensor]:
    """Gradients of the first step in float32, with torch's operations or ours."""
    device = torch.device(setting.device)
    model = fresh(arch).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator(device).manual_seed(0)
    images = values((setting.batch_size, 3, 32, 32), torch.float32, setting.device, 3)
    joined = joined_activations(model, images[:2], "fp32", generator) if ours else {}
    labels = torch.arange(setting.batch_size, device=device) % 100
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        if ours:
            with triton_layers(model, joined):
                F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        else:
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def check_triton_training(setting: Setting) -> str:
    """Captured steps with the kernels: gradients and losses of torch's, and equal bits alone and beside other lanes."""
    if (reason := why_no_triton(setting)) is not None:
        return f"not run: {reason}"
    words = []
    for arch in (arch for arch in ("resnet20", "mobilenetv2") if arch in setting.networks):
        theirs = first_gradients(setting, arch, ours=False)
        largest = max(float(gradient.norm()) for gradient in theirs.values())
        for name, gradient in first_gradients(setting, arch, ours=True).items():
            # A bias before a convolution and the next normalisation has no gradient but rounding.
            error, allowed = float((gradient - theirs[name]).norm()), 0.05 * float(theirs[name].norm()) + 1e-3 * largest
            assert error <= allowed, f"{arch}: the gradient of {name} differs by {error:.1e}, over {allowed:.1e}"
        captured = run(setting, fresh(arch), kernels="triton", precision="fp32").curve[0].train_loss
        eager = run(setting, fresh(arch), kernels="eager", precision="fp32").curve[0].train_loss
        difference = abs(captured - eager) / eager
        assert difference < 0.02, f"{arch}: {captured} captured with Triton, {eager} eager"
        alone = fresh(arch)
        run(setting, alone, kernels="triton")
        models = [fresh(arch) for _ in range(3)]
        with ThreadPoolExecutor(len(models)) as pool:
            trainings = [
                pool.submit(run, replace(setting, kernels="triton"), model, seed=lane % 2)
                for lane, model in enumerate(models)
            ]
        for training in trainings:
            training.result()
        for lane in (0, 2):
            assert digest(models[lane]) == digest(alone), f"{arch}: lane {lane} of 3 gave different weights"
        words.append(f"{arch} {difference:.1e}")
    return f"relative differences of the training loss: {', '.join(words)}; three lanes as alone"


TRITON_CHECKS = (check_triton_kernels, check_triton_training)
