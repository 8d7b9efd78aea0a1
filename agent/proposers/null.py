"""The A/A proposer: each candidate is the baseline with other random numbers, so each claimed difference is false."""

from __future__ import annotations

import ast

from agent.protocol import Observation, Situation, ToolCall, replace_region
from sandbox.parsing import parse
from sandbox.region import FUNCTION, scaffold


class NullProposer:
    """Tests copies of the baseline one after the other, then submits the best one, as a search does."""

    name = "null"
    ignores_baseline = True

    def __init__(self, baseline: str | None = None) -> None:
        self._refused = False
        self._baseline = scaffold().region if baseline is None else baseline

    def ask(self, situation: Situation) -> ToolCall | None:
        """Edit the next copy in, test it, or submit the best when no test is left."""
        if self._refused or situation.tests_left <= 0:
            if situation.in_flight:
                return None
            return ToolCall("submit", {"n": situation.best}) if situation.best else None
        region = relabelled(self._baseline, len(situation.tests) + situation.in_flight + 1)
        return ToolCall("test") if situation.region == region else replace_region(situation, region)

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """Remember a refusal, because a refused copy would always be refused."""
        self._refused = not observation.ok and observation.test is None


def relabelled(region: str, number: int) -> str:
    """The same strategy with its own random stream. `number` distinguishes the copies.

    A copy that differs only by a comment would give the baseline's tensors, and would show no noise. Here the seed of
    the stream is drawn from the evaluation's stream and mixed with `number`. So the stream is independent of those of
    the baseline and of the other copies, with the same distribution. The order of the data depends only on the
    evaluation's seed, as for every candidate.
    """
    function = next(node for node in parse(region).body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION)
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    line = (first.end_lineno or first.lineno) if documented else first.lineno - 1
    lines = region.splitlines(keepends=True)
    indent = " " * first.col_offset
    lines[line:line] = [
        f"{indent}# A/A copy {number}: the same distribution, from other random numbers.\n",
        f"{indent}torch.manual_seed(int(torch.randint(2**62, ())) ^ {number})\n",
    ]
    return "".join(lines)
