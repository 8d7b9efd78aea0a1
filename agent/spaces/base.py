"""The search spaces for Optuna: the built-in strategy, or the numbers in a given region."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import UsageError
from agent.spaces import builtin, literals

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


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
        """The region that a trial proposes, and its description for the log: `strategy`, `parameters`."""
        ...


class BuiltIn:
    """The strategy of `agent.spaces.builtin`, with the numbers that act on the visible architectures."""

    def __init__(self, architectures: Sequence[str], roles: builtin.Roles = _NO_ROLES) -> None:
        """`roles`: those of networks that are not this project's (`builtin.roles_of`)."""
        self._architectures = architectures
        self._known = {**builtin.ROLES, **roles}

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See `Space`."""
        return builtin.distributions(self._architectures, self._known)

    def first(self) -> Sequence[Mapping[str, Any]]:
        """Points for the ideas known from papers: see `builtin.first_points`."""
        searched = self.distributions()
        return [
            {name: value for name, value in parameters.as_dict().items() if name in searched}
            for parameters in builtin.first_points(self._architectures, self._known)
        ]

    def point(self, trial: optuna.Trial) -> tuple[str, dict[str, Any]]:
        """See `Space`."""
        parameters = builtin.suggest(trial, self._architectures, self._known)
        base = "as built" if builtin.is_foreign(self._architectures) else "kaiming normal"
        described = {"strategy": builtin.describe(parameters, base=base), "parameters": dataclasses.asdict(parameters)}
        return builtin.render(parameters, self._architectures), described


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
        values = literals.suggest(trial, self._numbers)
        shown = ", ".join(f"{name} {literals.readable(value)}" for name, value in values.items())
        return literals.rescale(self._region, values), {"strategy": f"{self._name}: {shown}", "parameters": values}


def space_for(start: str | None, region: str, architectures: Sequence[str], roles: builtin.Roles = _NO_ROLES) -> Space:
    """The numbers of the start region; the built-in strategy when there is no start or it has no numbers.

    `roles`: see `BuiltIn`. Raises UsageError when its `# scale:` comments cannot be read.
    """
    if start is None:
        return BuiltIn(architectures, roles)
    try:
        numbers = literals.find_numbers(region)
    except (SyntaxError, literals.ScaleCommentError) as error:
        raise UsageError(f"--start {start}: its numbers cannot be read: {error}") from None
    return Scaled(region, start) if numbers else BuiltIn(architectures, roles)
