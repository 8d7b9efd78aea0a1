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
from benchmark.files import read_regular, write_atomically
from sandbox.lines import unify_newlines
from sandbox.region import RegionError, scaffold

_MAX_BYTES = 2**20


def score(submission: Path, out: Path, *, profile: str, seeds: int) -> dict[str, float]:
    """Train the region of the file `submission` and the baseline; write reward.json and score.json into `out`.

    `reward` is the mean accuracy on the hidden tasks (the visible ones where a profile hides none), a fraction; 0 for
    a submission that is missing, changed outside the region or refused. Gains and ends of intervals are in points.
    Raises AgentError when our own machinery fails; then there is no reward.
    """
    region, why = _region(submission)
    done: dict[str, Any] = {}
    if region is not None:
        done, why = _train(region, out, profile, seeds)
    rewards = {"reward": 0.0, "accepted": 0.0} if why else _rewards(done)
    detail = {"refused": why, "rewards": rewards, "done": done}
    write_atomically(out / "score.json", (json.dumps(detail, indent=2) + "\n").encode())
    write_atomically(out / "reward.json", (json.dumps(rewards) + "\n").encode())
    return rewards


def _region(submission: Path) -> tuple[str | None, str | None]:
    """The region in the file, or why there is none."""
    try:
        text = unify_newlines(read_regular(submission, limit=_MAX_BYTES).decode("utf-8"))
        return scaffold().region_in(text if text.endswith("\n") else text + "\n"), None
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


def _rewards(done: dict[str, Any]) -> dict[str, float]:
    """A task on which the submission failed counts as 0 for the reward, and its gain is not known."""
    kinds = [kind for kind in ("visible", "hidden") if done[kind]]
    judged = [task["submitted"] or 0.0 for task in done[kinds[-1]].values()]
    found: dict[str, float] = {"reward": sum(judged) / len(judged) / 100, "accepted": 1.0}
    for kind in kinds:
        gains = [task["gain"] for task in done[kind].values()]
        if None not in gains:
            found[f"{kind}_gain"] = sum(gains) / len(gains)
        ends = [task["ci"] for task in done[kind].values() if task["ci"]]
        if len(gains) == len(ends) == 1:
            found[f"{kind}_gain_low"], found[f"{kind}_gain_high"] = ends[0]
    return {name: value for name, value in found.items() if math.isfinite(value)}


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
