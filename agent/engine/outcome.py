"""The result of a search: the comparisons, the last line of `agent search --json`, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.analysis import comparison, generalisation, null_claims
from agent.analysis.finalists import trained_again
from agent.config import SearchConfig
from agent.engine.loop import End
from agent.engine.toolbox import Toolbox
from agent.errors import RunDamaged
from agent.protocol import Accuracies
from agent.runs.artifacts import ARTIFACTS, write_artifacts
from agent.runs.directory import RunDirectory
from agent.runs.status import RunStatus
from benchmark.statistics import Comparison
from benchmark.tasks import Profile
from sandbox.workspace import Workspace

Comparisons = Mapping[str, Comparison | None]

_ALWAYS_DONE = (
    *("status", "run", "tests_used", "submitted_test"),
    *("visible", "hidden", "generalisation", "seconds"),
)
_SOMETIMES_DONE = ("confirmed", "null", "would_have_claimed")


@dataclass(frozen=True)
class SearchOutcome:
    """The result of a search; `done` is the last line of `agent search --json`."""

    run: Path
    status: str
    done: dict[str, Any]
    words: list[str]

    @property
    def exit_code(self) -> int:
        """0 done, 1 our machinery failed, 4 the budget is spent and there is nothing to submit."""
        if self.status == RunStatus.INFRA:
            return 1
        return 0 if self.done["submitted_test"] is not None else 4


def launch_line(run: Path, profile: str, budget: int, proposer: str, reason: str) -> dict[str, Any]:
    """The `launch` object of the contract."""
    return {
        "event": "launch",
        "run": str(run),
        "profile": profile,
        "budget": budget,
        "proposer": proposer,
        "reason": reason,
    }


def finished_outcome(run: RunDirectory) -> tuple[dict[str, Any], SearchOutcome]:
    """The `launch` line of a finished search and its result, both from run.json.

    Patch and module are made again when they are missing. Raises RunDamaged, WorkspaceError.
    """
    summary = run.read_summary()
    try:
        config = summary["config"]
        launch = launch_line(run.path, summary["profile"], config["budget"], config["proposer"], summary["reason"])
        sometimes = [name for name in _SOMETIMES_DONE if summary.get(name, False) is not False]
        fields = {name: summary[name] for name in (*_ALWAYS_DONE, *sometimes)}
        words = summary["words"]
    except (KeyError, TypeError) as error:
        raise RunDamaged(f"{run.summary}: it lacks what a finished search has ({error})") from None
    number = summary["submitted_test"]
    if number is not None and not all((run.path / name).is_file() for name in ARTIFACTS):
        with Workspace.open(run.workspace) as workspace:
            write_artifacts(run, workspace, workspace.region_at(f"test/{number}"), number, words[1:])
    done = {"event": "done", **fields, "run": str(run.path)}
    return launch, SearchOutcome(run.path, summary["status"], done, words)


def conclude(
    config: SearchConfig,
    profile: Profile,
    run: Path,
    end: End,
    tools: Toolbox,
    unseen: Mapping[str, Accuracies],
    seconds: Mapping[str, float],
) -> tuple[dict[str, Any], list[str]]:
    """The `done` object of the contract, and lines for a person, the first of which says how the search ended.

    `unseen`: what the hidden task gave, by role; empty when it was not run.
    """
    visible, hidden = _compare_visible(profile, tools), _compare_hidden(profile, unseen)
    claims = null_claims.claims(visible, hidden)
    found = []
    if tools.submitted is not None:
        found = _confirmed(config, tools)
        found += comparison.describe_tasks("visible", visible) + comparison.describe_tasks("hidden", hidden)
        found += [*generalisation.of_run(visible, hidden), comparison.verdict(visible, hidden)]
        if config.null:
            found.append(null_claims.in_words(claims))
    words = [end.message, *([null_claims.NOTICE] if config.null else []), *found, profile.caveat]
    done: dict[str, Any] = {
        "event": "done",
        "status": end.status,
        "run": str(run),
        "tests_used": len(tools.tests),
        "submitted_test": tools.submitted,
        "visible": comparison.as_json(visible),
        "hidden": comparison.as_json(hidden),
        "generalisation": generalisation.as_json(generalisation.carry_over(visible, hidden)),
        "seconds": dict(seconds),
    }
    if tools.confirmed:
        done["confirmed"] = list(tools.confirmed)
    if config.null:
        done |= {"null": True, "would_have_claimed": claims}
    return done, words


def _compare_visible(profile: Profile, tools: Toolbox) -> Comparisons:
    """The submitted test against the baseline on the visible tasks, by all their seeds; nothing without a submission.

    The intervals allow for its having been picked. They hold after a confirmation too: its pooled gain is one of those
    that all tests would have had with as many seeds, and that many are allowed for.
    """
    if tools.submitted is None:
        return {}
    submitted = next(test for test in tools.tests if test.number == tools.submitted)
    ran = [test for test in tools.tests if test.number in tools.ran]
    others = [test.accuracies for test in ran if test is not submitted]
    return comparison.compare_tasks(
        profile.name,
        tools.baseline,
        submitted.accuracies,
        n_candidates=len(ran),
        others=others,
        look=tools.look_scores.get(submitted.region_sha256),
    )


def _compare_hidden(profile: Profile, hidden: Mapping[str, Accuracies]) -> Comparisons:
    """Submission against baseline on the hidden task; nothing when it was not run."""
    if not hidden:
        return {}
    return comparison.compare_tasks(profile.name, hidden["hidden/baseline"], hidden["hidden/submission"])


def _confirmed(config: SearchConfig, tools: Toolbox) -> list[str]:
    if not tools.confirmed:
        return []
    more = f"{config.confirm} fresh seed{'s' if config.confirm > 1 else ''}"
    return [f"{trained_again(tools.confirmed, more)}; all seeds count below"]
