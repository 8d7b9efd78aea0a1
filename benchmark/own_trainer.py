"""Runs a user's own trainer in a fresh process, with a network whose initial weights came from isolation."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import numbers
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.data.prepared import folder
from benchmark.executors import Parent, ProcessDied, Report, TookTooLong
from benchmark.files import write_atomically
from benchmark.fork_server import ForkServer
from benchmark.networks import Network, NetworkError, build, described
from benchmark.results import EpochMetrics
from benchmark.sources import captured, import_file, provide
from benchmark.task import Task, Trainer
from benchmark.user_code import contained

_MOST_PRINTED = 2**20
"""Bytes that are kept of what a trainer prints."""
_LONGEST_LINE = 200


class TrainerFailed(RuntimeError):
    """The user's trainer raised, changed, or returned something that is no score. The message is one sentence."""


@dataclass(frozen=True)
class Trained:
    """What a trainer returned and reported."""

    score: float
    """It may be NaN or infinite: the training diverged."""
    curve: tuple[EpochMetrics, ...]
    seconds: float


@dataclass(frozen=True)
class TrainCall:
    """A call for a fresh process: build the network, load `weights` (None: as built), let the user's function train.

    The answer is `Trained`, or a sentence about the trainer's fault.
    """

    trainer: Trainer
    network: Network
    weights: Path | None
    seed: int
    device: str
    output: Path | None = None
    """A new file for what the trainer prints; None: nowhere."""

    def __call__(self, parent: Parent) -> Trained | str:
        _die_first()
        try:
            with _printing_to(self.output):
                return self._train(parent)
        except (TrainerFailed, NetworkError) as error:
            return str(error)

    def _train(self, parent: Parent) -> Trained:
        import numpy as np
        import torch

        from benchmark.hardware import threads
        from benchmark.seeds import stream_seed
        from benchmark.weights import load_initial_weights

        torch.set_num_threads(threads())
        model = build(self.network, self.seed)
        if self.weights is not None:
            load_initial_weights(self.weights, model)
        function = self._function()
        seed = stream_seed("model", self.seed)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        curve: list[EpochMetrics] = []
        started = time.perf_counter()

        def report(epoch: int, **metrics: float) -> None:
            """Show a user's numbers of an epoch, and keep them as a point of the curve. Raises TypeError."""
            point = own_metrics(epoch, metrics, time.perf_counter() - started)
            curve.append(point)
            parent.report(point)

        report.__qualname__ = "report"  # so that Python's own messages name it as the user knows it
        model = model.to(self.device)
        try:
            with contained():
                score = as_score(function(model, seed=self.seed, device=self.device, report=report), self.trainer.spec)
        except TrainerFailed:
            raise
        except BaseException as error:
            raise TrainerFailed(f"train {self.trainer.spec}: {described(error)}") from error
        return Trained(score, tuple(curve), time.perf_counter() - started)

    def _function(self) -> Any:
        """The user's function, from the files that the task was made of. Raises TrainerFailed."""
        file, _, name = self.trainer.spec.rpartition(":")
        provide(self.network.sources)
        os.chdir(self.trainer.folder)
        try:
            function = getattr(import_file(file, self.trainer.folder), name)
        except BaseException as error:
            raise TrainerFailed(f"train {self.trainer.spec}: {file} cannot be imported: {described(error)}") from error
        known = dict(self.trainer.sources)
        try:
            sources = captured(file, self.trainer.folder)
        except (OSError, SyntaxError) as error:
            raise TrainerFailed(
                f"train {self.trainer.spec}: a module was changed while the search ran: {error}"
            ) from None
        for source in sources:
            if known.get(source.file, "") not in ("", hashlib.sha256(source.text.encode()).hexdigest()):
                raise TrainerFailed(f"train {self.trainer.spec}: {source.file} was changed while the search ran")
        return function


class _Tail(io.FileIO):
    """A file that is emptied whenever it has grown too long: only its end is read."""

    def write(self, data: Any, /) -> int:
        if os.fstat(self.fileno()).st_size > _MOST_PRINTED:
            self.truncate(0)
        return super().write(data)


@contextlib.contextmanager
def _printing_to(output: Path | None) -> Iterator[None]:
    """Send what this process and its children print to the file. What is printed before a crash is there as well."""
    if output is None:
        yield
        return
    before = sys.stdout, sys.stderr
    file, *kept = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), os.dup(1), os.dup(2)
    try:
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.BufferedWriter(_Tail(one, "a", closefd=False)), "utf-8", "replace", line_buffering=True)
            for one in (1, 2)
        )
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # the trainer may have closed them
            sys.stdout.flush()
            sys.stderr.flush()
        sys.stdout, sys.stderr = before
        for descriptor, old in zip((1, 2), kept, strict=True):
            with contextlib.suppress(OSError):
                os.dup2(old, descriptor)
                os.close(old)
        with contextlib.suppress(OSError):
            os.close(file)


def last_printed(output: Path, count: int) -> list[str]:
    """The last lines that a trainer printed to the file; a progress bar's last state is one."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - 2**16))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line[:_LONGEST_LINE] for line in lines if line][-count:]


def run_trainer(
    call: TrainCall, *, gpus: int, on_report: Report | None = None, seconds: float | None = None
) -> Trained | str:
    """Let the trainer train in a fresh process, for at most so many seconds. What it did wrong is one sentence.

    A process that dies is tried once more. On a CPU it is a fork of one that has imported torch and nothing of the
    user's. The first training here starts that one, which serves the later ones.
    """
    from benchmark.executors import LocalExecutor
    from benchmark.hardware import threads

    spec = call.trainer.spec
    forks = None if gpus or sys.platform != "linux" else _forks(threads())
    with LocalExecutor(1, threads=threads(), gpus=gpus, forks=forks) as executor:
        try:
            return executor.submit(call, timeout=seconds, on_report=on_report).result()
        except TookTooLong:
            return f"train {spec} did not return within {seconds:g} s; --seconds gives it more"
        except ProcessDied as error:
            return f"train {spec}: {error.how()}, and so it did when it was tried once more"


@functools.cache
def _forks(threads: int) -> ForkServer:
    from benchmark.executors.local import fork_server

    return fork_server(threads)


def _die_first() -> None:
    """Where memory runs out, let the kernel end this process and not the search. Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def known_seconds(task: Task) -> float:
    """Seconds of the last training of this task here; 0 if there was none."""
    try:
        return float(json.loads(_seconds_file(task).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return 0.0


def remember_seconds(task: Task, seconds: float) -> None:
    """Keep how long a training of this task took, for `agent plan`."""
    with contextlib.suppress(OSError):  # then the plan does not know it
        path = _seconds_file(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(seconds).encode(), durable=False)


def _seconds_file(task: Task) -> Path:
    digest = hashlib.sha256(json.dumps(task.identity(), sort_keys=True).encode()).hexdigest()
    return folder().parent / "trainer-seconds" / f"{digest}.json"


def as_score(value: Any, spec: str) -> float:
    """The returned score as a number. Raises TrainerFailed if it is none."""
    if (number := _number(value)) is None:
        try:
            shown = f"{value!r:.80}"
        except Exception:  # noqa: BLE001 - an object of the user's may fail at this, too
            shown = type(value).__name__
        raise TrainerFailed(f"train {spec} returned {' '.join(shown.split())}, which is no number")
    return number


def _number(value: Any) -> float | None:
    """The value as a float; None for what is none, such as True, a text, two numbers, or 10**400."""
    try:
        number = value.item() if hasattr(value, "item") else value
        return float(number) if isinstance(number, numbers.Real) and not isinstance(number, bool) else None
    except Exception:  # noqa: BLE001 - an object of the user's may raise anything
        return None


def own_metrics(epoch: int, metrics: dict[str, Any], seconds: float) -> EpochMetrics:
    """A point of the curve with a user's numbers. What is no number is left out. Raises TypeError for the epoch."""
    count = _number(epoch)
    if count is None or not count.is_integer():
        raise TypeError(f"report(epoch, ...) takes the number of an epoch, not {epoch!r:.80}")
    found = {name: number for name, value in metrics.items() if (number := _number(value)) is not None}
    nan = math.nan
    loss = found.get("train_loss", found.get("loss", nan))
    return EpochMetrics(
        epoch=int(count),
        train_loss=loss,
        train_acc=nan,
        test_loss=found.get("val_loss", found.get("test_loss", nan)),
        test_acc=nan,
        lr=found.get("lr", nan),
        seconds=seconds,
        own=found,
    )
