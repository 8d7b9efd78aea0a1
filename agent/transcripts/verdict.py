"""Compare a reply of ours with the recorded one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.transcripts.model import RecordedCall
from agent.transcripts.views import STAND_IN, Unseen, was_listed

Verdict = Literal["exact", "prefix", "differs", "unverifiable"]
VERDICTS: tuple[Verdict, ...] = ("exact", "prefix", "differs", "unverifiable")

NO_RESULT = "no result was recorded"
UNSEEN_LINES = "the workspace can't be known: the reply shows lines that an earlier, cut call wrote"


@dataclass(frozen=True)
class Judgement:
    """The verdict on one reply, its reason (None when the replies agree), and our reply with readable stand-ins."""

    verdict: Verdict
    reason: str | None
    replayed: str
    executed: Mapping[str, Any] | None = None
    """What training again gave, where it was asked for."""


def compare(call: RecordedCall, ours: str, unseen: Unseen) -> Judgement:
    """Exact when equal; prefix when the recorded reply was cut and ours begins with it; otherwise they differ.

    Where ours has a stand-in for a line that the record has not shown so far, the recorded reply itself may fill it:
    without consequence if the prompt's listing had left it out, otherwise at the price of the verdict.
    """
    if call.recorded is None:
        return Judgement("unverifiable", NO_RESULT, readable(ours))
    filled, found = _fill(ours, call)
    agrees = filled.startswith(call.recorded) if call.recorded_cut else filled == call.recorded
    if not agrees:
        return Judgement("differs", difference(call.recorded, filled, cut=call.recorded_cut), readable(filled))
    unseen.learnt.update(found)
    if not all(map(was_listed, found)):
        return Judgement("unverifiable", UNSEEN_LINES, readable(filled))
    return Judgement("prefix" if call.recorded_cut else "exact", None, readable(filled))


def readable(text: str) -> str:
    """The text with words in place of stand-ins."""
    return STAND_IN.sub("<a line that the record does not show>", text)


def _fill(ours: str, call: RecordedCall) -> tuple[str, dict[str, str]]:
    recorded = (call.recorded or "").split("\n")
    filled = ours.split("\n")
    found = {}
    for index, line in enumerate(filled[: len(recorded)]):
        stand_in = STAND_IN.search(line)
        if stand_in is None or not recorded[index].startswith(line[: stand_in.start()]):
            continue
        filled[index] = recorded[index]
        if not (call.recorded_cut and index == len(recorded) - 1):  # how a cut line ends is still not known
            found[stand_in[0]] = recorded[index][stand_in.start() :]
    return "\n".join(filled), found


def difference(recorded: str, ours: str, *, cut: bool = False) -> str:
    """Where two unequal replies part, in words."""
    theirs, mine = recorded.split("\n"), ours.split("\n")
    for number, (one, other) in enumerate(zip(theirs, mine, strict=False), start=1):
        last = cut and number == len(theirs)
        if one != other and not (last and other.startswith(one)):
            return f"line {number} of the reply: recorded {one!r:.120}, ours {readable(other)!r:.120}"
    return f"the recorded reply has {len(theirs)} line(s){' before it was cut' if cut else ''}, ours {len(mine)}"
