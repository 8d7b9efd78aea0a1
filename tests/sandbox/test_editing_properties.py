"""Whatever is edited and undone in whatever order: the fixed lines stay, and undo is the inverse of edit."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.editing import Dialect, Editor
from sandbox.lines import EditableFile, Range

NAME = "pkg/file.py"

_contents = st.one_of(st.sampled_from(["", "\n", "a", "a\n", "a\n\nb\n", "\r\n\tb\r"]), st.text(max_size=12))
_numbers = st.one_of(st.integers(-1, 14), st.sampled_from(["5", 6.0, True, None, "x"]))
_edits = st.fixed_dictionaries(
    {"op": st.sampled_from(["replace", "insert", "create", "no"]), "content": _contents},
    optional={"start_line": _numbers, "end_line": _numbers, "after_line": _numbers},
)
_calls = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), _edits),
        st.tuples(st.just("undo"), st.integers(0, 3)),
        st.tuples(st.just("rewrite"), _contents),
    ),
    max_size=25,
)


def _file(ranges: list[Range]) -> EditableFile:
    return EditableFile(NAME, [f"fixed {n}" for n in range(1, 11)], ranges)


def _fixed(file: EditableFile) -> list[str]:
    inside = {n for r in file.ranges for n in range(r.start, r.end + 1)}
    return [line for n, line in enumerate(file.lines, 1) if n not in inside]


def _carry_out(machine: Editor, call: tuple[str, Any]) -> bool:
    tool, argument = call
    if tool == "edit":
        return machine.edit({"filename": NAME, **argument}).ok
    return (machine.undo(argument) if tool == "undo" else machine.rewrite(argument)).ok


@settings(max_examples=200, deadline=None)
@given(calls=_calls, ranges=st.sampled_from([[Range(4, 7)], [Range(1, 10)], [Range(3, 2)], [Range(2, 3), Range(6, 6)]]))
def test_fixed_lines_never_change(calls: list[tuple[str, Any]], ranges: list[Range]) -> None:
    """Before, between and after the editable ranges every line stays as it was, in its order."""
    machine = Editor.of(_file(ranges))
    fixed = _fixed(machine.files[NAME])
    for call in calls:
        _carry_out(machine, call)
        file = machine.files[NAME]
        assert _fixed(file) == fixed
        EditableFile(NAME, file.lines, file.ranges)  # Raises if the ranges are out of order.


@settings(max_examples=200, deadline=None)
@given(calls=_calls)
def test_undo_is_the_inverse_of_edit(calls: list[tuple[str, Any]]) -> None:
    """A stack of former texts, kept beside the machine, always says what undo must restore."""
    machine = Editor.of(_file([Range(4, 7)]))
    former: list[str] = []
    for call in calls:
        before = machine.files[NAME].text
        accepted = _carry_out(machine, call)
        if call[0] != "undo":
            former += [before] * accepted
        elif accepted:
            taken = min(call[1], len(former))
            before = former[-taken]
            del former[-taken:]
            assert machine.files[NAME].text == before
        assert machine.files[NAME].text == before or (accepted and call[0] != "undo")
        assert machine.undo_depth == len(former)
    if former:
        machine.undo(len(former))
        assert machine.files[NAME].text == former[0]


@settings(max_examples=100, deadline=None)
@given(calls=_calls, dialect=st.sampled_from(Dialect))
def test_the_view_shows_the_file_as_it_is(calls: list[tuple[str, Any]], dialect: Dialect) -> None:
    """Each numbered line of the view is that line of the file, marked `|` exactly when it is fixed."""
    machine = Editor.of(_file([Range(4, 7)]), dialect=dialect)
    for call in calls:
        if dialect is Dialect.OURS or call[0] != "rewrite":
            _carry_out(machine, call)
    file = machine.files[NAME]
    if not file.ranges:
        return
    editable = file.ranges[0]
    shown = range(max(1, editable.start - 3), min(len(file.lines), editable.end + 3) + 1)
    expected = [f"{n:6d}{' ' if editable.start <= n <= editable.end else '|'} {file.lines[n - 1]}" for n in shown]
    assert machine.view().text.split("\n", 1)[1] == "\n".join(expected)
    assert machine.view().text.startswith(f"[Current file: {NAME} | editable: {editable.start}–{editable.end}")
    assert f"total: {len(file.lines)} lines]" in machine.view().text
