"""Which numbers of the built-in strategy mattered in the searches of a folder? The table of docs/comparing.md.

    python docs/points_measured.py RUNS

Least squares over all tests: visible accuracy, mean over the tasks, on the numbers of the point and on the search it
belongs to, since the tests of one search share seeds. Interactions are left out, so it shows the coarse picture only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.protocol import TestOutcome
from agent.runs.directory import RunDirectory, list_runs
from agent.runs.events import Proposal, TestFinished
from agent.runs.log import read_events

_LEAST = 0.01
"""A head of scale zero, on a logarithmic scale."""


def effects(parameters: Mapping[str, Any]) -> dict[str, float]:
    """The point as numbers, each zero where it is neutral."""
    structure, head = parameters["structure"], parameters["head_scale"]
    return {
        "orthogonal": float(structure == "orthogonal"),
        "identity share": parameters["identity_share"] * (structure == "dirac_mix"),
        "filters of equal norm": float(parameters["filter_norm"]),
        "ln of convolutions ×": math.log(parameters["g_conv"]),
        "slope along depth": parameters["depth_slope"],
        "ln of convolutions on skips ×": math.log(parameters["shortcut_gain"]),
        "α of branch ends": parameters["branch_last_alpha"],
        "last γ": parameters["gamma_last"] - 1,
        "norm biases": parameters["bn_beta"],
        "ln of head ×": math.log(max(head, _LEAST)),
    }


def tests_of(run: RunDirectory) -> list[tuple[dict[str, float], float]]:
    """Each test that succeeded: the numbers of its point and its accuracy."""
    found: list[tuple[dict[str, float], float]] = []
    point: dict[str, Any] | None = None
    for event in (record.event for record in read_events(run.events)):
        if isinstance(event, Proposal):
            point = event.content.get("parameters")
        elif isinstance(event, TestFinished) and event.status == "ok" and point is not None:
            found.append((effects(point), TestOutcome(event.number, event.accuracies, "").score))
    return found


def fit(searches: Sequence[Sequence[tuple[dict[str, float], float]]]) -> None:
    """Print points of accuracy for one unit of each number, with the standard error."""
    tests = [(index, *test) for index, one in enumerate(searches) for test in one]
    names = list(tests[0][1])
    design = np.array(
        [[float(index == other) for other in range(len(searches))] + list(point.values()) for index, point, _ in tests]
    )
    outcome = np.array([accuracy for _, _, accuracy in tests])
    solution, _, rank, _ = np.linalg.lstsq(design, outcome)
    rest = outcome - design @ solution
    variance = float(rest @ rest) / (len(outcome) - int(rank))
    errors = np.sqrt(variance * np.diag(np.linalg.pinv(design.T @ design)))
    print(f"{len(tests)} tests of {len(searches)} searches; unexplained: {math.sqrt(variance):.2f} points (SD)")
    for name, slope, error in zip(names, solution[-len(names) :], errors[-len(names) :], strict=True):
        print(f"{name} | {slope:+.2f} | {error:.2f}")


def main() -> None:
    """All tests, then those with quiet branches, where other numbers can show."""
    searches = [tests for path in list_runs(Path(sys.argv[1])) if (tests := tests_of(RunDirectory(path)))]
    fit(searches)
    print("of these, with a last γ below 0.5:")
    fit([[test for test in tests if test[0]["last γ"] < -0.5] for tests in searches])


if __name__ == "__main__":
    main()
