"""Reading and writing conversations, and what is said about files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.transcripts import (
    Note,
    RecordedCall,
    Segment,
    Transcript,
    TranscriptError,
    load_transcript,
    parse_transcript,
    replay,
    write_atif,
    write_mls_bench,
)
from agent.transcripts.loading import MAX_BYTES
from agent.transcripts.views import parse_listings, parse_view
from sandbox.editing import Dialect
from sandbox.lines import EditableFile, Range
from tests.agent.transcript_samples import (
    DOUBLED,
    DOUBLED_REPLY,
    LISTING,
    REFUSED_REPLY,
    TWO_FILES,
    UNDONE_REPLY,
    call,
    conversation,
    edit,
    prompt,
    snapshot,
)

SAMPLE = conversation(
    prompt(),
    call(1, "edit", edit(1, 6, "x"), REFUSED_REPLY),
    [{"step": 2, "role": "assistant", "content": "I think.", "thinking": "Hm."}],
    [{"step": 2, "role": "user", "content": "RecordedCall a tool."}],
    call(3, "edit", {"error": "Expecting value"}, "ERROR: Failed to parse tool arguments: Expecting value"),
    prompt(),
    call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
    call(2, "undo", {"n": 1}, UNDONE_REPLY),
    call(3, "test", None, None),
    snapshots=[snapshot(1, "a\nb\n")],
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"\xef\xbb\xbf\xc2\xa0", "empty"),
        (b"\x89PNG\r\n\x1a\n\x00", "not text"),
        (b"hello", "not JSON"),
        (b'{"messages": [{"step": 0, "role": "us', "ends in the middle"),
        (b'{"messages": [', "ends in the middle"),
        (b"[]", "not an object"),
        (b'{"rows": []}', "another schema"),
        (b'{"messages": []}', "no message"),
        (b'{"messages": [7]}', "as in any chat log"),
        (b'{"task_id": "a", "messages": [7]}', "messages[0]"),
        (b'{"task_id": "a", "messages": [{"role": "wizard"}]}', "wizard"),
        (b'{"messages": [{"role": "user", "step": "one"}]}', "step"),
        (b'{"task_id": "a", "messages": [{"role": "user", "content": 7}]}', "content"),
        (b'{"schema_version": "ATIF-v1.8"}', "`steps`"),
        (b'{"schema_version": "ATIF-v1.8", "agent": {}, "steps": [{"step_id": 1, "source": "moon"}]}', "moon"),
        (b"[" * 100_000, "not a transcript: its JSON is nested too deeply"),
    ],
)
def test_what_is_no_transcript_is_said_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    """The message names the file and what is wrong with it, before anything is printed."""
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(TranscriptError) as caught:
        load_transcript(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_file_of_200_megabytes_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    """Its size alone is reason enough; nobody waits for it to be parsed."""
    path = tmp_path / f"large{suffix}"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    assert path.stat().st_size > MAX_BYTES
    with pytest.raises(TranscriptError, match="200,000,000 bytes"):
        load_transcript(path)


def test_a_missing_file(tmp_path: Path) -> None:
    """A mistyped name is named."""
    with pytest.raises(TranscriptError, match="no such file"):
        load_transcript(tmp_path / "nowhere.json")


def test_mls_bench_is_read_and_written_without_loss() -> None:
    """Every message comes back as it was, in order."""
    written = write_mls_bench(parse_transcript(SAMPLE))
    assert written["messages"] == SAMPLE["messages"]
    assert written["file_snapshots"] == SAMPLE["file_snapshots"]


def test_segments_calls_and_notes() -> None:
    """Calls without a tool are notes, and a segment knows its own calls only."""
    transcript = parse_transcript(SAMPLE)
    assert [len(list(segment.calls)) for segment in transcript.segments] == [2, 3]
    assert [(entry.role, entry.text) for entry in transcript.segments[0].entries if isinstance(entry, Note)] == [
        ("assistant", "I think."),
        ("user", "RecordedCall a tool."),
    ]
    assert [found.recorded is None for _, found in transcript.calls] == [False, False, False, False, True]


def test_atif_round_trip_replays_alike() -> None:
    """What replays in one format replays in the other, segments, snapshots and unparseable arguments included."""
    transcript = parse_transcript(SAMPLE)
    written = json.loads(json.dumps(write_atif(transcript, agent_name="a", agent_version="1")))
    again = parse_transcript(written)
    assert again.source == "atif"
    assert [v.as_event() for v in replay(again)] == [v.as_event() for v in replay(transcript)]
    assert again.snapshots == transcript.snapshots


def test_written_atif_is_valid() -> None:
    """The independent package `atif` accepts what we write."""
    atif = pytest.importorskip("atif", reason="the ATIF validator (pip install atif) is not installed")
    atif.Trajectory.model_validate(write_atif(parse_transcript(SAMPLE), agent_name="a", agent_version="1"))


def _own_run(model_called: bool = True) -> Transcript:
    """A run of our own: our dialect, a known workspace, no language model."""
    file = EditableFile("f.py", ["# top", "def initialize_weights(model, config):", "    pass", "# end"], [Range(2, 3)])
    head = "[Current file: f.py | editable: 2–3 | total: 4 lines]\n     1| # top\n"
    body = head + "     2  def initialize_weights(model, config):\n     3      {}\n     4| # end"
    done = "OK: Replaced lines 3..3 with 1 line(s) in f.py. Editable range: 2–3.\n\n" + body.format("return None")
    undone = "Undo complete:\nRestored: f.py\n\n" + body.format("pass")
    entries = [
        RecordedCall(
            1, "edit", edit(3, 3, "    return None", "f.py"), recorded=done, thinking="why", model_called=model_called
        ),
        RecordedCall(2, "undo", {"n": 1}, recorded=undone, model_called=model_called),
        RecordedCall(3, "rewrite", {"content": "x = 2"}, recorded=None, model_called=model_called),
    ]
    segment = Segment("Do it.", entries=tuple(entries), workspace=[file])
    return Transcript("run", "init", "m", (segment,), dialect=Dialect.OURS, budget=5, hidden_labels=frozenset({"h"}))


@pytest.mark.parametrize("form", ["atif", "mls-bench"])
def test_our_own_runs_survive_an_export(form: str) -> None:
    """Dialect, budget, hidden tasks and the starting workspace travel along in both formats."""
    own = _own_run()
    document: dict[str, Any] = (
        write_atif(own, agent_name="a", agent_version="1") if form == "atif" else write_mls_bench(own)
    )
    again = parse_transcript(json.loads(json.dumps(document)))
    assert (again.dialect, again.budget, again.hidden_labels) == (Dialect.OURS, 5, frozenset({"h"}))
    verdicts = [result.verdict for result in replay(again)]
    assert verdicts == [result.verdict for result in replay(own)] == ["exact", "exact", "unverifiable"]


def test_steps_without_a_language_model_say_so() -> None:
    """A deterministic proposer's steps have llm_call_count 0 and, as ATIF wants, no reasoning."""
    steps = write_atif(_own_run(model_called=False), agent_name="a", agent_version="1")["steps"]
    agent = [step for step in steps if step["source"] == "agent"]
    assert [step["llm_call_count"] for step in agent] == [0, 0, 0]
    assert not any("reasoning_content" in step for step in agent)


def test_foreign_atif_with_several_calls_in_a_step() -> None:
    """Results find their call by its id; without an id they follow the calls' order."""

    def tool(identity: str, arguments: object) -> dict[str, object]:
        return {"tool_call_id": identity, "function_name": "edit", "arguments": arguments}

    document = {
        "schema_version": "ATIF-v1.4",
        "session_id": "s",
        "agent": {"name": "x", "version": "1"},
        "steps": [
            {"step_id": 1, "source": "system", "message": "You edit."},
            {"step_id": 2, "source": "user", "message": [{"type": "text", "text": LISTING}]},
            {
                "step_id": 3,
                "source": "agent",
                "message": "Both at once.",
                "tool_calls": [tool("a", edit(1, 6, "x")), tool("b", edit(3, 4, DOUBLED))],
                "observation": {
                    "results": [
                        {"source_call_id": "b", "content": DOUBLED_REPLY},
                        {"source_call_id": "a", "content": REFUSED_REPLY},
                    ]
                },
            },
        ],
    }  # fmt: skip
    assert [result.verdict for result in replay(parse_transcript(document))] == ["exact", "exact"]


@pytest.mark.parametrize("own", [False, True])
def test_arguments_that_are_kept_as_json_in_a_text(own: bool) -> None:
    """As models write them, and many programs keep them. Each of these calls was said to differ."""
    kept = json.dumps(edit(3, 4, DOUBLED))
    document = conversation(prompt(), call(1, "edit", kept, DOUBLED_REPLY), call(2, "undo", "", UNDONE_REPLY))
    transcript = parse_transcript(document)
    if not own:
        written = write_atif(transcript, agent_name="a", agent_version="1")
        for step in written["steps"][1:]:
            step["tool_calls"][0]["arguments"] = json.dumps(step["tool_calls"][0]["arguments"])
        transcript = parse_transcript(written)
    assert [result.verdict for result in replay(transcript)] == ["exact", "exact"]


def test_listings_of_a_prompt() -> None:
    """Editable files only, with their ranges; baselines and read-only files stand under other headings."""
    one, two = parse_listings(TWO_FILES)
    assert (one.name, one.ranges, len(one.lines)) == ("lab/custom.py", (Range(2, 3), Range(5, 5)), 5)
    assert (two.name, two.lines[2], two.complete) == ("lab/config.yaml", "  class: Custom", True)
    assert [listing.name for listing in parse_listings(LISTING)] == ["lab/custom.py"]


def test_a_listed_line_may_look_like_anything() -> None:
    """Fences, numbers and headings inside a listed file are its lines."""
    text = (
        "## a.md [EDITABLE — lines 1–3 only]\n```\n     1: ```python\n     2:      9: x\n"
        "     3: ## b [EDITABLE — lines 1–1 only]\n```"
    )
    (listing,) = parse_listings(text)
    assert list(listing.lines.values()) == ["```python", "     9: x", "## b [EDITABLE — lines 1–1 only]"]


def test_view_of_a_reply() -> None:
    """The header's numbers, all ranges from the first line, and only whole lines of a cut reply."""
    found = parse_view(DOUBLED_REPLY)
    assert found is not None
    assert (found.name, found.shown, found.total, found.ranges) == ("lab/custom.py", Range(3, 5), 7, (Range(3, 5),))
    assert found.lines[4] == "    y = 2 * x"
    cut = parse_view(DOUBLED_REPLY[:-3], cut=True)
    assert cut is not None
    assert max(cut.lines) == 6
    assert parse_view(UNDONE_REPLY) is None
