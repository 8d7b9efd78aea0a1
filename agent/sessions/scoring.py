"""The verifier of an exported environment: `python -m agent.sessions.scoring` trains a submission, writes reward.json.

Nothing of the agent's environment counts but the region's text. Without a reward file the environment reports an error
of its own, so a failure of our machinery never becomes a score.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from agent.config import SearchConfig
from agent.engine.search import Search
from agent.engine.summary import OUR_FAILURES
from agent.errors import AgentError, Rejected, UsageError
from agent.progress import Progress
from agent.runs.directory import RunDirectory
from agent.runs.log_lines import Fields
from agent.runs.metrics import gain_name, gains_by_metric, reward_metric, task_metrics
from benchmark.files import read_regular, write_atomically
from benchmark.task import Metric
from sandbox.lines import unify_newlines
from sandbox.region import RegionError, scaffold

_MAX_BYTES = 2**20


def score(submission: Path, out: Path, *, profile: str, seeds: int) -> dict[str, float]:
    """Train the region of the file `submission` and the baseline; write reward.json and score.json into `out`.

    `reward` is the mean accuracy on the hidden tasks (the visible ones where a profile hides none), a fraction; 0 for
    a submission that is missing, changed outside the region or refused. Gains and ends of intervals are in points.
    Where those tasks have another metric, `reward` is the mean gain in that metric, and 0 is the baseline. Then
    score.json has `metric` and `direction`, and the names of such gains end in the metric's name.
    Raises AgentError when our own machinery fails; then there is no reward.
    """
    region, why = _region(submission)
    done: dict[str, Any] = {}
    if region is not None:
        done, why = _train(region, out, profile, seeds)
    rewards, metric = {"reward": 0.0, "accepted": 0.0}, {}
    if not why:
        summary = RunDirectory(Path(done["run"])).read_summary()
        rewards, metric = rewards_of(summary), _metric(summary).as_json()
    detail = {"refused": why, "rewards": rewards, **metric, "done": done}
    write_atomically(out / "score.json", (json.dumps(detail, indent=2) + "\n").encode())
    write_atomically(out / "reward.json", (json.dumps(rewards) + "\n").encode())
    return rewards


def _region(submission: Path) -> tuple[str | None, str | None]:
    """The region in the file, or why there is none."""
    try:
        text = unify_newlines(read_regular(submission, limit=_MAX_BYTES).decode("utf-8"))
        return scaffold().region_in_edited(text), None
    except FileNotFoundError:
        return None, f"{submission} is not there"
    except (OSError, UnicodeDecodeError, RegionError) as error:
        return None, f"{submission}: {error}"


def _train(region: str, out: Path, profile: str, seeds: int) -> tuple[dict[str, Any], str | None]:
    """The `done` object of a search with one test, and why the region got no score."""
    given = out / "submitted.py"
    write_atomically(given, scaffold().with_region(region).text.encode())
    config = SearchConfig.model_validate(
        {
            "budget": 1,
            "proposer": f"scripted:{given}",
            "profile": profile,
            "seeds": seeds,
            "runs": out / "runs",
            "cache": False,
        }
    )
    try:
        outcome = Search.create(config).execute(Progress())
    except Rejected as error:
        return {}, str(error)
    if outcome.status == "infra":
        raise AgentError(" ".join(outcome.words))
    if outcome.done["submitted_test"] is None:
        return outcome.done, outcome.words[0]
    if outcome.status != "submitted":
        raise UsageError(f"the search ended with {outcome.status}: {outcome.words[0]}")
    return outcome.done, None


def rewards_of(summary: Fields) -> dict[str, float]:
    """The rewards of a submission, from the run.json of its search; see `score`.

    A task on which the submission failed counts as 0 for the reward, and then the mean gain is not known.
    """
    kinds = [kind for kind in ("visible", "hidden") if summary[kind]]
    judged, metrics = summary[kinds[-1]].values(), task_metrics(summary)
    if _metric(summary).is_accuracy:
        reward = sum(task["submitted"] or 0.0 for task in judged) / len(judged) / 100
    else:
        reward = sum(task["gain"] or 0.0 for task in judged) / len(judged)
    found: dict[str, float] = {"reward": reward, "accepted": 1.0}
    for kind in kinds:
        found |= {gain_name(kind, metric): gain for metric, gain in (gains_by_metric(summary, kind) or {}).items()}
        ends = [(metrics[task], one["ci"]) for task, one in summary[kind].items() if one["ci"]]
        if len(summary[kind]) == len(ends) == 1:
            ((metric, (low, high)),) = ends
            found |= {gain_name(kind, metric, "_low"): low, gain_name(kind, metric, "_high"): high}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _metric(summary: Fields) -> Metric:
    return reward_metric(*(task_metrics(summary, [kind]).values() for kind in ("visible", "hidden")))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m agent.sessions.scoring", description=__doc__)
    parser.add_argument("--submission", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    try:
        rewards = score(given.submission, given.out, profile=given.profile, seeds=given.seeds)
    except (AgentError, *OUR_FAILURES) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    print(json.dumps(rewards))


if __name__ == "__main__":
    main()
