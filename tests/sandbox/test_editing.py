"""The editing machine: its messages and what it refuses."""

from __future__ import annotations

import pytest

from sandbox.editing import (
    MAX_EDIT_BYTES,
    Dialect,
    Editor,
    Reply,
    invalid_arguments,
    unknown_tool,
    unparseable_arguments,
)
from sandbox.lines import EditableFile, Range, split_lines

NAME = "pkg/strategy.py"
YAML = "pkg/config.yaml"


def editor(dialect: Dialect = Dialect.OURS, lines: int = 12, *ranges: tuple[int, int]) -> Editor:
    """A file of numbered lines; lines 5 to 8 are editable unless `ranges` says otherwise."""
    editable = [Range(first, last) for first, last in ranges or ((5, 8),)]
    return Editor.of(EditableFile(NAME, [f"line {n}" for n in range(1, lines + 1)], editable), dialect=dialect)


def replace(machine: Editor, first: object, last: object, content: object = "x = 1") -> Reply:
    return machine.edit({"op": "replace", "filename": NAME, "start_line": first, "end_line": last, "content": content})


def insert(machine: Editor, after: object, content: object = "x = 1") -> Reply:
    return machine.edit({"op": "insert", "filename": NAME, "after_line": after, "content": content})


def test_a_replacement_is_confirmed_and_the_file_shown() -> None:
    """A model sees what it did, the new range, and the region with three fixed lines on either side."""
    reply = replace(editor(), 6, 7, "a\n\n\tb\n")
    assert reply.ok
    assert reply.kind is None
    assert reply.text == (
        "OK: Replaced lines 6..7 with 3 line(s) in pkg/strategy.py. Editable range: 5–9.\n"
        "\n"
        "[Current file: pkg/strategy.py | editable: 5–9 | total: 13 lines]\n"
        "     2| line 2\n"
        "     3| line 3\n"
        "     4| line 4\n"
        "     5  line 5\n"
        "     6  a\n"
        "     7  \n"
        "     8  \tb\n"
        "     9  line 8\n"
        "    10| line 9\n"
        "    11| line 10\n"
        "    12| line 11"
    )


def test_an_insertion_names_the_line_before_it() -> None:
    """Inserting says after which line; arguments that insert doesn't need are ignored."""
    machine = editor()
    reply = machine.edit(
        {"op": "insert", "filename": NAME, "after_line": 6, "start_line": 1, "end_line": 99, "content": "a\nb"}
    )
    assert reply.text.startswith(
        "OK: Inserted 2 line(s) after line 6 in pkg/strategy.py. Editable range: 5–10.\n\n[Current file: "
    )
    assert machine.files[NAME].lines[4:10] == ["line 5", "line 6", "a", "b", "line 7", "line 8"]


@pytest.mark.parametrize(("first", "last"), [(4, 5), (8, 9), (1, 12), (0, 5), (-3, 6), (9, 9)])
def test_an_edit_outside_the_range_is_refused_and_shows_the_file(first: int, last: int) -> None:
    machine = editor()
    before = list(machine.files[NAME].lines)
    reply = replace(machine, first, last)
    assert not reply.ok
    assert reply.kind == "outside_region"
    assert reply.text == (
        f"ERROR: Lines {first}..{last} exceed the editable range. You may only edit lines 5–8.\n\n{machine.view().text}"
    )
    assert machine.files[NAME].lines == before
    assert machine.undo_depth == 0


@pytest.mark.parametrize("after", [3, 9, 0, 99])
def test_an_insertion_outside_the_range_is_refused(after: int) -> None:
    reply = insert(editor(), after)
    assert reply.kind == "outside_region"
    assert reply.text.startswith(
        f"ERROR: Cannot insert after line {after} — target is outside the editable range. "
        "You may only edit lines 5–8.\n\n[Current file: "
    )


def test_several_ranges_are_listed_and_later_ones_shift() -> None:
    """A YAML file with two editable ranges: the second edit's numbers are those after the first."""
    machine = editor(Dialect.RECORDED, 30, (3, 5), (10, 14), (20, 20))
    assert replace(machine, 10, 12).text.startswith(
        "OK: Replaced lines 10..12 with 1 line(s) in pkg/strategy.py. Editable range: 3–5, 10–12, 18–18.\n\n"
        "[Current file: pkg/strategy.py | editable: 3–5 | total: 28 lines]\n"
    )
    assert replace(machine, 4, 11).text.startswith(
        "ERROR: Lines 4..11 exceed the editable range. You may only edit lines 3–5, 10–12, 18–18.\n\n"
    )
    assert insert(machine, 2, "new\n").ok
    assert machine.files[NAME].ranges == [Range(3, 6), Range(11, 13), Range(19, 19)]
    assert machine.files[NAME].lines[18] == "line 20"


def test_create_wrong_packages_and_fixed_files_are_refused_as_recorded() -> None:
    machine = editor(Dialect.RECORDED)
    create = {"op": "create", "content": "x"}
    refused = "ERROR: allow_create is false; cannot create new files"
    assert machine.edit({**create, "filename": "pkg/new.py"}).text == refused
    assert machine.edit({**create, "filename": NAME}).text == f"{refused}\n\n{machine.view().text}"
    assert machine.edit({**create, "filename": "new.py"}).text == "ERROR: Package 'new.py' is not in allowed packages"
    assert machine.edit({"op": "replace", "filename": "bench/a.py"}).text == (
        "ERROR: Package 'bench' is not in allowed packages"
    )
    assert (
        machine.edit({"op": "replace", "filename": "pkg/models.py"}).text == "ERROR: File not editable: pkg/models.py"
    )


def test_our_dialect_says_which_file_is_meant() -> None:
    reply = editor().edit({"op": "replace", "filename": "strategy.py", "start_line": 5, "end_line": 5, "content": ""})
    assert reply.kind == "not_allowed"
    assert reply.text == (
        "ERROR: Package 'strategy.py' is not in allowed packages\n\nThe editable file is pkg/strategy.py."
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "op is missing"),
        ({"op": "delete"}, "unknown op 'delete'"),
        ({"op": ["replace"]}, "unknown op"),
        ({"op": "replace", "end_line": 6, "content": ""}, "start_line is missing"),
        ({"op": "replace", "start_line": 6, "content": ""}, "end_line is missing"),
        ({"op": "insert", "content": ""}, "after_line is missing"),
        ({"op": "replace", "start_line": 7, "end_line": 6, "content": ""}, "start_line 7 comes after end_line 6"),
        (
            {"op": "replace", "start_line": "five", "end_line": 6, "content": ""},
            "start_line must be a whole line number",
        ),
        ({"op": "replace", "start_line": 5.5, "end_line": 6, "content": ""}, "start_line must be a whole line number"),
        ({"op": "replace", "start_line": True, "end_line": 6, "content": ""}, "start_line must be a whole line number"),
        ({"op": "replace", "start_line": None, "end_line": 6, "content": ""}, "start_line must be a whole line number"),
        ({"op": "insert", "after_line": float("nan"), "content": ""}, "after_line must be a whole line number"),
        ({"op": "insert", "after_line": 10**20, "content": ""}, "after_line must be a whole line number"),
        ({"op": "insert", "after_line": "9" * 5000, "content": ""}, "after_line must be a whole line number"),
        ({"op": "replace", "start_line": 5, "end_line": 6}, "content must be a string"),
        ({"op": "replace", "start_line": 5, "end_line": 6, "content": None}, "content must be a string"),
        ({"op": "replace", "start_line": 5, "end_line": 6, "content": ["a"]}, "content must be a string"),
        ({"op": "replace", "start_line": 5, "end_line": 6, "content": "a\0b"}, "NUL byte"),
        (
            {"op": "replace", "start_line": 5, "end_line": 6, "content": "a\ud800"},
            "half a surrogate pair at character 1",
        ),
    ],
)
def test_bad_arguments_are_named_and_change_nothing(arguments: dict[str, object], complaint: str) -> None:
    machine = editor()
    before = list(machine.files[NAME].lines)
    reply = machine.edit({"filename": NAME, **arguments})
    assert not reply.ok
    assert reply.kind == "invalid_arguments"
    first, _, below = reply.text.partition("\n\n")
    assert first.startswith("ERROR: Invalid arguments for 'edit': ")
    assert complaint in first
    assert below == machine.view().text
    assert machine.files[NAME].lines == before
    assert machine.undo_depth == 0


def test_a_file_name_that_is_no_text_is_refused() -> None:
    assert editor().edit({"op": "create", "filename": 3}).kind == "invalid_arguments"
    assert editor(Dialect.RECORDED).edit({"op": "create"}).kind == "invalid_arguments"


def test_the_only_file_need_not_be_named() -> None:
    assert editor().edit({"op": "replace", "start_line": 5, "end_line": 5, "content": ""}).ok


@pytest.mark.parametrize(("first", "last"), [("6", "7"), (6.0, 7.0), (" 6", "7 ")])
def test_line_numbers_in_quotes_or_as_whole_floats_are_understood(first: object, last: object) -> None:
    """Small models quote their numbers; the intent is plain."""
    assert replace(editor(), first, last).text.startswith("OK: Replaced lines 6..7 with 1 line(s)")


def test_an_enormous_edit_is_refused() -> None:
    """1 MB of text is not an edit of a 16 kB region."""
    reply = replace(editor(), 5, 8, "#" * 2**20)
    assert reply.kind == "too_large"
    assert "1,048,576 bytes" in reply.text
    assert replace(editor(), 5, 8, "#" * MAX_EDIT_BYTES).ok


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\n", ["a", ""]),
        ("\na", ["", "a"]),
        ("a\x0cb", ["a\x0cb"]),
    ],
)
def test_content_is_split_at_newlines_and_one_final_newline_adds_no_line(content: str, lines: list[str]) -> None:
    assert split_lines(content) == lines
    machine = editor()
    replace(machine, 5, 8, content)
    assert machine.files[NAME].lines == [
        "line 1",
        "line 2",
        "line 3",
        "line 4",
        *lines,
        *(f"line {n}" for n in range(9, 13)),
    ]


def test_windows_line_ends_become_ours_but_stay_in_recordings() -> None:
    """Python counts a lone carriage return as a line; our numbers must agree with its error messages."""
    machine = editor()
    assert replace(machine, 5, 8, "a\r\nb\rc\r\n").text.startswith("OK: Replaced lines 5..8 with 3 line(s)")
    recorded = editor(Dialect.RECORDED)
    replace(recorded, 5, 8, "a\r\nb\r\n")
    assert recorded.files[NAME].lines[4:6] == ["a\r", "b\r"]


def test_an_emptied_region_can_be_filled_again() -> None:
    """Deleting everything first and writing afterwards is a natural way to work."""
    machine = editor()
    reply = replace(machine, 5, 8, "")
    assert reply.text.startswith(
        "OK: Replaced lines 5..8 with 0 line(s) in pkg/strategy.py. Editable range: 5–4 (empty: insert after line 4)."
        "\n\n"
        "[Current file: pkg/strategy.py | editable: 5–4 (empty: insert after line 4) | total: 8 lines]\n"
        "     2| line 2\n     3| line 3\n     4| line 4\n     5| line 9\n"
    )
    assert replace(machine, 5, 5).kind == "outside_region"
    assert replace(machine, 7, 2).kind == "invalid_arguments"
    assert insert(machine, 4, "a\nb").ok
    assert machine.files[NAME].ranges == [Range(5, 6)]
    replace(machine, 5, 6, "")
    assert replace(machine, 5, 4, "c").ok
    assert machine.files[NAME].lines[4:6] == ["c", "line 9"]


def test_text_can_be_appended_at_the_end_of_the_region() -> None:
    machine = editor()
    assert insert(machine, 8, "appended").ok
    assert machine.files[NAME].lines[8:10] == ["appended", "line 9"]
    assert machine.files[NAME].ranges == [Range(5, 9)]
    assert insert(machine, 4, "in front").ok
    assert machine.files[NAME].lines[4:6] == ["in front", "line 5"]


def test_the_recorded_harness_locks_an_emptied_range_and_its_end() -> None:
    """Replaying an old conversation must repeat that harness's faults."""
    machine = editor(Dialect.RECORDED)
    assert insert(machine, 8).text.startswith(
        "ERROR: Cannot insert after line 8 — target is outside the editable range."
    )
    assert replace(machine, 5, 8, "").text == (
        "OK: Replaced lines 5..8 with 0 line(s) in pkg/strategy.py. Editable range: (none)."
    )
    assert insert(machine, 4).text == (
        "ERROR: Cannot insert after line 4 — target is outside the editable range. You may only edit lines (none)."
    )
    assert machine.undo().text == "Undo complete:\nRestored: pkg/strategy.py"
    assert machine.files[NAME].ranges == [Range(5, 8)]


def test_undo_restores_and_shows_the_file() -> None:
    machine = editor()
    replace(machine, 5, 8, "a")
    replace(machine, 5, 5, "b\nc")
    reply = machine.undo(2)
    assert reply.text == (
        f"Undo complete:\nRestored: pkg/strategy.py\nRestored: pkg/strategy.py\n\n{machine.view().text}"
    )
    assert machine.files[NAME].lines == [f"line {n}" for n in range(1, 13)]
    assert machine.undo().text == "ERROR: Nothing to undo"
    assert machine.undo().kind == "nothing_to_undo"


def test_undo_takes_back_what_there_is_when_asked_for_more() -> None:
    machine = editor()
    replace(machine, 5, 8, "a")
    reply = machine.undo(3)
    assert reply.ok
    assert reply.warnings == ("only 1 edit(s) could be taken back, not 3.",)
    assert reply.text.endswith("\n\nWARNING: only 1 edit(s) could be taken back, not 3.")


@pytest.mark.parametrize("n", [0, -1, "all", None, True, 1.5])
def test_undo_of_a_senseless_number_is_an_error(n: object) -> None:
    machine = editor()
    replace(machine, 5, 8, "a")
    reply = machine.undo(n)
    assert reply.kind == "invalid_arguments"
    assert reply.text.startswith("ERROR: Invalid arguments for 'undo': ")
    assert machine.undo_depth == 1


def test_refused_edits_are_not_undone() -> None:
    machine = editor()
    replace(machine, 5, 8, "a")
    replace(machine, 1, 2, "b")
    machine.undo()
    assert machine.files[NAME].lines[4] == "line 5"


def test_undo_goes_back_through_several_files_in_order() -> None:
    machine = Editor.of(
        EditableFile(NAME, ["a", "b"], [Range(1, 2)]),
        EditableFile(YAML, ["k: 1"], [Range(1, 1)]),
        dialect=Dialect.RECORDED,
    )
    replace(machine, 1, 1)
    machine.edit({"op": "replace", "filename": YAML, "start_line": 1, "end_line": 1, "content": "k: 2"})
    assert machine.undo(2).text == f"Undo complete:\nRestored: {YAML}\nRestored: {NAME}"
    assert (machine.files[NAME].lines, machine.files[YAML].lines) == (["a", "b"], ["k: 1"])


def test_rewrite_replaces_the_whole_region_whatever_its_lines_are() -> None:
    machine = editor()
    insert(machine, 6, "more\nlines")
    reply = machine.rewrite("a\nb\n")
    assert reply.text.startswith(
        "OK: Rewrote the editable range with 2 line(s) in pkg/strategy.py. Editable range: 5–6.\n\n[Current file: "
    )
    assert machine.files[NAME].lines[3:7] == ["line 4", "a", "b", "line 9"]
    assert machine.rewrite("").ok
    assert machine.rewrite("c").ok
    assert machine.undo(4).ok
    assert machine.files[NAME].lines == [f"line {n}" for n in range(1, 13)]
    assert machine.rewrite(7).text.startswith("ERROR: Invalid arguments for 'rewrite': content must be a string")


def test_warnings_stand_below_the_recorded_lines() -> None:
    """A replay compares the lines above; a model reads what is wrong last."""
    file = EditableFile(NAME, ["a"], [Range(1, 1)])
    machine = Editor.of(file, advise=lambda seen: [f"{len(seen.lines)} lines seen"])
    reply = replace(machine, 1, 1, "b\nc")
    assert reply.warnings == ("2 lines seen",)
    assert reply.text == (
        "OK: Replaced lines 1..1 with 2 line(s) in pkg/strategy.py. Editable range: 1–2.\n\n"
        "[Current file: pkg/strategy.py | editable: 1–2 | total: 2 lines]\n     1  b\n     2  c\n\n"
        "WARNING: 2 lines seen"
    )


def test_view_of_an_unknown_file_says_which_there_are() -> None:
    reply = editor().view("pkg/other.py")
    assert reply.text == "ERROR: Invalid arguments for 'view': no file 'pkg/other.py'; there is pkg/strategy.py"


def test_ranges_must_be_in_order_and_inside_the_file() -> None:
    for ranges in ([Range(2, 3), Range(3, 4)], [Range(1, 5)], [Range(6, 5)]):
        with pytest.raises(ValueError, match="out of order or beyond"):
            EditableFile(NAME, ["x"] * 4, ranges)
    with pytest.raises(ValueError, match="no such range"):
        Range(3, 1)


def test_the_replies_for_calls_that_reach_no_tool() -> None:
    assert unknown_tool("read").text == "ERROR: Unknown tool 'read'"
    assert invalid_arguments("edit", "why").text == "ERROR: Invalid arguments for 'edit': why"
    assert unparseable_arguments("why").text == "ERROR: Failed to parse tool arguments: why"


def test_an_editor_without_anything_to_edit_answers_all_the_same() -> None:
    assert Editor.of().view().kind == "invalid_arguments"
    assert Editor.of().edit({"op": "replace", "filename": NAME}).kind == "not_allowed"
    locked = Editor.of(EditableFile(NAME, ["a"], []))
    assert locked.rewrite("b").text == "ERROR: pkg/strategy.py has no editable range"
    assert locked.view().text == "[Current file: pkg/strategy.py | editable: (none) | total: 1 lines]"
