"""The A/A proposer: every candidate is the baseline with other random numbers, so every claimed difference is false."""

from __future__ import annotations

import ast

from agent.protocol import Observation, Situation, ToolCall, replace_region
from sandbox.parsing import parse
from sandbox.region import FUNCTION, scaffold


class NullProposer:
    """Tests one relabelled copy of the baseline after the other, then submits the best, as a search does."""

    name = "null"

    def __init__(self) -> None:
        self._refused = False

    def ask(self, situation: Situation) -> ToolCall | None:
        """Edit the next copy in, test it, or submit the best when no test is left."""
        if self._refused or situation.tests_left <= 0:
            return ToolCall("submit", {"n": situation.best}) if situation.best else None
        region = relabelled(scaffold().region, len(situation.tests) + 1)
        return ToolCall("test") if situation.region == region else replace_region(situation, region)

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """Note a refusal: a copy that is refused once would always be refused."""
        self._refused = not observation.ok and observation.test is None


def relabelled(region: str, number: int) -> str:
    """The same strategy drawing from a random stream of its own; `number` tells the copies apart.

    A copy that differed by a comment only would give the very tensors of the baseline, and nothing could be learned.
    Here the stream begins at a seed that is drawn from the evaluation's own stream and mixed with `number`: unrelated
    to the baseline's stream and to those of the other copies, and of the same distribution. The order of the data
    depends on the evaluation's seed alone, as it does for every real candidate.
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
