"""The run that is kept as a sample: it loads, verifies and gives a page; and the script that keeps one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import load_run
from agent.engine.search import SearchOutcome
from agent.errors import UsageError
from agent.report import write_report
from agent.report.findings import find
from agent.runs.artifacts import MODULE, PATCH, write_artifacts
from agent.runs.log import read_events
from agent.runs.record import read_run
from agent.studies.verify import verify
from agent.studies.verify_artifacts import submitted_region
from tests.agent.conftest import Agent
from tests.agent.report_samples import Fields, change_log, change_summary, copy_run
from tests.sample import MAX_BYTES, SAMPLE, keep, restore


def of_a_clone(event: Fields) -> Fields:
    """As if the search had been made with the default `--runs`: the tests' own is a path of this machine."""
    return {**event, "config": event["config"] | {"runs": "runs"}} if event["kind"] == "launch" else event


def test_a_kept_run_is_whole_again(finished: SearchOutcome, tmp_path: Path) -> None:
    """Kept and restored, every check passes and the page says what the run's own page said."""
    run = copy_run(finished.run, tmp_path / "runs")
    change_log(run, of_a_clone)
    change_summary(run, config=run.read_summary()["config"] | {"runs": "runs"})
    region = submitted_region(run, [record.event for record in read_events(run.events)])
    write_artifacts(run, region, finished.done["submitted_test"], finished.words[1:])  # the patch names the log
    size = keep(run, tmp_path / "sample")
    assert size < MAX_BYTES
    assert not list((tmp_path / "sample").rglob(".git"))
    assert str(tmp_path) not in "".join(
        path.read_text(encoding="utf-8") for path in (tmp_path / "sample").rglob("*.json*") if path.is_file()
    )
    again = restore(tmp_path / "sample", tmp_path / "again")
    assert [check.fault for check in verify(again)] == [None] * 12
    assert find(read_run(again)) == find(read_run(run))


def test_what_cannot_be_kept(finished: SearchOutcome, tmp_path: Path) -> None:
    """A log with a path of this machine, which its hashes hold in place; a run that is not finished."""
    run = copy_run(finished.run, tmp_path / "runs")
    with pytest.raises(UsageError, match=r"events\.jsonl holds a path of this machine"):
        keep(run, tmp_path / "sample")
    assert not (tmp_path / "sample").exists()
    change_summary(run, submitted_test=None)
    with pytest.raises(UsageError, match="finished"):
        keep(run, tmp_path / "sample")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample run is kept yet: make sample RUN=latest")
def test_the_sample(tmp_path: Path) -> None:
    """The kept run loads, verifies, is small, and gives a page with its verdict."""
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < MAX_BYTES
    run = restore(SAMPLE, tmp_path / "sample")
    summary = load_run(run.path)
    assert summary["profile"] == "pocket"
    assert [(check.what, check.fault) for check in verify(run) if check.fault] == []
    page = write_report(run, measure=False)
    assert page.stat().st_size < 1_000_000
    assert find(read_run(run)).headline in page.read_text(encoding="utf-8")


def test_the_sample_resumes_to_its_end(agent: Agent, tmp_path: Path) -> None:
    """Cut off after its second test, it comes to the same end; in another environment it is refused in one sentence.

    The sample that was kept before did not: a generated strategy had another text than when it was recorded.
    """
    run = restore(SAMPLE, tmp_path / "runs" / read_run(restore(SAMPLE, tmp_path / "whole")).summary["run"])
    records = read_events(run.events)
    second = [record.seq for record in records if record.event.kind == "test_finished"][1]
    run.events.write_bytes(b"".join(run.events.read_bytes().splitlines(keepends=True)[: second + 1]))
    for name in (PATCH, MODULE):
        (run.path / name).unlink()
    change_summary(run, status="interrupted")
    done = agent("search", "--resume", str(run.path), "--no-page", "--json", timeout=600)
    if done.returncode == 2:
        assert "the search began in another environment" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    again = [record.event for record in read_events(run.events)]
    assert [event.model_dump(exclude={"seconds", "cached"}) for event in again[:-1]] == [
        record.event.model_dump(exclude={"seconds", "cached"}) for record in records[:-1]
    ]
