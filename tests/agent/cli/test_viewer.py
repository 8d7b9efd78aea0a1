"""Stepping through a replay on a terminal, driven by Textual's own pilot and by a real pseudo-terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.transcripts import parse_transcript, replay
from tests.agent.conftest import Terminal
from tests.agent.transcript_samples import (
    DOUBLED,
    DOUBLED_REPLY,
    REFUSED_REPLY,
    UNDONE_REPLY,
    call,
    conversation,
    edit,
    prompt,
    write,
)

pytest.importorskip("textual", reason="the extra `viewer` is not installed")

from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from agent.cli.viewer import ReplayViewer, pages

DOCUMENT = conversation(
    prompt(),
    call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
    call(2, "undo", {"n": 1}, UNDONE_REPLY + " [bold]\x1b[2J"),
    call(3, "edit", edit(1, 6, "x"), REFUSED_REPLY),
)
DOCUMENT["messages"][1]["thinking"] = "Twice as much [red]is better[/red]."


def drive(script: Callable[[ReplayViewer, Pilot[None]], Awaitable[None]], document: dict[str, Any] = DOCUMENT) -> None:
    """Open the viewer without a terminal and let the pilot press keys."""

    async def run() -> None:
        again = replay(parse_transcript(document))
        app = ReplayViewer("toy", pages(again.transcript, list(again)))
        async with app.run_test(size=(100, 40)) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(run())


def text(app: ReplayViewer) -> str:
    """What the right side shows."""
    return str(app.query_one("#text", Static).content)


def test_next_previous_and_their_ends() -> None:
    """n and p move by one call and stop at the first and the last; the list follows."""

    async def script(app: ReplayViewer, pilot: Pilot[None]) -> None:
        assert text(app).startswith("0·1 edit: exact")
        await pilot.press("p")
        assert app.position == 0
        await pilot.press("n", "n")
        assert text(app).startswith("0·3 edit: exact")
        await pilot.press("right")
        assert app.position == app.query_one(OptionList).highlighted == 2
        await pilot.press("left")
        assert text(app).startswith("0·2 undo: differs")
        await pilot.press("down")
        assert app.position == 2

    drive(script)


def test_jump() -> None:
    """g asks for a number; one beyond the end means the last; nothing at all changes nothing."""

    async def script(app: ReplayViewer, pilot: Pilot[None]) -> None:
        await pilot.press("g", "3", "enter")
        assert app.position == 2
        await pilot.press("g", "9", "9", "enter")
        assert app.position == 2
        await pilot.press("g", "enter", "p")
        assert app.position == 1
        assert not app.query_one("#jump", Input).has_class("asked")

    drive(script)


def test_reasoning_and_diff() -> None:
    """r shows what the model thought, as text and not as markup; d what the call changed; again: the reply."""

    async def script(app: ReplayViewer, pilot: Pilot[None]) -> None:
        await pilot.press("r")
        assert "Twice as much [red]is better[/red]." in text(app)
        await pilot.press("d")
        assert "-    return x" in text(app)
        assert "+    y = 2 * x" in text(app)
        await pilot.press("n")
        assert "+    return x" in text(app)
        await pilot.press("n")
        assert text(app) == "Nothing changed."
        await pilot.press("d")
        assert "ERROR: Lines 1..6 exceed" in text(app)

    drive(script)


def test_difference_and_hostile_text() -> None:
    """A call that differs shows recorded against ours; escape sequences and markup are spelt, not obeyed."""

    async def script(app: ReplayViewer, pilot: Pilot[None]) -> None:
        await pilot.press("n")
        shown = text(app)
        assert "recorded reply against ours" in shown
        assert "-Restored: lab/custom.py [bold]\\x1b[2J" in shown
        assert "\x1b" not in shown

    drive(script)


@pytest.mark.parametrize(
    ("words", "installed", "opens"), [((), True, True), (("--plain",), True, False), ((), False, False)]
)
def test_on_a_real_terminal(
    terminal: Terminal, tmp_path: Path, words: tuple[str, ...], installed: bool, opens: bool
) -> None:
    """On a terminal `agent replay` opens the viewer, q ends it, and the exit code is that of the replay.

    With --plain, or where Textual is not installed, it prints.
    """
    path = write(tmp_path, DOCUMENT)
    missing = [] if installed else ["textual"]
    script = [("reasoning", "q")] if opens else []
    env = {"TERM": "xterm-256color"}
    seen, code = terminal("replay", str(path), *words, env=env, script=script, missing=missing)
    assert code == 3
    assert ("\x1b[?1049h" in seen) == opens  # the alternate screen
    assert "2 of 3 verifiable calls agree" in seen
    assert ("pip install 'initsearch[viewer]'" in seen) == (not installed)
