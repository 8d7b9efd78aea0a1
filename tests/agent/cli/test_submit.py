"""A search that waits for a person: nothing hidden runs before `agent submit`, and only for the approved patch."""

from __future__ import annotations

import json
from pathlib import Path

from agent.runs.directory import RunDirectory
from agent.runs.reviews import add_review, standing
from tests.agent.conftest import Agent, json_lines


def test_hidden_task_waits_for_an_approval(agent: Agent, tmp_path: Path) -> None:
    """search --no-submit, a rejected submit, a changed patch, an approval, submit: and then a finished run."""
    common = ("--profile", "smoke", "--budget", "1", "--runs", str(tmp_path / "runs"), "--json")
    searched = agent("search", "--no-submit", *common, page=True)
    assert searched.returncode == 0, searched.stderr
    assert "next: agent review" in searched.stderr
    done = json_lines(searched.stdout)[-1]
    assert (done["status"], done["submitted_test"], done["hidden"]) == ("waiting_for_review", 1, {})
    run = RunDirectory(Path(done["run"]))
    assert not run.hidden.exists()
    assert "The hidden task waits for" in (run.path / "report.html").read_text(encoding="utf-8")

    refused = agent("submit", str(run.path), "--require-approval")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "nobody approved it" in refused.stderr
    waiting = agent("search", "--resume", str(run.path))
    assert waiting.returncode == 2
    assert "waits for a review" in waiting.stderr

    patch = run.path / "submission.patch"
    original = patch.read_bytes()
    patch.write_bytes(original.replace(b"+    ", b"+     ", 1))
    add_review(run, "approve", "")
    changed = agent("submit", str(run.path), "--require-approval")
    assert changed.returncode == 3
    assert "changed by hand" in changed.stderr
    patch.write_bytes(original)
    assert not standing(run).approved
    assert not run.hidden.exists()

    add_review(run, "approve", "")
    submitted = agent("submit", str(run.path), "--require-approval", "--json")
    assert submitted.returncode == 0, submitted.stderr
    done = json.loads(submitted.stdout.splitlines()[-1])
    assert done["status"] == "submitted"
    assert done["hidden"]["mobilenetv2-tiny"]["gain"] is not None
    assert patch.read_bytes() == original
    assert standing(run).approved
    again = agent("submit", str(run.path))
    assert again.returncode == 2
    assert "does not wait" in again.stderr
