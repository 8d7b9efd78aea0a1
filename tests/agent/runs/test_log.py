"""The event log: durable, chained, and a tape for resuming."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.errors import RunDamaged
from agent.runs.events import Launch, TestStarted, ToolCalled
from agent.runs.log import EventLog, read_events


def _call(step: int) -> ToolCalled:
    return ToolCalled(step=step, tool="edit", arguments={"content": f"line {step} – ✓\u2028\n"})


def _write(path: Path, count: int) -> None:
    with EventLog(path) as log:
        for step in range(count):
            log.append(_call(step))


def test_records_come_back_in_order_and_chained(tmp_path: Path) -> None:
    """What was appended is read back, numbered, each naming the hash of the one before."""
    path = tmp_path / "events.jsonl"
    _write(path, 3)
    records = read_events(path)
    assert [record.event for record in records] == [_call(0), _call(1), _call(2)]
    assert [record.seq for record in records] == [0, 1, 2]
    assert records[2].previous == hashlib.sha256(path.read_bytes().split(b"\n")[1]).hexdigest()


def test_line_has_the_documented_keys(tmp_path: Path) -> None:
    """A line shows seq, ts, schema and kind at its top level, next to the event's own fields."""
    path = tmp_path / "events.jsonl"
    _write(path, 1)
    fields = json.loads(path.read_text(encoding="utf-8"))
    assert (fields["seq"], fields["schema"], fields["kind"], fields["tool"]) == (0, 1, "tool_called", "edit")
    assert fields["ts"] > 1.7e9


def test_halt_is_passed_over_on_resume(tmp_path: Path) -> None:
    """A search that was stopped twice goes on from the same decision both times."""
    path = tmp_path / "events.jsonl"
    _write(path, 2)
    for _ in range(2):
        with EventLog(path) as log:
            log.append(_call(0))
            log.halt("signal 15")
    with EventLog(path) as log:
        for step in range(3):
            assert log.replaying == (step < 2)
            log.append(_call(step))
    assert [record.event.kind for record in read_events(path)] == ["tool_called"] * 2 + ["halted"] * 2 + ["tool_called"]


@pytest.mark.parametrize("torn", [b"{", b'{"seq": 3, "ts"', b"\x00\x00\x00"])
def test_torn_last_line_is_cut_on_open(tmp_path: Path, torn: bytes) -> None:
    """A process killed while writing leaves half a line; the next one goes on as if it had not begun it."""
    path = tmp_path / "events.jsonl"
    _write(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with EventLog(path) as log:
        for step in range(3):
            log.append(_call(step))
        assert not log.replaying
        log.append(_call(3))
    assert path.read_bytes().startswith(whole)
    assert [record.seq for record in read_events(path)] == [0, 1, 2, 3]


def test_tape_compares_what_happens_again(tmp_path: Path) -> None:
    """A resumed program that takes another decision than the log says is stopped at that event."""
    path = tmp_path / "events.jsonl"
    _write(path, 2)
    with EventLog(path) as log:
        log.append(_call(0))
        with pytest.raises(RunDamaged, match="was tool_called and is now test_started; the run cannot be resumed"):
            log.append(TestStarted(number=1, region_sha256="x"))
    assert len(read_events(path)) == 2


def test_tape_names_what_differs(tmp_path: Path) -> None:
    """A run that went from one isolation to another answered with two copies of the whole scaffold, 20 kB of them."""
    path = tmp_path / "events.jsonl"
    fields: dict[str, Any] = {"config": {}, "profile": "smoke", "environment": {}, "scaffold": "x" * 10_000}
    with EventLog(path) as log:
        log.append(Launch(**fields, isolation_level="bubblewrap"))
    with EventLog(path) as log, pytest.raises(RunDamaged, match="isolation_level was 'bubblewrap', now 'lan") as told:
        log.append(Launch(**fields, isolation_level="landlock"))
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize("line", [0, 1, 2])
def test_edited_line_breaks_the_chain(tmp_path: Path, line: int) -> None:
    """Nobody can change a recorded event without being noticed, but for the very last one."""
    path = tmp_path / "events.jsonl"
    _write(path, 4)
    lines = path.read_bytes().split(b"\n")
    lines[line] = lines[line].replace(b'"step": ', b'"step":')
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RunDamaged, match=f"line {line + 2}"):
        read_events(path)


def test_removed_line_breaks_the_chain(tmp_path: Path) -> None:
    """A record taken out of the middle is missed."""
    path = tmp_path / "events.jsonl"
    _write(path, 4)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:1] + lines[2:]))
    with pytest.raises(RunDamaged, match="does not follow"):
        read_events(path)


def test_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """On a full disk `append` raises OSError, and what was written before is intact."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    path = tmp_path / "events.jsonl"
    _write(path, 2)
    with EventLog(path) as log:
        for step in range(2):
            log.append(_call(step))
        os.close(log._descriptor)
        log._descriptor = os.open(full, os.O_WRONLY)
        with pytest.raises(OSError, match="space"):
            log.append(_call(2))
    assert len(read_events(path)) == 2
