"""The seam between a training and a GPU, as far as a CPU can try it: everything but the CUDA calls themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from benchmark import steps
from benchmark.data_stream import DataStream
from benchmark.dropout import own_dropout
from benchmark.hardware import environment
from benchmark.steps import CaptureFailed, resolve_kernels
from benchmark.tasks import Recipe
from benchmark.train import TrainingOutcome, train
from tests.benchmark.test_train import coloured_noise, curve_without_clock, small_net

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=3, lr=0.05, batch_size=16)


class Recording:
    """Stands in for a captured graph: it runs the program again, and writes its answer where the first one was."""

    def __init__(self, program: Callable[[], Any]) -> None:
        self._program = program
        self.answer: Any = None
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        answer = self._program()
        if isinstance(answer, Tensor):
            self.answer.resize_(answer.shape).copy_(answer)


class NoGpu:
    """The CUDA calls of a training, without CUDA. A capture runs nothing, as on a GPU."""

    captured: ClassVar[list[Recording]] = []

    def __init__(self, device: torch.device) -> None:
        pass

    @contextmanager
    def in_stream(self) -> Iterator[None]:
        yield

    def synchronize(self) -> None:
        pass

    def process_state(self) -> Tensor:
        return torch.get_rng_state()

    def capture(self, program: Callable[[], Any], generator: torch.Generator) -> tuple[Recording, Any]:
        recording = Recording(program)
        recording.answer = torch.empty(0)
        self.captured.append(recording)
        return recording, recording.answer


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Trainings of this test use `Captured`, on the CPU. Returns what they captured."""
    monkeypatch.setattr(steps, "Gpu", NoGpu)
    monkeypatch.setattr(NoGpu, "captured", [])
    monkeypatch.setattr("benchmark.train.open_steps", lambda kernels, device, seed: steps.Captured(device, seed))
    return NoGpu.captured


def run(seed: int = 0, model: nn.Module | None = None) -> tuple[TrainingOutcome, nn.Module]:
    model = small_net() if model is None else model
    return train(model, coloured_noise(120, 30), RECIPE, seed=seed, precision="fp32"), model


def test_captured_steps_train_as_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warming up before a capture changes weights, running statistics, momenta and dropout, and all is put back."""
    expected, reference = run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "Gpu", NoGpu)
        patch.setattr(NoGpu, "captured", [])
        patch.setattr("benchmark.train.open_steps", lambda kernels, device, seed: steps.Captured(device, seed))
        outcome, model = run()
        assert len(NoGpu.captured) == 3  # a full batch, the smaller last one, an evaluation
        assert [recording.replays for recording in NoGpu.captured] == [21, 3, 3]
    assert curve_without_clock(outcome.curve) == curve_without_clock(expected.curve)
    for name, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_lanes_capture_one_after_another(captured: list[Recording]) -> None:
    """Four trainings in threads: each has the weights of a training alone."""
    alone = [run(seed)[1].state_dict() for seed in range(2)]
    found: dict[int, nn.Module] = {}
    networks = [small_net() for _ in range(4)]  # their constructors draw from the generator that all threads share
    threads = [
        threading.Thread(target=lambda lane=lane: found.update({lane: run(lane % 2, networks[lane])[1]}))
        for lane in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lane in range(4):
        for name, value in alone[lane % 2].items():
            assert torch.equal(found[lane].state_dict()[name], value), (lane, name)


class DrawsItself(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(()) + 1)


def test_a_network_that_draws_elsewhere_is_refused(captured: list[Recording]) -> None:
    """Its numbers would come from the generator that all lanes share, so one key would have several results."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), DrawsItself())
    with pytest.raises(CaptureFailed, match=r"nn\.Dropout"):
        train(model, coloured_noise(), RECIPE, seed=0, precision="fp32")


def test_paths_follow_from_the_device() -> None:
    """A GPU has graphs, a CPU has not, and a word that means nothing is refused with the choices."""
    assert resolve_kernels("auto", "cpu") == "eager"
    assert resolve_kernels("auto", "cuda") == "graph"
    assert resolve_kernels("inductor", "cuda:1") == "inductor"
    with pytest.raises(ValueError, match="needs a GPU"):
        resolve_kernels("graph", "cpu")
    with pytest.raises(ValueError, match="auto, eager, graph, inductor"):
        resolve_kernels("fast", "cuda")


def test_triton_needs_a_gpu_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is missing the user reads which. `auto` does not choose it: nobody has measured it on a GPU."""
    with pytest.raises(ValueError, match=r"kernels=triton needs a GPU and the package triton, and torch sees no GPU"):
        resolve_kernels("triton", "cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"kernels=triton needs a GPU and the package triton, .*pip install triton"):
        resolve_kernels("triton", "cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert resolve_kernels("triton", "cuda") == "triton"
    assert resolve_kernels("auto", "cuda") == "graph"


def test_a_key_names_the_version_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another Triton compiles other code, so its results are others. Keys of other paths stay as they were."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a card")
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91000)
    monkeypatch.setattr("benchmark.hardware.triton_version", lambda: "3.9.0")
    found = environment("fp32", "triton")
    assert (found["kernels"], found["triton"], found["cudnn"]) == ("triton", "3.9.0", "91000")
    assert list(environment("fp32"))[-2:] == ["kernels", "cudnn"]


def test_a_stream_takes_every_picture_once() -> None:
    """An epoch's batches are those of the order; the next epoch has another one."""
    stream = DataStream(35, 16, torch.Generator().manual_seed(0), CPU)
    orders = []
    for _ in range(2):
        sizes = stream.begin_epoch()
        assert sizes == [16, 16, 3]
        taken = [stream.take(size) for size in sizes]
        assert [draws.shape for _, draws in taken] == [(3, 16, 1), (3, 16, 1), (3, 3, 1)]
        orders.append(torch.cat([picks for picks, _ in taken]).tolist())
    assert [sorted(order) for order in orders] == [list(range(35))] * 2
    assert orders[0] != orders[1]


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout2d(0.5), nn.Dropout(1.0), nn.Dropout(0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_draws_what_torch_draws(layer: nn.Module, dtype: torch.dtype) -> None:
    """With an equal seed the same numbers are dropped as by torch's generator, so stored results stay valid."""
    x = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    layer.train()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = [layer(x), layer(x)]
    with own_dropout(nn.Sequential(layer), torch.Generator().manual_seed(7)):
        found = [layer(x), layer(x)]
        assert layer.eval()(x) is x
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert "forward" not in vars(layer)
