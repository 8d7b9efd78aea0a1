"""The result of a search: the comparisons, the last line of `agent search --json`, and sentences for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.analysis import against_baseline, generalisation, known_noise, null_claims, openness
from agent.analysis.choosing import NONE_BETTER, compared, none_better
from agent.analysis.confirming import trained_again
from agent.config import SearchConfig
from agent.engine.loop import End
from agent.errors import RunDamaged
from agent.protocol import Accuracies, TestOutcome
from agent.runs.artifacts import MODULE, PATCH, write_artifacts
from agent.runs.directory import RunDirectory
from agent.runs.recorded_noise import Noise
from agent.runs.status import RunStatus
from agent.transcripts.trajectory import TRAJECTORY, write_trajectory
from benchmark.statistics import Comparison
from benchmark.tasks import Profile
from sandbox.history import History

Comparisons = Mapping[str, Comparison | None]

_ALWAYS_DONE = (
    *("status", "run", "tests_used", "submitted_test"),
    *("visible", "hidden", "generalisation", "seconds"),
)
_SOMETIMES_DONE = ("confirmed", "null", "would_have_claimed", "session")


@dataclass(frozen=True)
class SearchOutcome:
    """The result of a search; `done` is the last line of `agent search --json`."""

    run: Path
    status: str
    done: dict[str, Any]
    words: list[str]

    @property
    def exit_code(self) -> int:
        """0: done. 1: our machinery failed. 4: the search ended and there is nothing to submit."""
        if self.status == RunStatus.INFRA:
            return 1
        return 0 if self.done["submitted_test"] is not None else 4

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict, table and curves."""
        from agent.report.notebook import run_html

        return run_html(RunDirectory(self.run))


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
    """Read the `launch` line and the result of a finished search from run.json.

    Writes patch, module and trajectory again if they are missing. Raises RunDamaged, WorkspaceError, TranscriptError.
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
    if number is not None and not all(run.has(name) for name in (PATCH, MODULE)):
        write_artifacts(run, History(run.workspace).region_at(f"test/{number}"), number, words[1:])
    if not run.has(TRAJECTORY):
        write_trajectory(run)
    done = {"event": "done", **fields, "run": str(run.path)}
    return launch, SearchOutcome(run.path, summary["status"], done, words)


class Evidence(Protocol):
    """The results of a search at its end, from a toolbox, or from a log (`agent.studies.verify_artifacts`)."""

    @property
    def baseline(self) -> Accuracies:
        """Accuracies of the baseline on the visible tasks."""

    @property
    def tests(self) -> Sequence[TestOutcome]:
        """All finished tests. Confirmed tests include their fresh seeds."""

    @property
    def ran(self) -> Sequence[int]:
        """Numbers of the tests that succeeded when they were run."""

    @property
    def submitted(self) -> int | None:
        """Number of the submitted test."""

    @property
    def confirmed(self) -> Sequence[int]:
        """Numbers of the finalists."""

    @property
    def look_scores(self) -> Mapping[str, float]:
        """Hash of a region → its score from screening."""

    @property
    def noise(self) -> Noise | None:
        """The seed noise that the run recorded; None in a run of an older version."""


def conclude(
    config: SearchConfig,
    profile: Profile,
    run: Path,
    end: End,
    tools: Evidence,
    unseen: Mapping[str, Accuracies],
    seconds: Mapping[str, float],
) -> tuple[dict[str, Any], list[str]]:
    """The `done` object of the JSON contract, and lines for people. The first line says how the search ended.

    `unseen`: role → accuracies on the hidden task; empty when it was not run.
    """
    visible, hidden = _compare_visible(profile, tools), _compare_hidden(profile, tools, unseen)
    claims = null_claims.claims(visible, hidden)
    found = []
    if tools.submitted is not None:
        found = _confirmed(config, tools)
        found += against_baseline.describe_tasks("visible", visible) + against_baseline.describe_tasks("hidden", hidden)
        noise = {name: one for name, one in (tools.noise or {}).items() if name in {**visible, **hidden}}
        found += known_noise.in_words(noise) + known_noise.contradicted(noise, tools.baseline)
        if not config.null:
            tests = compared(profile.name, tools.baseline, tools.tests, noise=tools.noise, metrics=profile.metrics)
            found += [NONE_BETTER] if none_better(overall for _, overall in tests) else []
        found += [
            *generalisation.of_run(visible, hidden),
            against_baseline.verdict(visible, hidden, hides=bool(profile.hidden)),
        ]
        found += _own_metrics(profile)
        if config.null:
            found.append(null_claims.in_words(claims))
    notice = openness.notice(config.proposer)
    caveat = [profile.caveat] if profile.caveat else []  # a task file need not have one
    words = [end.message, *([null_claims.NOTICE] if config.null else []), *found]
    words += [*([notice] if notice else []), *caveat]
    done: dict[str, Any] = {
        "event": "done",
        "status": end.status,
        "run": str(run),
        "tests_used": len(tools.tests),
        "submitted_test": tools.submitted,
        "visible": against_baseline.as_json(visible),
        "hidden": against_baseline.as_json(hidden),
        "generalisation": generalisation.as_json(generalisation.carry_over(visible, hidden)),
        "seconds": dict(seconds),
    }
    if tools.confirmed:
        done["confirmed"] = list(tools.confirmed)
    if config.null:
        done |= {"null": True, "would_have_claimed": claims}
    if notice:
        done["session"] = openness.openness(config.proposer)
    return done, words


def tests_as_json(tools: Evidence) -> list[dict[str, Any]]:
    """The tests as run.json lists them."""
    return [
        {"number": test.number, "region_sha256": test.region_sha256, "accuracies": test.accuracies}
        for test in tools.tests
    ]


def _own_metrics(profile: Profile) -> list[str]:
    """What is not checked where a user's own trainer gives the score."""
    if all(task.trainer is None for task in profile.tasks):
        return []
    return ["The chance-level check of untrained networks knows classes only, so it was left out."]


def _compare_visible(profile: Profile, tools: Evidence) -> Comparisons:
    """Compare the submitted test with the baseline on the visible tasks, by all seeds; {} without a submission.

    The intervals are corrected for picking the best of all tests. They hold after a confirmation too: the pooled gain
    is one of the gains that all tests would have with as many seeds, and the correction counts all tests.
    """
    if tools.submitted is None:
        return {}
    submitted = next((test for test in tools.tests if test.number == tools.submitted), None)
    if submitted is None:  # a search submits what it has tested; a log that somebody wrote need not
        raise RunDamaged(f"the log submits test {tools.submitted}, which it does not have")
    ran = [test for test in tools.tests if test.number in tools.ran]
    others = [test.accuracies for test in ran if test is not submitted]
    return against_baseline.compare_tasks(
        profile.name,
        tools.baseline,
        submitted.accuracies,
        n_candidates=len(ran),
        others=others,
        look=tools.look_scores.get(submitted.region_sha256),
        noise=tools.noise,
        metrics=profile.metrics,
    )


def _compare_hidden(profile: Profile, tools: Evidence, hidden: Mapping[str, Accuracies]) -> Comparisons:
    """Compare the submission with the baseline on the hidden task; {} when it was not run."""
    if not hidden:
        return {}
    baseline, submission = hidden["hidden/baseline"], hidden["hidden/submission"]
    return against_baseline.compare_tasks(
        profile.name, baseline, submission, noise=tools.noise, metrics=profile.metrics
    )


def _confirmed(config: SearchConfig, tools: Evidence) -> list[str]:
    if not tools.confirmed:
        return []
    more = f"{config.confirm} fresh seed{'s' if config.confirm > 1 else ''}"
    return [f"{trained_again(tools.confirmed, more)}; all seeds count below"]
