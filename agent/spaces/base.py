"""The search spaces for Optuna: the built-in strategy, or the numbers in a given region."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import UsageError
from agent.spaces import builtin, literals, rendering

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from benchmark.networks import Role
    from benchmark.task import Task

_NO_ROLES: builtin.Roles = {}


class Space(Protocol):
    """A search space. Each of its points can be written as a region text."""

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Optuna's dimensions, by name."""
        ...

    def first(self) -> Sequence[Mapping[str, Any]]:
        """The first points to try, best guess first, as `enqueue_trial` takes them."""
        ...

    def point(self, trial: optuna.Trial) -> tuple[str, dict[str, Any]]:
        """The region of a trial of `distributions`, and its description for the log: `strategy`, `parameters`."""
        ...


class BuiltIn:
    """The strategy of `agent.spaces.builtin`, with the numbers that act on the visible architectures."""

    def __init__(self, architectures: Sequence[str], roles: builtin.Roles = _NO_ROLES) -> None:
        """`roles`: those of the networks of a task file, see `networks_of`."""
        self._architectures = architectures
        self._known = {**roles, **builtin.ROLES}
        self._looked_for = bool(roles)
        self._seen: tuple[str, ...] = ()

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> BuiltIn:
        """The space of these (visible) tasks."""
        space = cls(*networks_of(tasks))
        networks = [task.network for task in tasks if task.network is not None and not task.strict]
        space._seen = tuple(dict.fromkeys(f"In {one.spec}: {one.found.words}." for one in networks if one.found))
        return space

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See `Space`."""
        return builtin.distributions(self._architectures, self._known)

    def without_effect(self) -> tuple[str, ...]:
        """The names of the numbers that act on no visible network. They are not searched."""
        return builtin.without_effect(self._architectures, self._known)

    def first(self) -> Sequence[Mapping[str, Any]]:
        """Points for the ideas known from papers: see `builtin.first_points`.

        On networks of a task file, points that come to the same, or to the network as built, are left out.
        """
        searched = self.distributions()
        points = builtin.first_points(self._architectures, self._known)
        if self._looked_for:
            acting = dict.fromkeys(builtin.acting(point, self._architectures, self._known) for point in points)
            points = tuple(point for point in acting if point != builtin.Parameters())
        return [
            {name: value for name, value in parameters.as_dict().items() if name in searched} for parameters in points
        ]

    def point(self, trial: optuna.Trial) -> tuple[str, dict[str, Any]]:
        """See `Space`."""
        parameters = builtin.decode(trial.params)
        base = "as built" if builtin.is_foreign(self._architectures) else "kaiming normal"
        described = {
            "strategy": rendering.describe(parameters, base=base),
            "parameters": dataclasses.asdict(parameters),
        }
        return rendering.render(parameters, self._architectures, self._seen), described


def networks_of(tasks: Sequence[Task]) -> tuple[list[str], builtin.Roles]:
    """The networks of these tasks by name, and what was found in those of a task file.

    A user's network is called by what names it in the task file, so that a function `resnet20` is not taken for ours.
    In a run that began before roles were looked for, networks keep the names that they had and count as having all.
    """
    names: list[str] = []
    roles: dict[str, frozenset[Role]] = {}
    for task in tasks:
        found = None if task.network is None else task.network.found
        name = task.network.spec if task.network is not None and found is not None else task.arch
        names.append(name)
        if found is not None:
            roles[name] = roles.get(name, frozenset()) | frozenset(found.roles)
    return names, roles


class Scaled:
    """The numbers of a given region (`agent.spaces.literals`). The first point is the unchanged region."""

    def __init__(self, region: str, name: str) -> None:
        self._region = region
        self._name = name
        self._numbers = literals.find_numbers(region)

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See `Space`."""
        return literals.distributions(self._numbers)

    def first(self) -> Sequence[Mapping[str, Any]]:
        """The numbers as they stand in the region."""
        return [literals.current(self._numbers)]

    def point(self, trial: optuna.Trial) -> tuple[str, dict[str, Any]]:
        """See `Space`."""
        values = trial.params
        shown = ", ".join(f"{name} {literals.readable(value)}" for name, value in values.items())
        return literals.rescale(self._region, values), {"strategy": f"{self._name}: {shown}", "parameters": values}


def space_for(start: str | None, region: str, tasks: Sequence[Task] = ()) -> Space:
    """The numbers of the start region; the built-in strategy when there is no start or it has no numbers.

    `tasks` are the visible ones. Raises UsageError when the region's `# scale:` comments cannot be read, or when no
    number of the built-in strategy acts on the networks.
    """
    if start is not None:
        try:
            numbers = literals.find_numbers(region)
        except (SyntaxError, literals.ScaleCommentError) as error:
            raise UsageError(f"--start {start}: its numbers cannot be read: {error}") from None
        if numbers:
            return Scaled(region, start)
    space = BuiltIn.of(tasks)
    if tasks and not space.distributions():
        raise UsageError(
            "no number of the built-in strategy acts on the visible networks, so there is nothing to search; give "
            "--start FILE with numbers of your own, or --proposer llm"
        )
    return space
