"""Screening: short trainings (looks) of many candidates between two tests, so that a test is spent on the best one.

A look is a short training with its own full cosine schedule on the first part of the training set. Its score is the
loss on the rest of the training set, never on test data. Its seeds are used by no test. The algorithm is successive
halving (Jamieson and Talwalkar 2016, *AISTATS*): all candidates get the shortest look, and the better half gets a look
that is twice as long.

Costs are counted in tests: a look of fidelity f trains on f times as many pictures as a test of one seed. Costs do not
depend on the clock or on stored results, so the same search takes the same decisions on every machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.evaluation.batches import Candidate, Evaluations
from agent.protocol import Look
from agent.runs.events import Screened
from benchmark.results import EvaluationResult, region_sha256
from benchmark.seeds import look_seed
from benchmark.store import LayeredStore
from benchmark.tasks import Profile, Task

HELD_OUT = 0.2
"""Share of the training pictures on which the loss of a look is measured."""

FAILED_LOOK = "it failed or diverged in a short run"
"""Why a candidate is rejected that was trained and gave no loss."""

_EPOCHS = 2  # the fewest that make a cosine
_TEST_COST = 0.3  # of an image that is tested, in images that are trained on: docs/trainer.md
_MOST = 64  # candidates in a round
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Round:
    """The result of one call of `screen`: a look for each candidate, in order, and the best one's index, if any."""

    looks: tuple[Look, ...]
    best: int | None
    cost: float


def look_task(task: Task, fidelity: float) -> Task:
    """The task of a look: `fidelity` times the task's pictures in at least two epochs, tested on held-out pictures."""
    recipe = task.recipe
    train_size = task.sizes[0]
    size = min(train_size, recipe.train_limit or train_size)
    held_out = round(size * HELD_OUT)
    epochs = max(_EPOCHS, round(recipe.epochs * fidelity))
    pictures = max(2, round(fidelity * recipe.epochs * size / epochs))
    short = dataclasses.replace(
        recipe, epochs=epochs, train_limit=min(pictures, size - held_out), held_out=held_out, test_limit=None
    )
    return dataclasses.replace(task, recipe=short)


def look_cost(task: Task, fidelity: float) -> float:
    """Cost of a look, with its evaluation, as a share of the task's training in a test."""
    short, recipe = look_task(task, fidelity).recipe, task.recipe
    train_size, test_size = task.sizes
    full = float(recipe.epochs * min(train_size, recipe.train_limit or train_size))
    full += 2 * _TEST_COST * min(test_size, recipe.test_limit or test_size)
    return (short.epochs * (short.train_limit or 0) + 2 * _TEST_COST * short.held_out) / full


@dataclass
class Screen:
    """Screens candidates. It may spend `share` of a test's cost before each test, and saves what it does not spend."""

    evaluator: Evaluations
    record: Callable[[Screened], None]
    profile: Profile
    share: float
    seed: int
    seeds: int
    """Training seeds per test. A look always uses one."""
    results: LayeredStore
    spent: float = 0.0
    """Cost of screening so far, in tests."""
    rounds: int = 0
    seen: list[tuple[str, int, float | None]] = field(default_factory=list)
    """Hash of the region, rung and loss of every look so far."""
    _paid: set[tuple[str, int]] = field(default_factory=set)

    def affordable(self, tests: int) -> int:
        """How many new candidates the next round may have after `tests` tests."""
        count, left = 0, self._left(tests) + _ROUNDING
        while self._round_cost(count + 1) <= left and count < _MOST:
            count += 1
        return count

    def unseen(self, regions: Sequence[str]) -> int:
        """How many of these candidates were not screened before."""
        return len({digest for digest in map(region_sha256, regions) if (digest, 0) not in self._paid})

    def run(self, regions: Sequence[str], tests: int) -> Round:
        """Train a look of all candidates, then a longer one of the better half. A repeated look costs nothing."""
        self.rounds += 1
        before = self.spent
        looks = [Look(region, rejected=self._reject(region)) for region in regions]
        alive = [index for index, look in enumerate(looks) if look.rejected is None]
        for rung in range(len(self.profile.fidelities)):
            losses = self._losses([looks[index].region for index in alive], rung)
            for index, loss in zip(alive, losses, strict=True):
                failed = FAILED_LOOK if loss is None else None
                looks[index] = Look(looks[index].region, failed, loss, rung)
            alive = sorted(
                (index for index in alive if looks[index].rejected is None),
                key=lambda index: (looks[index].rank, index),
            )
            if rung + 1 < len(self.profile.fidelities):
                kept = alive[: len(alive) // 2]
                price = [self._unpaid(looks[index].region, rung + 1) for index in kept]
                while sum(price) > self._left(tests) + _ROUNDING:
                    kept.pop()
                    price.pop()
                if len(kept) < 2:
                    break
                alive = sorted(kept)
        best = alive[0] if alive else None
        cost = self.spent - before
        for index, look in enumerate(looks):
            digest = region_sha256(look.region)
            self.seen.append((digest, look.rung, look.loss))
            self.record(
                Screened(
                    round=self.rounds,
                    region_sha256=digest,
                    kept=index == best,
                    rejected=look.rejected,
                    rung=look.rung,
                    loss=look.loss,
                    cost=cost if index == 0 else 0.0,
                )
            )
        return Round(tuple(looks), best, cost)

    def restore(self, events: Sequence[Screened]) -> None:
        """Take in a round of the log as if it had been run, so that its looks are not paid again."""
        self.rounds += 1
        for event in events:
            self.spent += event.cost
            self.seen.append((event.region_sha256, event.rung, event.loss))
            if event.rejected in (None, FAILED_LOOK):
                self._paid |= {(event.region_sha256, rung) for rung in range(event.rung + 1)}

    def _reject(self, region: str) -> str | None:
        """Why the candidate is not trained (the free check or the signal at step 0); None when it is trained."""
        report = self.evaluator.check(region, self.profile.visible, self._seed(0))
        if not report.accepted:
            return f"{report.kind}: {report.message}"
        faults = self.evaluator.signal_faults(region, self.profile.visible, self._seed(0))
        return "; ".join(f"{task}: {fault}" for task, fault in faults) or None

    def _losses(self, regions: Sequence[str], rung: int) -> list[float | None]:
        """Mean held-out loss over the visible tasks for each region, in nats; None when it failed or is not finite."""
        tasks = [look_task(task, self.profile.fidelities[rung]) for task in self.profile.visible]
        for region in regions:
            self.spent += self._unpaid(region, rung)
            self._paid.add((region_sha256(region), rung))
        roles = [f"screen/{self.rounds}/{rung + 1}/{index + 1}" for index in range(len(regions))]
        outcomes = self.evaluator.evaluate(
            [Candidate(role, region) for role, region in zip(roles, regions, strict=True)],
            tasks,
            [self._seed(rung)],
            results=self.results,
        )
        means: list[float | None] = []
        for role in roles:
            found = [outcomes[role, task.name, self._seed(rung)] for task in tasks]
            losses = [
                result.test_loss for result in found if isinstance(result, EvaluationResult) and result.status == "ok"
            ]
            usable = len(losses) == len(tasks) and all(map(math.isfinite, losses))
            means.append(sum(losses) / len(losses) if usable else None)
        return means

    def _left(self, tests: int) -> float:
        return self.share * (tests + 1) - self.spent

    def _round_cost(self, count: int) -> float:
        kept = count // 2 if count >= 4 else 0
        return count * self._cost(0) + kept * self._cost(1)

    def _unpaid(self, region: str, rung: int) -> float:
        return 0.0 if (region_sha256(region), rung) in self._paid else self._cost(rung)

    def _cost(self, rung: int) -> float:
        costs = [look_cost(task, self.profile.fidelities[rung]) for task in self.profile.visible]
        return sum(costs) / len(costs) / self.seeds

    def _seed(self, rung: int) -> int:
        return look_seed(self.seed, rung)
