"""Steps through a replay on a terminal: one call at a time, with its reply, its reasoning and its changes.

Needs the extra `viewer` (Textual). Recorded text is never read as markup or control characters.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Input, OptionList, Static

from agent.safe_text import spelt
from agent.transcripts.model import Transcript
from agent.transcripts.replay import CallVerdict, SegmentReplay

Side = Literal["reply", "reasoning", "diff"]
_COLOURS = {"exact": "green", "prefix": "green", "differs": "red", "unverifiable": "yellow"}


@dataclass(frozen=True)
class Page:
    """The texts of one call."""

    label: str
    verdict: str
    reply: Text
    reasoning: Text
    diff: Text


def pages(transcript: Transcript, verdicts: Sequence[CallVerdict]) -> list[Page]:
    """A page for each call of a replay."""
    made: list[Page] = []
    before: tuple[str, ...] = ()
    segment = -1
    for verdict in verdicts:
        if verdict.segment != segment:
            segment = verdict.segment
            before = SegmentReplay(transcript.segments[segment], transcript).regions()
        made.append(_page(verdict, before))
        before = verdict.regions
    return made


def _page(verdict: CallVerdict, before: Sequence[str]) -> Page:
    call = verdict.call
    label = f"{verdict.segment}·{call.step} {call.tool}"
    reply = Text()
    reply.append(spelt(f"{label}: {verdict.verdict}\n"), style=f"bold {_COLOURS[verdict.verdict]}")
    if verdict.reason:
        reply.append(spelt(f"{verdict.reason}\n"))
    reply.append("\ncalled with\n", style="bold")
    for name, value in call.arguments.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        reply.append(spelt(f"{name}: {shown}\n" if "\n" not in shown else f"{name}:\n{shown}\n"))
    if call.parse_error is not None:
        reply.append(spelt(f"not readable as arguments: {call.parse_error}\n"))
    if verdict.verdict == "differs":
        reply.append("\nrecorded reply against ours\n", style="bold")
        reply.append(_coloured(call.recorded or "", verdict.replayed, "recorded", "ours"))
    else:
        reply.append("\nrecorded reply\n", style="bold")
        reply.append(spelt(call.recorded if call.recorded is not None else "(none)"))
    reasoning = Text(spelt("\n\n".join(filter(None, (call.thinking, call.said)))) or "No reasoning was recorded.")
    changed = _coloured("\n".join(before), "\n".join(verdict.regions), "before", "after")
    return Page(label, verdict.verdict, reply, reasoning, changed if changed.plain else Text("Nothing changed."))


def _coloured(before: str, after: str, first: str, second: str) -> Text:
    text = Text()
    for line in difflib.unified_diff(before.split("\n"), after.split("\n"), first, second, lineterm=""):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        text.append(spelt(line) + "\n", style=style)
    return text


class ReplayViewer(App[None]):
    """Shows the list of calls on the left and one call on the right."""

    CSS = """
    OptionList { width: 34; }
    #page { width: 1fr; padding: 0 1; }
    #jump { display: none; dock: bottom; }
    #jump.asked { display: block; }
    """
    AUTO_FOCUS = "OptionList"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("n,right", "step(1)", "next"),
        ("p,left", "step(-1)", "previous"),
        ("g", "jump", "jump to"),
        ("r", "turn('reasoning')", "reasoning"),
        ("d", "turn('diff')", "diff"),
        ("q", "quit", "quit"),
    ]

    def __init__(self, title: str, shown: Sequence[Page]) -> None:
        super().__init__()
        self.title = title
        self.pages = shown
        self.position = 0
        self.side: Side = "reply"

    def compose(self) -> ComposeResult:
        """The widgets: calls, page, input for a jump, keys."""
        with Horizontal():
            yield OptionList(*(self._entry(number, page) for number, page in enumerate(self.pages, 1)), markup=False)
            with VerticalScroll(id="page"):
                yield Static(id="text", markup=False)
        yield Input(id="jump", placeholder=f"number of a call, 1 to {len(self.pages)}", type="integer")
        yield Footer()

    def on_mount(self) -> None:
        """Begin at the first call."""
        self.show(0)

    def show(self, position: int) -> None:
        """Show the call at `position`, or the nearest one."""
        self.position = max(0, min(position, len(self.pages) - 1))
        page = self.pages[self.position]
        self.query_one("#text", Static).update(getattr(page, self.side))
        self.query_one("#page").scroll_home(animate=False)
        self.query_one(OptionList).highlighted = self.position

    def action_step(self, by: int) -> None:
        """Go to the next or the previous call."""
        self.show(self.position + by)

    def action_turn(self, side: Side) -> None:
        """Show another side of this call. The same key again shows the reply."""
        self.side = "reply" if self.side == side else side
        self.show(self.position)

    def action_jump(self) -> None:
        """Ask for a number."""
        field = self.query_one("#jump", Input)
        field.add_class("asked")
        field.value = ""
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to the call of this number. Ignore other input."""
        event.input.remove_class("asked")
        self.query_one(OptionList).focus()
        if event.value.strip().isdecimal():
            self.show(int(event.value) - 1)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Follow the list's keys and the mouse. Ignore late events about a position before our own move."""
        if event.option_index == event.option_list.highlighted != self.position:
            self.show(event.option_index)

    @staticmethod
    def _entry(number: int, page: Page) -> Text:
        return Text.assemble(spelt(f"{number:>4} {page.label:<16} "), (page.verdict, _COLOURS[page.verdict]))
