"""The training loop, with all data on the device.

docs/trainer.md explains it and has the measurements behind every choice.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.augment import Normalizer, crop, pad_images, send
from benchmark.fast_ops import fast_ops, keep_freed_memory
from benchmark.optimizers import make_optimizer
from benchmark.precision import autocast, resolve_precision
from benchmark.results import EpochMetrics, StepZero
from benchmark.step_zero import judge_step_zero
from benchmark.task import Recipe

__all__ = ["TrainingOutcome", "resolve_precision", "stream_seed", "train"]

_EVAL_BATCH = 256
_TRAINED_PER_TESTED = 4
"""Fewest training images between two evaluations, per test image. Testing an image costs about 0.3 of training on it,
so evaluations take less than a tenth of the time. CIFAR and FashionMNIST (5 and 6) have one after every epoch."""


class ImageData(Protocol):
    """The part of a data set that training uses, such as `benchmark.data.ImageDataset`."""

    @property
    def train_images(self) -> Tensor: ...
    @property
    def train_labels(self) -> Tensor: ...
    @property
    def test_images(self) -> Tensor: ...
    @property
    def test_labels(self) -> Tensor: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class TrainingOutcome:
    """A finished training. `curve` has one entry per evaluated epoch, always including the last."""

    curve: tuple[EpochMetrics, ...]
    step_zero: StepZero
    status: Literal["ok", "diverged"]
    """`diverged`: a loss was NaN or infinite. The curve ends with the epoch that shows it."""
    seconds: float


def stream_seed(label: str, seed: int) -> int:
    """Return a 63-bit seed for the random stream called `label`: SHA-256 of "label|seed".

    Streams with different labels are independent for the same seed: the numbers that an initialiser draws after
    `torch.manual_seed(seed)` do not reveal the order of the data.
    """
    return int.from_bytes(hashlib.sha256(f"{label}|{seed}".encode()).digest()[:8], "big") >> 1


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
) -> TrainingOutcome:
    """Train `model` in place on `dataset` by `recipe`, and evaluate on the test set.

    The model is evaluated after every epoch. If the test set is large compared with the training set, it is evaluated
    after every second or third, so that evaluations take less than a tenth of the time. The last epoch is always
    evaluated. A recipe that holds pictures out is a short look: its evaluations use batch statistics in BN layers,
    because running statistics lag some thirty steps behind and would hide what was learnt.

    model: images float32 (N, C, H, W) → logits (N, num_classes); it is moved to `device` and stays there.
    The result depends only on weights, data, recipe, seed, device, thread count and precision. The caller's global
    random state does not change. `on_epoch` receives the metrics of each evaluated epoch.
    `backend` names a backend of torch.compile for the training steps, such as "cudagraphs" or "inductor". No search
    uses one yet: `python -m benchmark.speed --device cuda --backend cudagraphs` measures whether it helps.
    Raises ValueError for an unknown precision or fewer than two images in a batch.
    """
    started = time.perf_counter()
    device = torch.device(device)
    cuda = device.type == "cuda"
    if cuda and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    precision = resolve_precision(precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    flat = all(parameter.dim() < 5 for parameter in model.parameters())  # 3-d kernels have another format
    model.to(device=device, memory_format=torch.channels_last if flat else torch.preserve_format)  # type: ignore[call-overload]
    normalize = Normalizer(dataset.mean, dataset.std, device)
    train_labels = dataset.train_labels[: recipe.train_limit].to(device)
    train_images = pad_images(dataset.train_images[: recipe.train_limit].to(device), recipe.crop_padding)
    test_labels = dataset.test_labels[: recipe.test_limit].to(device)
    test_images = dataset.test_images[: recipe.test_limit].to(device)
    test_images = normalize(test_images.contiguous(memory_format=torch.channels_last))
    if min(recipe.batch_size, len(train_labels)) < 2:
        raise ValueError(
            "batch normalisation needs at least two images: "
            f"batch_size is {recipe.batch_size}, the training set has {len(train_labels)}"
        )

    batches = math.ceil(len(train_labels) / recipe.batch_size)
    optimizer = make_optimizer(model.parameters(), recipe, steps_per_epoch=batches, fused=cuda)
    step = model if backend is None else torch.compile(model, backend=backend, dynamic=False)
    data_stream = torch.Generator().manual_seed(stream_seed("data", seed))

    forked = torch.random.fork_rng(devices=[device] if cuda else [])
    repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with forked, repeatable, fast_ops(model, precision, device):
        torch.manual_seed(stream_seed("model", seed))  # dropout
        step_zero = judge_step_zero(
            _logits(model, test_images, precision, batch_statistics=True), test_labels, dataset.num_classes
        )
        curve: list[EpochMetrics] = []
        status: Literal["ok", "diverged"] = "ok"
        unseen = 0  # training images since the last evaluation
        for epoch in range(1, recipe.epochs + 1):
            model.train()
            loss_sum = torch.zeros((), device=device)
            correct = torch.zeros((), device=device)
            for picks in _batches(len(train_labels), recipe.batch_size, data_stream):
                picks = send(picks, device)
                images = normalize(
                    crop(train_images, picks, recipe.crop_padding, flip=recipe.flip, generator=data_stream)
                )
                labels = train_labels[picks]
                with autocast(precision, device):
                    logits = step(images)
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
                optimizer.begin_step()
                optimizer.forget_gradients()
                torch.autograd.backward(loss)
                optimizer.step()
                loss_sum += loss.detach() * len(picks)
                correct += _correct(logits.detach(), labels)
            optimizer.end_epoch()

            train_loss = loss_sum.item() / len(train_labels)
            if not (math.isfinite(train_loss) and _all_finite(model)):
                status = "diverged"
            unseen += len(train_labels)
            if unseen < _TRAINED_PER_TESTED * len(test_labels) and epoch < recipe.epochs and status == "ok":
                continue
            unseen = 0
            test_logits = _logits(model, test_images, precision, batch_statistics=recipe.held_out > 0)
            test_loss = F.cross_entropy(test_logits, test_labels).item()
            if not math.isfinite(test_loss):
                status = "diverged"
            metrics = EpochMetrics(
                epoch=epoch,
                train_loss=train_loss,
                train_acc=100 * correct.item() / len(train_labels),
                test_loss=test_loss,
                test_acc=100 * _correct(test_logits, test_labels).item() / len(test_labels),
                lr=optimizer.lr,
                seconds=time.perf_counter() - started,
            )
            curve.append(metrics)
            if on_epoch is not None:
                on_epoch(metrics)
            if status == "diverged":
                break
    return TrainingOutcome(tuple(curve), step_zero, status, time.perf_counter() - started)


def _batches(count: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return a random permutation of `count` indices in batches.

    The last, incomplete batch is used, as in the public protocol. A single left-over image joins the previous batch,
    because batch normalisation needs at least two.
    """
    batches = list(torch.split(torch.randperm(count, generator=generator), batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _all_finite(model: nn.Module) -> bool:
    """Whether every parameter and buffer is finite. A ReLU can hide a NaN from the loss, but not from these."""
    return all(bool(tensor.isfinite().all()) for tensor in (*model.parameters(), *model.buffers()))


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the rows of logits (N, C) with the right class. Rows with a NaN or an infinity do not count."""
    return ((logits.argmax(1) == labels) & logits.isfinite().all(1)).sum()


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
            return torch.cat([model(batch).float() for batch in torch.split(images, _EVAL_BATCH)])
    finally:
        for norm in norms:
            norm.track_running_stats = True
