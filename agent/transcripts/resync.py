"""Take the state of a file from a snapshot or a view, and restore what a cut call wrote.

A snapshot does not say of which segment it is. It is believed only where it agrees with everything that this segment
shows at that step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent.transcripts.model import CUT_MARK, RecordedCall, Snapshot
from agent.transcripts.views import Unseen, View, is_unseen
from sandbox.lines import EditableFile, Range, split_lines


def restore_content(call: RecordedCall, file: EditableFile, snapshots: Iterable[Snapshot]) -> str | None:
    """The whole text that a cut edit of `file` wrote, from a snapshot of its step; None when none fits.

    The snapshot must be the file as it was, with other lines in the edited place, and these must begin with what the
    record kept of the call.
    """
    place = edited_lines(call.arguments)
    if place is None:
        return None
    first, last = place
    kept = str(call.arguments["content"]).removesuffix(CUT_MARK)
    head, tail = file.lines[: first - 1], file.lines[last:]
    for whole in _candidates(call, file.name, snapshots):
        written = whole[len(head) : len(whole) - len(tail)]
        fits = len(whole) >= len(head) + len(tail) and _alike(head, whole[: len(head)])
        if fits and _alike(tail, whole[len(whole) - len(tail) :]) and _text(written).startswith(kept):
            return "\n".join(written)
    return None


def learn_from_snapshots(call: RecordedCall, file: EditableFile, snapshots: Iterable[Snapshot], unseen: Unseen) -> None:
    """Learn lines that were never shown from a snapshot of this step that agrees with all the others."""
    if not any(map(is_unseen, file.lines)):
        return
    for whole in _candidates(call, file.name, snapshots):
        if len(whole) == len(file.lines) and _alike(file.lines, whole):
            unseen.learnt.update(
                (known, true) for known, true in zip(file.lines, whole, strict=True) if is_unseen(known)
            )
            return


def as_seen(
    call: RecordedCall, view: View, file: EditableFile | None, snapshots: Iterable[Snapshot], unseen: Unseen
) -> EditableFile | None:
    """The file as a reply's view shows it; None when the view is too poor to tell.

    Lines outside of the view come from a snapshot that agrees with it, otherwise from `file`, the state that we had,
    as far as its layout is the same; what then is left is unseen.
    """
    ranges = _ranges(view, file)
    lines = next((whole for whole in _candidates(call, view.name, snapshots) if _agrees(whole, view)), None)
    if lines is None:
        carried = _carry_over(file, ranges, view.total) if file is not None else {}
        carried.update(view.lines)
        lines = [
            carried[number] if number in carried else unseen.line(listed=False) for number in range(1, view.total + 1)
        ]
    try:
        return EditableFile(view.name, lines, ranges)
    except ValueError:
        return None


def content_in_part(call: RecordedCall, file: EditableFile, view: View | None, unseen: Unseen) -> str:
    """What a cut edit of `file` wrote as far as it was kept; unseen lines fill it up to the length a view tells."""
    kept = str(call.arguments["content"]).removesuffix(CUT_MARK).split("\n")[:-1]
    place = edited_lines(call.arguments)
    missing = 1
    if place is not None and view is not None:
        first, last = place
        missing = min(view.total - (len(file.lines) - (last - first + 1)) - len(kept), view.total)
    return _text([*kept, *(unseen.line(listed=False) for _ in range(missing))])


def edited_lines(arguments: Mapping[str, object]) -> tuple[int, int] | None:
    """First and last line that an edit replaces; for an insertion the last one is before the first."""
    if arguments.get("op") == "insert":
        after = _whole(arguments.get("after_line"))
        return None if after is None else (after + 1, after)
    first, last = (_whole(arguments.get(key)) for key in ("start_line", "end_line"))
    return None if first is None or last is None or not 1 <= first <= last + 1 else (first, last)


def _whole(value: object) -> int | None:
    """Line numbers as the editing machine reads them: 12, 12.0 and "12"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        return int(number) if number.is_integer() else None
    except (ValueError, OverflowError):
        return None


def _candidates(call: RecordedCall, name: str, snapshots: Iterable[Snapshot]) -> Iterator[list[str]]:
    return (split_lines(item.content) for item in snapshots if item.step == call.step and item.is_of(name))


def _alike(known: Sequence[str], true: Sequence[str]) -> bool:
    return len(known) == len(true) and all(is_unseen(a) or a == b for a, b in zip(known, true, strict=True))


def _agrees(whole: Sequence[str], view: View) -> bool:
    shown = view.lines.items()
    return len(whole) == view.total and all(
        number <= len(whole) and whole[number - 1] == text for number, text in shown
    )


def _ranges(view: View, file: EditableFile | None) -> list[Range]:
    if view.ranges is not None:
        return list(view.ranges)
    if view.shown is None:
        return []
    if file is None or not file.ranges:
        return [view.shown]
    shift = view.shown.end - file.ranges[0].end
    return [view.shown, *(Range(r.start + shift, r.end + shift) for r in file.ranges[1:])]


def _carry_over(file: EditableFile, ranges: Sequence[Range], total: int) -> dict[int, str]:
    """Number → line for the fixed lines, and for the ranges whose length is the same as before."""
    if len(file.ranges) != len(ranges):
        return {}
    carried: dict[int, str] = {}

    def carry(old: int, new: int, count: int) -> None:
        for offset in range(count):
            if 1 <= old + offset <= len(file.lines) and 1 <= new + offset <= total:
                carried[new + offset] = file.lines[old + offset - 1]

    old_end = new_end = 0
    for old, new in zip(file.ranges, ranges, strict=True):
        carry(old_end + 1, new_end + 1, min(old.start - old_end, new.start - new_end) - 1)
        if old.end - old.start == new.end - new.start:
            carry(old.start, new.start, old.end - old.start + 1)
        old_end, new_end = old.end, new.end
    carry(old_end + 1, new_end + 1, min(len(file.lines) - old_end, total - new_end))
    return carried


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
