"""How the cores of a machine are shared among evaluations."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation import slot_plan
from agent.evaluation.slot_plan import plan_slots, recorded_threads, side_by_side
from benchmark.tasks import PROFILES

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Another count of cores and GPUs than this machine has."""

    def has(cores: int, gpus: int = 0) -> None:
        monkeypatch.setattr(slot_plan, "cpu_count", lambda: cores)
        monkeypatch.setattr(slot_plan, "gpu_count", lambda: gpus)

    return has


@pytest.mark.parametrize(
    ("cores", "seeds", "expected"),
    [(1, 1, (1, 1)), (2, 1, (2, 1)), (3, 1, (2, 1)), (8, 1, (2, 4)), (16, 1, (2, 8)), (16, 3, (6, 2)), (2, 3, (2, 1))],
)
def test_no_core_waits_for_an_evaluation_that_cannot_come(
    machine: Machine, cores: int, seeds: int, expected: tuple[int, int]
) -> None:
    """On 16 cores a search of two networks trained with two threads, and fourteen slots of one thread slept."""
    machine(cores)
    config = SearchConfig(seeds=seeds)
    for name in ("pocket", "paper", "mini", "smoke"):
        assert plan_slots(config, side_by_side(config, PROFILES[name])) == (*expected, 0), name


def test_many_evaluations_have_one_thread_each(machine: Machine) -> None:
    """Two processes with a thread each do more than one with two (docs/adr/0003.md)."""
    machine(8)
    assert plan_slots(SearchConfig()) == (8, 1, 0)
    assert plan_slots(SearchConfig(), 100) == (8, 1, 0)


def test_what_was_asked_for_comes_first(machine: Machine) -> None:
    """--workers decides the slots whatever can run side by side."""
    machine(16)
    assert plan_slots(SearchConfig(workers=4), 2) == (4, 4, 0)


def test_slots_of_a_gpu_are_lanes(machine: Machine) -> None:
    """--workers N is the number of lanes on each GPU. Their threads are in the key, so their number must not be."""
    machine(16, gpus=1)
    assert plan_slots(SearchConfig(), 2) == (2, 1, 1)
    assert plan_slots(SearchConfig(), 100) == (4, 1, 1)
    assert plan_slots(SearchConfig(workers=8), 2) == (8, 1, 1)
    machine(16, gpus=4)
    assert plan_slots(SearchConfig(workers=8), 2) == (32, 1, 4)
    assert plan_slots(SearchConfig(), 100) == (16, 1, 4)


def test_a_kernel_path_of_gpus_needs_one(machine: Machine) -> None:
    """It is refused at once, in words, and not by a training process."""
    machine(2)
    with pytest.raises(UsageError, match="sees no GPU"):
        plan_slots(SearchConfig(kernels="graph"))
    machine(2, gpus=1)
    plan_slots(SearchConfig(kernels="graph"))


def test_the_triton_kernels_need_their_package(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without the package triton is refused with what to install, before anything starts."""
    machine(2)
    with pytest.raises(UsageError, match="--set kernels=triton needs a GPU and the package triton, and torch sees no"):
        plan_slots(SearchConfig(kernels="triton"))
    machine(2, gpus=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs a GPU and the package triton, .*pip install triton"):
        plan_slots(SearchConfig(kernels="triton"))


def test_a_resumed_search_keeps_its_threads(machine: Machine) -> None:
    """They are part of every result's key; a search that began with one thread a slot is not refused now."""
    machine(16)
    assert plan_slots(SearchConfig(), 2, threads=1) == (2, 1, 0)
    machine(2)
    assert plan_slots(SearchConfig(), 2, threads=8) == (1, 8, 0)


@pytest.mark.parametrize("environment", [None, [], {}, {"threads": 5}, {"threads": "0"}, {"threads": "9" * 5}])
def test_strange_threads_of_a_run_are_not_believed(environment: object) -> None:
    """run.json is anybody's; no machine is asked for 99,999 threads because it says so."""
    assert recorded_threads(environment) is None
    assert recorded_threads({"threads": "8"}) == 8
