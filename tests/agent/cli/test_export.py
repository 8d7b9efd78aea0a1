"""A run in other forms, and an old conversation as proposer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.export import render
from agent.engine.search import SearchOutcome
from agent.errors import UsageError
from agent.proposers.transcript import calls_of
from agent.runs.directory import RunDirectory
from agent.runs.events import Launch, Proposal, ToolCalled, ToolReplied
from agent.runs.log import EventLog
from agent.transcripts import audit, parse_transcript, replay
from benchmark.results import region_sha256
from sandbox.region import scaffold
from tests.agent.conftest import Agent, json_lines

RECORDED = (
    Path(__file__).resolve().parents[3] / "../shared/transcripts/dl-weight-initialization__deepseek-reasoner.json"
)


@pytest.mark.parametrize("form", ["atif", "mls-bench"])
def test_exported_conversation_replays_like_the_run(
    agent: Agent, finished: SearchOutcome, tmp_path: Path, form: str
) -> None:
    """`agent export RUN --format …` gives a file that `agent replay` and `agent audit` read with the same verdicts."""
    file = tmp_path / "conversation.json"
    assert agent("export", str(finished.run), "--format", form, "-o", str(file)).returncode == 0
    ours = json_lines(agent("replay", str(finished.run), "--json").stdout)[-1]
    theirs = agent("replay", str(file), "--json")
    assert theirs.returncode == 0
    assert json_lines(theirs.stdout)[-1] == ours
    assert agent("audit", str(file)).returncode == 0


def test_deterministic_steps_called_no_model(agent: Agent, finished: SearchOutcome) -> None:
    """In ATIF, every step that Optuna took has llm_call_count 0."""
    document = json.loads(agent("export", str(finished.run)).stdout)
    counts = {step["llm_call_count"] for step in document["steps"] if step["source"] == "agent"}
    assert counts == {0}


def test_exported_atif_is_valid(finished: SearchOutcome) -> None:
    """The independent package `atif` accepts the trajectory of a real run."""
    atif = pytest.importorskip("atif", reason="the ATIF validator (pip install atif) is not installed")
    atif.Trajectory.model_validate_json(render(RunDirectory(finished.run), "atif"))


def _models_run(folder: Path) -> Path:
    """The log of a model that talks without a call, is told so, edits, and at last only talks again."""

    def said(text: str, thought: str, sent: list[str]) -> Proposal:
        message = {"content": text, "reasoning": thought, "reasoning_field": "reasoning_content", "tool_calls": []}
        return Proposal(proposer="llm", content={"sent": sent, "message": message})

    launch = Launch(
        config={"budget": 2, "model": "m"},
        profile="smoke",
        environment={},
        isolation_level="landlock",
        scaffold=scaffold().text,
    )
    with EventLog(folder / "events.jsonl") as log:
        for event in (
            launch,
            said("Hello.", "What is this?", ["You are a researcher.", "# Task"]),
            said("I look.", "Now a tool.", ["Your answer held no tool call."]),
            ToolCalled(step=1, tool="dance", arguments={}),
            ToolReplied(
                step=1,
                ok=False,
                error="unknown_tool",
                reply="ERROR: Unknown tool 'dance'",
                region_sha256=region_sha256(scaffold().region),
            ),
            said("That is all.", "Enough.", []),
            Proposal(proposer="llm", content={"end": {"status": "format", "message": "No more."}}),
        ):
            log.append(event)
    return folder


@pytest.mark.parametrize("form", ["atif", "mls-bench"])
def test_model_that_only_talked_is_exported_whole(tmp_path: Path, form: str) -> None:
    """Prompt, what it was told in between, reasoning, and the last words after the last call: all are there."""
    text = render(RunDirectory(_models_run(tmp_path)), form)
    for part in ("You are a researcher.", "# Task", "Your answer held no tool call", "What is this?", "Now a tool."):
        assert text.count(part) == 1
    assert text.index("Your answer held") < text.index("dance") < text.index("That is all.")
    assert "Enough." in text
    if form == "atif":
        atif = pytest.importorskip("atif", reason="the ATIF validator (pip install atif) is not installed")
        atif.Trajectory.model_validate_json(text)
        counts = [step["llm_call_count"] for step in json.loads(text)["steps"] if step["source"] == "agent"]
        assert counts == [1, 1]
    again = parse_transcript(json.loads(text))
    assert len(again.segments) == 1
    assert [verdict.verdict for verdict in replay(again)] == ["exact"]
    assert audit(again).leaks == ()


def test_patch_and_module_are_the_files_of_the_run(agent: Agent, finished: SearchOutcome) -> None:
    """What was submitted can be piped."""
    assert agent("export", str(finished.run), "--format", "patch").stdout == (
        finished.run / "submission.patch"
    ).read_text(encoding="utf-8")
    assert agent("export", str(finished.run), "--format", "module").stdout == (
        finished.run / "initialize_weights.py"
    ).read_text(encoding="utf-8")


def test_unknown_format_is_a_usage_error(agent: Agent, finished: SearchOutcome) -> None:
    """`--format atfi` suggests what was meant."""
    result = agent("export", str(finished.run), "--format", "atfi")
    assert result.returncode == 2
    assert "did you mean 'atif'" in result.stderr


def test_recorded_run_of_our_task_becomes_its_five_regions_and_two_tests() -> None:
    """The published conversation, five strategies with two undos, in our own tools' words."""
    if not RECORDED.exists():
        pytest.skip(f"the recorded conversation is not here: {RECORDED}")
    calls = calls_of(str(RECORDED))
    regions = [str(call.arguments["content"]) for call in calls if call.tool == "rewrite"]
    names = ("(RAVS)", "(DARS)", "Fixup++", "(DAVS)", "(RBB)")
    written = [name for region in regions for name in names if name in region]
    assert written == ["(RAVS)", "(DARS)", "Fixup++", "(DARS)", "(DAVS)", "(RBB)"]  # the second undo is a rewrite too
    assert sum(call.tool == "test" for call in calls) == 2


def test_a_runs_own_log_can_propose_again(finished: SearchOutcome) -> None:
    """`--proposer transcript:RUN/events.jsonl` makes the same edits, tests and submission."""
    tools = [call.tool for call in calls_of(str(finished.run / "events.jsonl"))]
    assert tools == ["rewrite", "test", "rewrite", "test", "submit"]


def test_conversation_about_something_else_is_refused(tmp_path: Path) -> None:
    """A file that never edits the function is a usage error before anything starts."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"task_id": "x", "messages": [{"step": 0, "role": "user", "content": "hello"}]}))
    with pytest.raises(UsageError, match="initialize_weights"):
        calls_of(str(other))
