"""How a training runs its steps: as they are written, or on a GPU as CUDA graphs that are captured once and replayed.

A *program* is a function of the trainer, such as one step on `size` pictures. It reads and writes tensors that stay
where they are. `run` executes it; what the trainer computes is the same either way.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

KERNELS = ("auto", "eager", "graph", "inductor", "triton")
"""`graph`: captured steps. `inductor`: captured steps of a network that torch.compile compiled. `triton`: captured
steps with this project's own kernels for some layers, see `benchmark.triton_layers`."""
_WARM_UPS = 2
T = TypeVar("T")


class CaptureFailed(RuntimeError):
    """A step cannot be captured as a CUDA graph. The message says what to do."""


class Steps(Protocol):
    """Runs the programs of one training. Use it as a context; `changing` comes before the first `run`."""

    generator: torch.Generator
    """For dropout: on the device, seeded."""
    generators: dict[str, torch.Generator]
    """All generators that a training may draw from, but for that of the data."""

    def changing(self, tensors: Sequence[Tensor]) -> None:
        """Name all tensors that programs change, except for gradients."""
        ...

    def run(self, program: Callable[[int], T], size: int) -> T:
        """Return `program(size)`. On a GPU the answer's tensors are overwritten by the next run of the program."""
        ...

    def once(self, program: Callable[[], T]) -> T:
        """Return `program()`, which runs once only."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


def resolve_kernels(kernels: str, device: torch.device | str) -> str:
    """Return the kernel path. `auto` is `graph` on a GPU and `eager` elsewhere: it depends on the device, not on load.

    `auto` is never `triton`, which nobody has measured on a GPU yet.
    Raises ValueError for an unknown word, and for a path that the device or this Python does not have.
    """
    if kernels not in KERNELS:
        raise ValueError(f"unknown kernel path {kernels!r}; choose one of {', '.join(KERNELS)}")
    cuda = torch.device(device).type == "cuda"
    if kernels == "triton" and (why := no_triton(gpu=cuda)):
        raise ValueError(why)
    if not cuda and kernels not in ("auto", "eager"):
        raise ValueError(f"the kernel path {kernels!r} needs a GPU; on a CPU only 'eager' exists")
    if kernels == "auto":
        return "graph" if cuda else "eager"
    return kernels


def no_triton(*, gpu: bool) -> str | None:
    """Say why the kernel path `triton` cannot be taken in this process. `gpu`: whether torch sees a GPU."""
    if gpu and importlib.util.find_spec("triton") is not None:
        return None
    missing = "which is not installed here: pip install triton, or" if gpu else "and torch sees no GPU here:"
    return f"kernels=triton needs a GPU and the package triton, {missing} leave kernels out"


def open_steps(kernels: str, device: torch.device, seed: int) -> Steps:
    """Return the runner for a resolved kernel path. `seed` is that of the dropout."""
    return Eager(device, seed) if kernels == "eager" else Captured(device, seed)


class Eager:
    """Runs programs as they are written.

    Networks may draw random numbers elsewhere than in dropout layers. Those come from torch's generator of the
    process, which is seeded here and restored at the end.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device, self._seed = device, seed
        self.generator = torch.Generator(device).manual_seed(seed)
        cuda = device.type == "cuda"
        process = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
        self.generators = {"dropout": self.generator, "process": process}
        self._stack = ExitStack()

    def __enter__(self) -> Eager:
        cuda = self._device.type == "cuda"
        self._stack.enter_context(torch.random.fork_rng(devices=[self._device] if cuda else []))
        self._stack.enter_context(_repeatable())
        torch.manual_seed(self._seed)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def changing(self, tensors: Sequence[Tensor]) -> None:
        """See `Steps.changing`. Nothing has to be kept here."""

    def run(self, program: Callable[[int], T], size: int) -> T:
        """See `Steps.run`."""
        return program(size)

    def once(self, program: Callable[[], T]) -> T:
        """See `Steps.once`."""
        return program()


class Captured:
    """Captures each program at its first use with a size, and replays it from then on, in a stream of its own.

    Other trainings may replay in other threads of the process meanwhile. One thread at a time captures.
    """

    _capturing = threading.Lock()

    def __init__(self, device: torch.device, seed: int) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.generators = {"dropout": self.generator}
        self._gpu = Gpu(device)
        self._graphs: dict[tuple[Callable[[int], Any], int], tuple[Graph, Any]] = {}
        self._tensors: tuple[Tensor, ...] = ()
        self._stack = ExitStack()

    def __enter__(self) -> Captured:
        self._stack.enter_context(self._gpu.in_stream())
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._gpu.synchronize()
        finally:
            self._graphs.clear()
            self._stack.close()

    def changing(self, tensors: Sequence[Tensor]) -> None:
        """See `Steps.changing`."""
        self._tensors = tuple(tensors)

    def run(self, program: Callable[[int], T], size: int) -> T:
        """See `Steps.run`. Raises CaptureFailed, torch.OutOfMemoryError."""
        if (program, size) not in self._graphs:
            self._graphs[program, size] = self._capture(program, size)
        graph, answer = self._graphs[program, size]
        graph.replay()
        found: T = answer
        return found

    def once(self, program: Callable[[], T]) -> T:
        """See `Steps.once`. It runs alone, because it uses cuDNN for the first time and may set it up."""
        with self._capturing, _repeatable():
            answer = program()
            self._gpu.synchronize()
            return answer

    def _capture(self, program: Callable[[int], T], size: int) -> tuple[Graph, T]:
        """Capture `program(size)`. torch wants it to run a few times before; what that changes is put back."""
        with self._capturing, _repeatable():
            drawn = self.generator.get_state()
            before = [tensor.clone() for tensor in self._tensors]
            of_process = self._gpu.process_state()
            for _ in range(_WARM_UPS):
                program(size)
                with torch.no_grad():  # at once: after the last batch there is no next one
                    for tensor, value in zip(self._tensors, before, strict=True):
                        tensor.copy_(value)
            self._gpu.synchronize()
            if not torch.equal(of_process, self._gpu.process_state()):
                raise CaptureFailed(
                    "the network draws random numbers elsewhere than in nn.Dropout layers, so its result would depend "
                    "on what else trains on this GPU; use nn.Dropout, or --set kernels=eager with --workers 1"
                )
            self.generator.set_state(drawn)
            return self._gpu.capture(lambda: program(size), self.generator)


class Graph(Protocol):
    """What was captured."""

    def replay(self) -> None:
        """Run it once more, on the same tensors."""
        ...


class Gpu:
    """The CUDA calls of one training: its stream, its memory pool, its graphs."""

    _of_thread = threading.local()

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        # torch hands 32 streams out in turn, so a new one for each training would soon be shared by two.
        streams: dict[int, torch.cuda.Stream] = self._of_thread.__dict__.setdefault("streams", {})
        if device.index not in streams:
            streams[device.index] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream = streams[device.index]

    @contextmanager
    def in_stream(self) -> Iterator[None]:
        """Within this context everything runs in the stream of this thread."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def process_state(self) -> Tensor:
        """Return the state of the generator that all trainings of the process share."""
        return torch.cuda.get_rng_state(self._device)

    def capture(self, program: Callable[[], T], generator: torch.Generator) -> tuple[Graph, T]:
        """Capture the program without running it. Raises CaptureFailed, torch.OutOfMemoryError."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                answer = program()
        except RuntimeError as error:
            # Closing a broken capture raises too, and hides why it broke.
            for cause in (error, error.__context__):
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None
            raise CaptureFailed(
                f"a step cannot be captured as a CUDA graph ({error}). A network must not copy to the CPU, wait for "
                "the GPU or change its shapes in its forward pass; --set kernels=eager trains it without graphs"
            ) from error
        return graph, answer


def _repeatable() -> AbstractContextManager[None]:
    """Only cuDNN's repeatable algorithms, chosen without timing them."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
