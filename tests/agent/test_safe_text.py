"""Nothing that a run's files hold reaches a person's screen as a control character."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.live_table import LiveProgress
from agent.cli.output import write_data
from agent.progress import PlainProgress
from agent.safe_text import SafeStream, guard_output, json_line, safe_console, spelt
from tests.agent.conftest import Agent, json_lines

HOSTILE = "\x1b[2Jok\u202e\x9b31m\x07"
RAW = set("\x1b\u202e\x9b\x07\x7f\x08\r")


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_spelling_is_final_and_changes_no_json(text: str) -> None:
    """Half surrogate pairs made `--json` end in a traceback, and a terminal obeyed U+009B in it."""
    once = spelt(text)
    assert spelt(once) == once
    once.encode()
    line = json_line({text: [text]})
    assert json.loads(line) == {text: [text]}
    assert spelt(line) == line
    line.encode()


def test_scripts_emoji_and_spaces_stay() -> None:
    """Only what cannot be seen is spelt out."""
    text = "Ünï 日本語 नमस्ते می‌خواهم 👩‍🔬 a\u00a0b\n\tx"
    assert spelt(text) == text
    assert spelt("\x1b\u2028\U000e0001\ud800") == "\\x1b\\u2028\\U000e0001\\ud800"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one run whose name, status and messages would steer a terminal."""
    folder = tmp_path / "runs" / "20260101-000000-\x1b[2J\u202e-abcd"
    folder.mkdir(parents=True)
    summary = {"schema": 1, "status": HOSTILE, "profile": HOSTILE, "reason": HOSTILE, "words": [HOSTILE], "budget": 1}
    (folder / "run.json").write_text(json.dumps({**summary, "message": HOSTILE, "isolation_level": HOSTILE}))
    (folder / "submission.patch").write_text(f"+ {HOSTILE}\n")
    return folder.parent


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "abcd"), 0),
        (("show", "abcd", "--json"), 0),
        (("runs",), 0),
        (("runs", "--json"), 0),
        (("show", "no\x1b[2J\u202esuch"), 2),
        (("audit", "abcd"), 2),
        (("show", "damaged"), 1),
        (("runs", "--nothing\x1b[2J"), 2),
    ],
    ids=["show", "show --json", "runs", "runs --json", "no such run", "audit", "damaged", "usage"],
)
def test_a_hostile_run_cannot_steer_the_terminal(agent: Agent, runs: Path, words: tuple[str, ...], code: int) -> None:
    """A status cleared the screen and turned the writing direction; an error repeated a folder's name as it was."""
    if "damaged" in words:
        (runs / "damaged\x1b[2J").mkdir()
        (runs / "damaged\x1b[2J" / "run.json").write_text("{")
    done = agent(*words)
    assert done.returncode == code, done.stderr
    assert not RAW & set(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
    assert "\\x1b[2J" in done.stdout + done.stderr or "\\u001b[2J" in done.stdout
    if words == ("show", "abcd", "--json"):
        assert json_lines(done.stdout)[0]["status"] == HOSTILE


def test_exported_text_reaches_a_program_unchanged(agent: Agent, runs: Path) -> None:
    """`agent export --format patch > FILE` must give `git am` the bytes that were reviewed."""
    assert agent("export", "abcd", "--format", "patch").stdout == f"+ {HOSTILE}\n"


def test_progress_spells_messages_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A candidate's message reaches a person while the search runs, on a terminal and in a log."""
    PlainProgress().message(HOSTILE)
    live = LiveProgress(safe_console(stderr=True, force_terminal=False))
    live.message(HOSTILE)
    live.close()
    shown = capsys.readouterr().err
    assert not RAW & set(shown)
    assert shown.count("\\x1b[2Jok\\u202e") == 2


def test_a_console_shows_its_own_colours_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strings, texts and cells of tables are spelt out, also where stdout is guarded; styles stay."""
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    guard_output()
    assert isinstance(sys.stdout, SafeStream)
    console = safe_console(force_terminal=True, color_system="standard", width=60)
    table = Table(title=HOSTILE)
    table.add_row(HOSTILE, Text(HOSTILE))
    console.print(HOSTILE, Text(HOSTILE), table, style="red")
    print(HOSTILE)
    shown = stream.getvalue()
    assert "\x1b[31m" in shown
    assert "\x1b[2J" not in shown
    assert not RAW - {"\x1b"} & set(shown)


def test_a_terminal_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """With LANG=en_US (Latin-1) `agent show` and `agent review` ended in a traceback at the first minus sign."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    guard_output()
    print("−27.1 … +43.1 é 日 \x1b", flush=True)
    assert written.getvalue() == "-27.1 ... +43.1 é \\u65e5 \\x1b\n".encode("latin-1")
    assert json_line({"word": "−日"}) == '{"word": "\\u2212\\u65e5"}'
    written.truncate(0)
    written.seek(0)
    write_data("−日\n")
    assert written.getvalue() == "−日\n".encode()
