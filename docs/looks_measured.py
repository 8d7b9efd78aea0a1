"""Do short looks rank initialisations as tests do? The table of docs/search-space.md.

    python docs/looks_measured.py mini           all recipes, one seed: a test and looks of several lengths each
    python docs/looks_measured.py pocket 0.25    looks of this length only

Results of tests come from the user's store where it has them, so `agent baselines --profile pocket` saves time.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from scipy.stats import spearmanr

from agent.clock import Clock
from agent.config import SearchConfig
from agent.engine.screening import look_cost, look_task
from agent.evaluation.batches import Candidate
from agent.evaluation.workbench import open_workbench
from agent.progress import Progress
from benchmark.recipes import get_recipe, recipe_names
from benchmark.results import EvaluationResult
from benchmark.store import LayeredStore, user_store
from benchmark.tasks import Task, get_profile

FIDELITIES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
_FIRST_SEED = 100  # as `agent.engine.screening`: no look shares a test's seed


def main() -> None:
    """For each task and length: the cost in tests, and Spearman's correlation of held-out loss and test accuracy."""
    profile = get_profile(sys.argv[1])
    fidelities = tuple(map(float, sys.argv[2:])) or FIDELITIES
    candidates = [Candidate(name, get_recipe(name).region) for name in recipe_names()]
    results = LayeredStore(user_store())
    with open_workbench(SearchConfig(profile="smoke"), Clock(), Progress()) as workbench:

        def measure(task: Task, seed: int, value: str) -> list[float]:
            """One number of each recipe, NaN where it failed."""
            outcomes = workbench.evaluator.evaluate(candidates, [task], [seed], results=results)
            return [
                getattr(outcome, value) if isinstance(outcome, EvaluationResult) else math.nan
                for outcome in outcomes.values()
            ]

        for task in profile.visible:
            accuracies = measure(task, 0, "best_test_acc")
            for fidelity in fidelities:
                losses = measure(look_task(task, fidelity), _FIRST_SEED, "test_loss")
                pairs = np.array(
                    [pair for pair in zip(losses, accuracies, strict=True) if all(map(math.isfinite, pair))]
                )
                better = pairs[np.argsort(-pairs[:, 1])[: len(pairs) // 2]]
                both = (f"{-spearmanr(*side.T).statistic:.2f} of {len(side)}" for side in (pairs, better))
                print(task.name, f"{fidelity:g}", f"{look_cost(task, fidelity):.3f}", *both, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
