"""Lists the false claims of an A/A search. All candidates are copies of the baseline, so no difference is real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.statistics import Comparison, combine

NOTICE = (
    "A/A SEARCH (--null): every candidate is the baseline with other random numbers. A difference shown here is luck, "
    "and what was submitted is no discovery."
)

_Comparisons = Mapping[str, Comparison | None]


def claims(visible: _Comparisons, hidden: _Comparisons) -> list[dict[str, Any]]:
    """Each resolved difference, as kind, task (None: the mean over all tasks) and `improvement` or `worse`."""
    found = []
    for kind, comparisons in (("visible", visible), ("hidden", hidden)):
        verdicts = {task: None if one is None else one.resolved for task, one in comparisons.items()}
        if len(comparisons) > 1:
            verdicts[""] = combine(comparisons).resolved
        found += [
            {"kind": kind, "task": task or None, "resolved": resolved}
            for task, resolved in verdicts.items()
            if resolved in ("improvement", "worse")
        ]
    return found


def in_words(claimed: list[dict[str, Any]]) -> str:
    """One sentence that begins "would have claimed:"."""
    if not claimed:
        return "would have claimed: nothing, which is right: all candidates are equal"
    listed = "; ".join(f"{claim['kind']}, {claim['task'] or 'all tasks'}: {claim['resolved']}" for claim in claimed)
    return (
        f"would have claimed: {listed}. That is false. Few A/A searches should claim anything; if several "
        "do, the noise here is larger than the prior says: measure it with agent baselines --seeds 5"
    )
