"""The training loop, with the data on the device, or a block of them at a time.

docs/trainer.md explains it and has the measurements behind every choice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.augment import crop
from benchmark.checkpoint import Checkpoint, Reached, Timer, own_tensors
from benchmark.data_stream import DataStream
from benchmark.device_data import DeviceData, on_device
from benchmark.dropout import own_dropout
from benchmark.fast_ops import fast_ops, fastest_layout, keep_freed_memory
from benchmark.host_data import EVAL_BATCH, HostData, ImageData
from benchmark.optimizers import make_optimizer
from benchmark.precision import autocast, resolve_precision
from benchmark.results import EpochMetrics, StepZero
from benchmark.seeds import stream_seed
from benchmark.step_zero import judge_step_zero
from benchmark.steps import open_steps, resolve_kernels
from benchmark.task import Recipe

__all__ = ["ImageData", "TrainingOutcome", "resolve_precision", "stream_seed", "train"]

_TRAINED_PER_TESTED = 4
"""Fewest training images between two evaluations, per test image. Testing an image costs about 0.3 of training on it,
so evaluations take less than a tenth of the time. CIFAR and FashionMNIST (5 and 6) have one after every epoch."""


@dataclass(frozen=True)
class TrainingOutcome:
    """A finished training. `curve` has one entry per evaluated epoch, always including the last."""

    curve: tuple[EpochMetrics, ...]
    step_zero: StepZero
    status: Literal["ok", "diverged"]
    """`diverged`: a loss was NaN or infinite. The curve ends with the epoch that shows it."""
    seconds: float


def train(
    model: nn.Module,
    dataset: ImageData,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    backend: str | None = None,
    kernels: str = "auto",
    checkpoint: Checkpoint | None = None,
) -> TrainingOutcome:
    """Train `model` in place on `dataset` by `recipe`, and evaluate on the test set.

    The model is evaluated after every epoch. If the test set is large compared with the training set, it is evaluated
    after every second or third, so that evaluations take less than a tenth of the time. The last epoch is always
    evaluated. A recipe that holds pictures out is a short look: its evaluations use batch statistics in BN layers,
    because running statistics lag some thirty steps behind and would hide what was learnt.

    model: images float32 (N, C, H, W) → logits (N, num_classes); it is moved to `device` and stays there.
    The result depends only on weights, data, recipe, seed, device, thread count and precision. The caller's global
    random state does not change. `on_epoch` receives the metrics of each evaluated epoch.
    `kernels` is the kernel path, see `benchmark.steps.KERNELS`: on a GPU, a step is a captured CUDA graph.
    `backend` names a further backend of torch.compile for the training steps, such as "aot_eager".
    `checkpoint`: where to go on from, if a training was killed, and where to write how far it has come. The result is
    that of a training that was not interrupted; its `seconds` are those of both parts.
    Raises ValueError for an unknown precision or fewer than two images in a batch.
    """
    started = time.perf_counter()
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    precision = resolve_precision(precision, device)
    kernels = resolve_kernels(kernels, device)
    if device.type == "cpu":
        keep_freed_memory()
    data_generator = torch.Generator().manual_seed(stream_seed("data", seed))
    with ExitStack() as stack:
        steps = stack.enter_context(open_steps(kernels, device, stream_seed("model", seed)))
        model.to(device=device, memory_format=fastest_layout(model))  # type: ignore[call-overload]
        stack.enter_context(fast_ops(model, precision, device))
        stack.enter_context(own_dropout(model, steps.generator))
        data = on_device(dataset, recipe, device)
        count, tested = data.count, data.tested
        if min(recipe.batch_size, count) < 2:
            raise ValueError(
                "batch normalisation needs at least two images: "
                f"batch_size is {recipe.batch_size}, the training set has {count}"
            )
        if kernels == "triton":
            from benchmark.triton_layers import joined_activations, triton_layers

            pictures = torch.zeros(2, *data.test_images.shape[1:], device=device)
            joined = steps.once(lambda: joined_activations(model, pictures, precision, steps.generator))
            stack.enter_context(triton_layers(model, joined))
        compiler = "inductor" if kernels == "inductor" else backend
        network = model if compiler is None else torch.compile(model, backend=compiler, dynamic=False)
        batches = math.ceil(count / recipe.batch_size)
        optimizer = make_optimizer(model.parameters(), recipe, steps_per_epoch=batches, fused=device.type == "cuda")
        stream = DataStream(count, recipe.batch_size, data_generator, device, fetch=data.fetch, block=data.block)
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), device=device)

        def step(size: int) -> None:
            """Train on the next `size` pictures of the epoch."""
            picks, draws = stream.take(size)
            images = data.normalize(crop(data.train_images, picks, draws, recipe.crop_padding, flip=recipe.flip))
            labels = data.train_labels[picks]
            with autocast(precision, device):
                logits = network(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            optimizer.forget_gradients()
            torch.autograd.backward(loss)
            optimizer.step()
            loss_sum.add_(loss.detach() * size)
            correct.add_(_correct(logits.detach(), labels))

        def evaluate(size: int) -> Tensor:
            """Return the logits of the first `size` test pictures that are on the device."""
            return _logits(model, data.test_images[:size], precision, batch_statistics=recipe.held_out > 0)

        tensors = {f"model.{name}": value for name, value in own_tensors(model).items()}
        tensors |= {f"momentum.{index}": value for index, value in enumerate(optimizer.momenta)}
        generators = {"data": data_generator, **steps.generators}
        steps.changing([*tensors.values(), stream.position, loss_sum, correct])
        # A causal mask holds −inf from the start. What is sparse, quantised or of 8 bits has no isfinite.
        numbers = [one for one in model.buffers() if (one.is_floating_point() or one.is_complex()) and one.itemsize > 1]
        dense = [buffer for buffer in numbers if buffer.layout == torch.strided]
        finite = [*model.parameters(), *(buffer for buffer in dense if bool(buffer.isfinite().all()))]

        curve: list[EpochMetrics] = []
        status: Literal["ok", "diverged"] = "ok"
        unseen = 0  # training images since the last evaluation
        first = 1
        if checkpoint is not None and (reached := checkpoint.restore(tensors, generators)) is not None:
            step_zero, curve, unseen = reached.step_zero, list(reached.curve), reached.unseen
            started -= reached.seconds
            first += reached.epoch
            for _ in range(reached.epoch):
                optimizer.end_epoch()
        else:
            logits = steps.once(lambda: _first_logits(model, data, precision))
            step_zero = judge_step_zero(logits, data.test_labels, dataset.num_classes)
        timer = Timer(checkpoint)
        for epoch in range(first, recipe.epochs + 1):
            model.train()
            loss_sum.zero_()
            correct.zero_()
            for size in stream.begin_epoch():
                optimizer.begin_step()
                steps.run(step, size)
            optimizer.end_epoch()

            train_loss = loss_sum.item() / count
            if not (math.isfinite(train_loss) and _all_finite(finite)):
                status = "diverged"
            unseen += count
            if unseen >= _TRAINED_PER_TESTED * tested or epoch == recipe.epochs or status == "diverged":
                unseen = 0
                test_logits = torch.cat([steps.run(evaluate, size).clone() for size in data.test_blocks()])
                test_loss = F.cross_entropy(test_logits, data.test_labels).item()
                if not math.isfinite(test_loss):
                    status = "diverged"
                metrics = EpochMetrics(
                    epoch=epoch,
                    train_loss=train_loss,
                    train_acc=100 * correct.item() / count,
                    test_loss=test_loss,
                    test_acc=100 * _correct(test_logits, data.test_labels).item() / tested,
                    lr=optimizer.lr,
                    seconds=time.perf_counter() - started,
                )
                curve.append(metrics)
                if on_epoch is not None:
                    on_epoch(metrics)
            if status == "diverged":
                break
            if checkpoint is not None and timer.due():
                seconds = time.perf_counter() - started
                checkpoint.write(
                    Reached(
                        identity=checkpoint.identity,
                        epoch=epoch,
                        unseen=unseen,
                        seconds=seconds,
                        curve=tuple(curve),
                        step_zero=step_zero,
                    ),
                    tensors,
                    generators,
                )
    return TrainingOutcome(tuple(curve), step_zero, status, time.perf_counter() - started)


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether parameters and buffers are finite. A ReLU can hide a NaN from the loss, but not from these."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the rows of logits (N, C) with the right class. Rows with a NaN or an infinity do not count."""
    return ((logits.argmax(1) == labels) & logits.isfinite().all(1)).sum()


def _first_logits(model: nn.Module, data: DeviceData | HostData, precision: str) -> Tensor:
    """Return logits of all test pictures with batch statistics, before the first step."""
    blocks = (data.test_images[:size] for size in data.test_blocks())
    return torch.cat([_logits(model, images, precision, batch_statistics=True) for images in blocks])


def _logits(model: nn.Module, images: Tensor, precision: str, *, batch_statistics: bool = False) -> Tensor:
    """Return logits float32 (N, C) of normalised images, without dropout, with running statistics in BN layers.

    With `batch_statistics`, BN layers normalise by the batch instead. Their buffers do not change.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]  # the others always use the batch
    model.eval()
    if batch_statistics:
        for norm in norms:
            norm.track_running_stats, norm.training = False, True
    try:
        with torch.inference_mode(), autocast(precision, images.device):
            return torch.cat([_of(model, batch, images).float() for batch in torch.split(images, EVAL_BATCH)])
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _of(model: nn.Module, batch: Tensor, images: Tensor) -> Tensor:
    """Return the logits of a batch of these images. A single left-over picture has no variance: it gets a companion."""
    try:
        logits: Tensor = model(batch)
    except ValueError:  # of a batch norm that sees one value per channel
        if len(batch) > 1:
            raise
        logits = model(images[-2:] if len(images) > 1 else batch.repeat(2, 1, 1, 1))[-1:]
    return logits
