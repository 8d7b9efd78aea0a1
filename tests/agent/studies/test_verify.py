"""`agent verify`: an intact run passes, and whatever is changed afterwards is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from agent.runs.directory import RunDirectory
from agent.studies.verify import verify
from benchmark.store import ResultStore
from tests.agent.conftest import Agent, json_lines


def test_intact_run_passes_and_trains_to_the_same_accuracy(agent: Agent, finished: SearchOutcome) -> None:
    """`agent verify RUN --execute`: everything fits, one training again gives the recorded accuracy; exit 0."""
    result = agent("verify", str(finished.run), "--execute", "--json")
    (found,) = json_lines(result.stdout)
    assert result.returncode == 0, found
    assert found["intact"]
    assert len(found["checks"]) == 13


def _raise_accuracy_in_result(run: Path) -> None:
    path = next((run / "results").glob("*.json"))
    envelope = json.loads(path.read_text())
    envelope["result"]["best_test_acc"] += 1
    path.write_text(json.dumps(envelope))


def _raise_gain_in_summary(run: Path) -> None:
    summary = json.loads((run / "run.json").read_text())
    summary["hidden"]["mobilenetv2-tiny"]["submitted"] += 1
    (run / "run.json").write_text(json.dumps(summary))


def _edit_log(run: Path) -> None:
    log = run / "events.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace('"number": 1', '"number": 2', 1), encoding="utf-8")


def _change_patch(run: Path) -> None:
    patch = run / "submission.patch"
    text = patch.read_text(encoding="utf-8")
    number = text.index("\n+    ") + 1
    patch.write_text(text[:number] + text[number:].replace("+    ", "+     ", 1), encoding="utf-8")


def _change_workspace(run: Path) -> None:
    file = run / "workspace" / "sandbox" / "custom_init.py"
    file.write_text(file.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")


def _cut_log(run: Path) -> None:
    """The hidden results and the end are cut off; the chain of what is left is unbroken."""
    log = run / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-3]))


def _cut_last_line(run: Path) -> None:
    log = run / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))


def _delete_result(run: Path) -> None:
    next((run / "results").glob("*.json")).unlink()


def _raise_hidden_result_with_its_checksum(run: Path) -> None:
    store = ResultStore(run / "hidden")
    result = store.get(next(store.folder.glob("*.json")).stem)
    assert result is not None
    curve = tuple(epoch.model_copy(update={"test_acc": 99.0}) for epoch in result.curve)
    store.put(result.model_copy(update={"best_test_acc": 99.0, "curve": curve}))


def _move_tag(run: Path) -> None:
    """Tag test/2 is made to name the baseline's commit."""
    tags = run / "workspace" / ".git" / "refs" / "tags"
    shutil.copy(tags / "baseline", tags / "test" / "2")


def _change_module(run: Path) -> None:
    with (run / "initialize_weights.py").open("a", encoding="utf-8") as module:
        module.write("    model.apply(print)\n")


def _claim_another_submission(run: Path) -> None:
    summary = json.loads((run / "run.json").read_text())
    summary["submitted_test"] = 3 - summary["submitted_test"]
    (run / "run.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("harm", "check"),
    [
        (_cut_log, "run.json agrees with the log"),
        (_cut_last_line, "run.json agrees with the log"),
        (_delete_result, "each recorded accuracy has its result file"),
        (_raise_hidden_result_with_its_checksum, "each recorded accuracy has its result file"),
        (_move_tag, "git holds the regions that the log names"),
        (_change_module, "the patch and the module are the submission"),
        (_claim_another_submission, "run.json agrees with the log"),
        (_raise_accuracy_in_result, "each recorded accuracy has its result file"),
        (_raise_gain_in_summary, "run.json agrees with the log"),
        (_edit_log, "the event log is unbroken"),
        (_change_patch, "the patch and the module are the submission"),
        (_change_workspace, "git holds the regions that the log names"),
    ],
)
def test_what_was_changed_is_found(
    finished: SearchOutcome, tmp_path: Path, harm: Callable[[Path], None], check: str
) -> None:
    """One changed file, one fault, in the check that is about it."""
    run = tmp_path / "run"
    shutil.copytree(finished.run, run, symlinks=True)
    assert all(found.fault is None for found in verify(RunDirectory(run)))
    harm(run)
    assert [found.what for found in verify(RunDirectory(run)) if found.fault] == [check]
