"""Replay of hand-written conversations: one test for each trap of the public record."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.transcript_text import run_replay
from agent.transcripts import parse_transcript, replay
from agent.transcripts.model import CUT_MARK
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
    replayed,
    snapshot,
    view,
    write,
)

BUDGET_1 = "[Test #1] (2 tests remaining; call submit(n=1) to submit this result)"


def test_edit_undo_refusal_and_test_are_recognised() -> None:
    """A short honest conversation replays: edits, refusal and undo exactly, the test as far as its budget line."""
    verdicts, reasons, run = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(1, 6, "x"), REFUSED_REPLY),
            call(2, "edit", edit(3, 4, DOUBLED, after_line=9), DOUBLED_REPLY),
            call(3, "test", None, f"{BUDGET_1}\n\n### small (scripts/small.sh)\nacc_small=1"),
            call(4, "undo", {"n": 1}, UNDONE_REPLY),
            call(5, "edit", edit(1, 6, "x"), REFUSED_REPLY),
        )
    )
    assert verdicts == ["exact", "exact", "unverifiable", "exact", "exact"]
    assert reasons[2] is not None
    assert "training" in reasons[2]
    assert run.counts == {"exact": 4, "prefix": 0, "differs": 0, "unverifiable": 1}


def test_a_wrong_reply_differs_and_is_counted_once() -> None:
    """One forged line is reported with its number; the workspace follows the record, so the next call agrees again."""
    forged = DOUBLED_REPLY.replace("y = 2 * x", "y = 3 * x")
    after = DOUBLED_REPLY.replace("lines 3..4 with 3", "lines 3..3 with 1").replace("y = 2 * x", "y = 3 * x")
    verdicts, reasons, _ = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(3, 4, DOUBLED), forged),
            call(2, "edit", edit(3, 3, "def f(x):"), after),
        )
    )
    assert verdicts == ["differs", "exact"]
    assert reasons[0] is not None
    assert "line 7" in reasons[0]
    assert "3 * x" in reasons[0]


def test_the_undo_stack_survives_a_difference() -> None:
    """The record accepted an edit that we refuse: its undo must still find what was there before."""
    accepted = "OK: Replaced lines 1..1 with 1 line(s) in lab/custom.py. Editable range: 3–4.\n\n" + view(
        "     1| import os\n     2| \n     3  def f(x):\n     4      return x\n     5| \n     6| print(f(1))"
    )
    verdicts, _, _ = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(1, 1, "import os"), accepted),
            call(2, "undo", {"n": 1}, UNDONE_REPLY),
            call(3, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
        )
    )
    assert verdicts == ["differs", "exact", "exact"]


def test_each_segment_begins_afresh() -> None:
    """The second attempt edits the original file and its first test is number 1 again."""
    part = [
        *prompt(),
        *call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
        *call(2, "test", None, f"{BUDGET_1}\n\n### small"),
    ]
    run = replay(parse_transcript(conversation(part, part)))
    results = list(run)
    assert [(result.segment, result.call.step) for result in results] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert run.counts["exact"] == 2
    assert run.counts["differs"] == 0


def test_a_user_message_later_on_opens_no_segment() -> None:
    """A nudge in the middle leaves the workspace as it is."""
    nudge: list[dict[str, Any]] = [{"step": 2, "role": "user", "content": "Please call a tool."}]
    verdicts, _, _ = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
            nudge,
            call(3, "undo", None, UNDONE_REPLY),
        )
    )
    assert verdicts == ["exact", "exact"]


def test_a_conversation_without_any_call() -> None:
    """45 public conversations hold only prompts: nothing to replay, nothing wrong."""
    out = io.StringIO()
    run = replay(parse_transcript(conversation(prompt(), prompt())))
    assert list(run) == []
    assert run.as_event() == {"event": "done", "exact": 0, "prefix": 0, "differs": 0, "unverifiable": 0}
    assert out.getvalue() == ""


def test_a_cut_reply_is_a_prefix_only_if_ours_begins_with_it() -> None:
    """A reply that was cut agrees as far as it goes; one wrong letter before the cut is a difference."""
    kept = DOUBLED_REPLY[:150]
    agrees = conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), kept + CUT_MARK, cut=True))
    wrong = conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), kept[:-1] + "?" + CUT_MARK, cut=True))
    assert replayed(agrees)[0] == ["prefix"]
    assert replayed(wrong)[0] == ["differs"]


def test_a_call_without_a_reply_cannot_be_verified() -> None:
    """The last call of an interrupted attempt has no reply; that is said and is no difference."""
    verdicts, reasons, _ = replayed(conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), None)))
    assert verdicts == ["unverifiable"]
    assert reasons == ["no result was recorded"]


@pytest.mark.parametrize("carried_out", [True, False])
def test_an_unanswered_call_in_the_middle_may_have_been_carried_out_or_not(carried_out: bool) -> None:
    """Whichever it was, the next reply tells, and is not held against the tools."""
    after = DOUBLED_REPLY.replace("lines 3..4 with 3", "lines 3..5 with 3") if carried_out else DOUBLED_REPLY
    verdicts, _, _ = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(3, 4, "# one\n# two\n# three"), None),
            call(2, "test", None, None),
            call(3, "edit", edit(3, 5 if carried_out else 4, DOUBLED), after),
            call(4, "test", None, BUDGET_1),
        )
    )
    assert verdicts == ["unverifiable", "unverifiable", "exact", "unverifiable"]


LONG = "def f(x):\n" + "\n".join(f"    x += {number}  # {'and ' * 20}" for number in range(160)) + "\n    return x"
CUT_LONG = LONG[:10_000] + CUT_MARK
LINES = LONG.split("\n")


def _long_reply(lines: list[str]) -> str:
    """What the tools would have printed for the whole of `lines`, cut as the record cuts."""
    last = 2 + len(lines)
    body = "".join(f"{number:>6}  {line}\n" for number, line in enumerate(lines, start=3))
    whole = (
        f"OK: Replaced lines 3..4 with {len(lines)} line(s) in lab/custom.py. Editable range: 3–{last}.\n\n"
        f"[Current file: lab/custom.py | editable: 3–{last} | total: {last + 2} lines]\n"
        f"     1| import math\n     2| \n{body}{last + 1:>6}| \n{last + 2:>6}| print(f(1))"
    )
    return whole[:10_000] + CUT_MARK


def _file(lines: list[str]) -> str:
    return "\n".join(["import math", "", *lines, "", "print(f(1))"])


def test_a_cut_edit_is_restored_from_its_snapshot() -> None:
    """What the record cut off an edit stands in the snapshot of its step, also when another segment has that step."""
    stranger = snapshot(1, _file(["def g():", "    pass"]))
    document = conversation(
        prompt(),
        call(1, "edit", edit(3, 4, CUT_LONG), _long_reply(LINES), cut=True),
        call(2, "edit", edit(3, 2 + len(LINES), DOUBLED), DOUBLED_REPLY.replace("3..4", f"3..{2 + len(LINES)}")),
        snapshots=[stranger, snapshot(1, _file(LINES))],
    )
    assert replayed(document)[0] == ["prefix", "exact"]


def test_a_cut_edit_without_a_snapshot_cannot_be_verified_but_the_next_one_can() -> None:
    """Its length is known from the reply, so a later replacement of all of it is exact."""
    verdicts, reasons, _ = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(3, 4, CUT_LONG), _long_reply(LINES), cut=True),
            call(2, "edit", edit(3, 2 + len(LINES), DOUBLED), DOUBLED_REPLY.replace("3..4", f"3..{2 + len(LINES)}")),
            call(3, "undo", {"n": 2}, UNDONE_REPLY + "\nRestored: lab/custom.py"),
            call(4, "edit", edit(1, 6, "x"), REFUSED_REPLY),
        )
    )
    assert verdicts == ["unverifiable", "exact", "exact", "exact"]
    assert reasons[0] == "the call's own text was cut and no snapshot gives it"


def test_a_cut_edit_whose_reply_contradicts_what_was_kept_differs() -> None:
    """A cut call is no excuse: what its reply shows of the part that was kept must agree."""
    forged = _long_reply(LINES).replace("x += 1 ", "x -= 1 ", 1)
    verdicts, _, _ = replayed(conversation(prompt(), call(1, "edit", edit(3, 4, CUT_LONG), forged, cut=True)))
    assert verdicts == ["differs"]


def test_a_cut_edit_that_was_refused_is_verified() -> None:
    """A refusal does not depend on the text, so the cut does not matter."""
    assert replayed(conversation(prompt(), call(1, "edit", edit(1, 6, CUT_LONG), REFUSED_REPLY)))[0] == ["exact"]


def test_lines_that_a_cut_call_wrote_cannot_verify_a_later_reply() -> None:
    """A later reply shows lines nobody knew: it cannot be verified, but the one after it can."""
    tail = LINES[-6:]
    last = 2 + len(LINES)
    body = "".join(f"{number:>6}  {line}\n" for number, line in enumerate(tail, start=3))
    second = (
        f"OK: Replaced lines 3..{last - 6} with 0 line(s) in lab/custom.py. Editable range: 3–8.\n\n"
        "[Current file: lab/custom.py | editable: 3–8 | total: 10 lines]\n     1| import math\n     2| \n"
        f"{body}     9| \n    10| print(f(1))"
    )
    third = second.replace(f"lines 3..{last - 6} with 0", "lines 3..3 with 1")
    verdicts, reasons, _ = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(3, 4, CUT_LONG), _long_reply(LINES), cut=True),
            call(2, "edit", edit(3, last - 6, ""), second),
            call(3, "edit", edit(3, 3, tail[0]), third),
        )
    )
    assert verdicts == ["unverifiable", "unverifiable", "exact"]
    assert reasons[1] is not None
    assert "earlier, cut call" in reasons[1]


def test_a_snapshot_that_fits_no_edit_is_ignored() -> None:
    """Snapshots of other files and steps, or of nothing at all, change no verdict."""
    odd = [snapshot(1, "nothing of the kind"), snapshot(77, ""), snapshot(1, "x", flat="lab_other.py")]
    document = conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY), snapshots=odd)
    assert replayed(document)[0] == ["exact"]


@pytest.mark.parametrize("kept", ["     3: def", "     4:     ret", "     6: pri"])
def test_a_listing_that_the_prompt_cut_is_filled_from_later_views(kept: str) -> None:
    """The prompt ends inside the file; its length and its missing fixed lines come from the views that follow."""
    text = LISTING[: LISTING.index(kept) + len(kept)]
    verdicts, _, _ = replayed(
        conversation(
            prompt(text, cut=True),
            call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
            call(2, "undo", {"n": 1}, UNDONE_REPLY),
            call(3, "edit", edit(1, 6, "x"), REFUSED_REPLY),
        )
    )
    assert verdicts == ["exact", "exact", "exact"]


def test_a_file_that_the_cut_prompt_never_listed() -> None:
    """Its first reply cannot be verified; from then on its view is the workspace."""
    text = LISTING[: LISTING.index("## lab/custom.py")]
    again = DOUBLED_REPLY.replace("lines 3..4 with 3", "lines 3..5 with 3")
    verdicts, reasons, _ = replayed(
        conversation(
            prompt(text, cut=True),
            call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
            call(2, "edit", edit(3, 5, DOUBLED), again),
        )
    )
    assert verdicts == ["unverifiable", "exact"]
    assert reasons[0] is not None
    assert "workspace" in reasons[0]


def test_a_page_without_fences_or_alignment() -> None:
    """Our own task's conversation was scraped from such a page."""
    text = "lab/custom.py [EDITABLE — lines 3–4 only]\n1: import math\n2:\n3: def f(x):\n4:     retu"
    assert replayed(conversation(prompt(text, cut=True), call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY)))[0] == [
        "exact"
    ]


def test_several_files_and_ranges() -> None:
    """Only the first range is shown, all are named, and later ranges shift."""
    shown = view("     1| a = 1\n     2  b = 0\n     3| d = 4\n     4| e = 5", "2–2", 4)
    outside = "ERROR: Lines 3..3 exceed the editable range. You may only edit lines 2–2, 4–4.\n\n" + shown
    yaml = (
        "OK: Inserted 1 line(s) after line 1 in lab/config.yaml. Editable range: 1–3.\n\n"
        "[Current file: lab/config.yaml | editable: 1–3 | total: 3 lines]\n"
        "     1  model:\n     2    kind: x\n     3    class: Custom"
    )
    insert = {"op": "insert", "filename": "lab/config.yaml", "after_line": 1, "start_line": 1, "content": "  kind: x\n"}
    verdicts, _, _ = replayed(
        conversation(
            prompt(TWO_FILES),
            call(
                1,
                "edit",
                edit(2, 3, "b = 0"),
                "OK: Replaced lines 2..3 with 1 line(s) in lab/custom.py. Editable range: 2–2, 4–4.\n\n" + shown,
            ),
            call(2, "edit", edit(3, 3, "x"), outside),
            call(3, "edit", insert, yaml),
            call(4, "undo", {"n": 2}, "Undo complete:\nRestored: lab/config.yaml\nRestored: lab/custom.py"),
            call(5, "undo", {"n": 1}, "ERROR: Nothing to undo"),
        )
    )
    assert verdicts == ["exact"] * 5


def test_calls_that_are_no_edits() -> None:
    """Unknown tools, arguments that are no JSON, foreign packages and new files are refused in the known words."""
    verdicts, _, _ = replayed(
        conversation(
            prompt(),
            call(1, "read", {"filename": NAME_OTHER}, "ERROR: Unknown tool 'read'"),
            call(
                2,
                "edit",
                {"error": "Expecting ',' delimiter"},
                "ERROR: Failed to parse tool arguments: Expecting ',' delimiter",
            ),
            call(
                3, "edit", edit(3, 4, "x", name="bench/custom.py"), "ERROR: Package 'bench' is not in allowed packages"
            ),
            call(
                4,
                "edit",
                {"op": "create", "filename": "lab/new.py", "content": "x"},
                "ERROR: allow_create is false; cannot create new files",
            ),
        )
    )
    assert verdicts == ["exact"] * 4


NAME_OTHER = "lab/custom.py"


def test_an_edit_without_op_is_refused_and_compared() -> None:
    """It changes nothing; if the record words the refusal otherwise, that is shown as a difference."""
    arguments = {"filename": NAME_OTHER, "start_line": 3, "end_line": 4, "content": "x"}
    refused = "ERROR: Invalid arguments for 'edit': 'op'"
    verdicts, _, _ = replayed(
        conversation(prompt(), call(1, "edit", arguments, refused), call(2, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY))
    )
    assert verdicts == ["differs", "exact"]


BUDGET_2 = "[Test #2] (1 test remaining; call submit(n=2) to submit this result)"
BUDGET_3 = "[Test #3] (0 tests remaining)"
NEW_BUDGET_1 = "[Test #1] (2 tests remaining; call submit(n=N) to choose which test result to submit as final)"
SUBMITTED = "[submit] Submitting result from test #1 as final.\n\n### small"
NO_RESULTS = "ERROR: No test results yet. Run test() at least once first."
NO_RESULTS_LONG = (
    "ERROR: No test results yet. You must call test() with NO arguments first to run an experiment. Only after that "
    "can you use test(submit=N) to submit a result."
)
ZERO = (
    "ERROR: submit=0 is invalid. To run a new experiment, call test() with NO arguments (omit the submit parameter "
    "entirely). To submit a previous result, use submit=N where N >= 1."
)
EXHAUSTED = (
    "ERROR: Test budget exhausted (3/3). You MUST call submit(n=N) to choose which test result to submit as final."
)
SEEDED = "\n## Seed 42\n\n### small"
IN_WORDS = {"e": "exact", "d": "differs", "u": "unverifiable"}


@pytest.mark.parametrize(
    ("expected", "calls"),
    [
        pytest.param(
            "euu",
            [("submit", {"n": 1}, NO_RESULTS), ("test", None, NEW_BUDGET_1), ("submit", {"n": 1}, SUBMITTED)],
            id="newest: submit(n)",
        ),
        pytest.param(
            "eeuu",
            [
                ("test", {"submit": 1}, NO_RESULTS_LONG),
                ("test", {"submit": 0}, ZERO),
                ("test", {}, BUDGET_1),
                ("test", {"submit": 1}, SUBMITTED),
            ],
            id="older: test(submit=N)",
        ),
        pytest.param("e", [("test", {"submit": 0}, NO_RESULTS)], id="older, short wording"),
        pytest.param(
            "uu",
            [
                ("test", {"is_final": False, "use_last": False}, SEEDED),
                ("test", {"is_final": True, "use_last": True}, SEEDED),
            ],
            id="oldest: no budget line",
        ),
        pytest.param(
            "uuue",
            [("test", None, line) for line in (BUDGET_1, BUDGET_2, BUDGET_3, EXHAUSTED)],
            id="exhausted",
        ),
        pytest.param(
            "udu",
            [("test", None, line) for line in (BUDGET_1, BUDGET_1, BUDGET_2)],
            id="a budget line that does not count",
        ),
        pytest.param("ud", [("test", None, BUDGET_1), ("test", None, "### small")], id="a budget line that is missing"),
        pytest.param("d", [("submit", {"n": 7}, SUBMITTED)], id="a test that was never run"),
    ],
)
def test_tests_and_submissions_in_every_dialect(expected: str, calls: list[tuple[str, Any, str]]) -> None:
    """Budget lines and refusals are compared; only the numbers below them are left to training."""
    parts = [call(step, *each) for step, each in enumerate(calls, start=1)]
    assert replayed(conversation(prompt(), *parts))[0] == [IN_WORDS[letter] for letter in expected]


MIDDLE_1 = "[Test #1] (2 tests remaining; call test(submit=1) to submit this result)"
MIDDLE_2 = "[Test #2] (1 test remaining; call test(submit=2) to submit this result)"


def test_the_words_of_the_middle_dialect() -> None:
    """Fifteen budget lines of the public record differed for their words alone; a wrong count still does."""
    last = "[Test #3] (0 tests remaining; auto-submitted as final)"
    good = [call(step, "test", {}, line) for step, line in enumerate((MIDDLE_1, MIDDLE_2, last), start=1)]
    assert replayed(conversation(prompt(), *good))[0] == ["unverifiable"] * 3
    submitted = call(2, "test", {"submit": 1}, SEEDED)
    assert replayed(conversation(prompt(), good[0], submitted))[0] == ["unverifiable"] * 2
    assert replayed(conversation(prompt(), good[0], call(2, "test", {}, MIDDLE_1)))[0] == ["unverifiable", "differs"]


def test_two_runs_in_one_segment_are_not_held_against_each_other() -> None:
    """Both begin at step 1 and edit the original file; which call belongs to which is not recorded."""
    verdicts, reasons, _ = replayed(
        conversation(
            prompt(),
            call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
            call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
            call(2, "undo", {"n": 1}, UNDONE_REPLY),
        )
    )
    assert verdicts == ["exact", "unverifiable", "exact"]
    assert reasons[1] is not None
    assert "interleaved" in reasons[1]


def test_replies_of_two_runs_that_cross() -> None:
    """Both calls stand before both replies: the first call got the reply of the second one, and differed."""
    first, second = call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY), call(1, "edit", edit(1, 1, "x"), "ERROR: no")
    verdicts, reasons, _ = replayed(conversation(prompt(), [*first[:1], *second[:1]], [*first[1:], *second[1:]]))
    assert verdicts == ["unverifiable", "unverifiable"]
    assert all(reason is not None and "interleaved" in reason for reason in reasons)


def test_calls_of_one_step_still_differ() -> None:
    """A model may make several calls in a later step: a wrong reply to one of them is a difference."""
    forged = DOUBLED_REPLY.replace("y = 2 * x", "y = 3 * x")
    parts = [call(1, "undo", None, "ERROR: Nothing to undo"), call(2, "undo", None, "ERROR: Nothing to undo")]
    assert replayed(conversation(prompt(), *parts, call(2, "edit", edit(3, 4, DOUBLED), forged)))[0][2] == "differs"


def test_the_tail_of_another_run_opens_a_segment() -> None:
    """A submission of a test that this segment never ran was called a difference; its own run is followed."""
    verdicts, reasons, _ = replayed(
        conversation(
            prompt(),
            call(5, "submit", {"n": 2}, "[submit] Submitting result from test #2 as final.\n"),
            call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
            call(2, "test", None, BUDGET_1),
        )
    )
    assert verdicts == ["unverifiable", "exact", "unverifiable"]
    assert reasons[0] is not None
    assert "another run" in reasons[0]


def test_json_lines_and_exit_codes(tmp_path: Path) -> None:
    """`--json` prints one object a call and a last one with the counts; exit 3 when anything differs."""
    good = conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY))
    out = io.StringIO()
    assert run_replay(write(tmp_path, good), as_json=True, out=out) == 0
    first, last = map(json.loads, out.getvalue().splitlines())
    assert first == {
        "event": "call",
        "segment": 0,
        "step": 1,
        "tool": "edit",
        "verdict": "exact",
        "reason": None,
        "recorded": DOUBLED_REPLY,
        "replayed": DOUBLED_REPLY,
    }
    assert last == {"event": "done", "exact": 1, "prefix": 0, "differs": 0, "unverifiable": 0}
    bad = conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), "OK: \x1b[31mno\ud800"))
    assert run_replay(write(tmp_path, bad), as_json=True, out=io.StringIO()) == 3


def test_plain_output_shows_the_difference_and_no_control_character(tmp_path: Path) -> None:
    """A person sees which line differs; an escape sequence in the record does not reach the terminal."""
    bad = conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY + "\n\x1b[31mred\ud800"))
    out = io.StringIO()
    assert run_replay(write(tmp_path, bad), as_json=False, out=out) == 3
    text = out.getvalue()
    assert "segment 0, step 1" in text
    assert "differs" in text
    assert "-\\x1b[31mred\\ud800" in text
    assert "\x1b" not in text
    text.encode()
    assert "0 of 1 verifiable calls agree" in text


def test_a_record_cannot_make_us_build_a_giant_file() -> None:
    """A forged total of a billion lines is not believed."""
    forged = DOUBLED_REPLY.replace("total: 7 lines", "total: 1000000000 lines")
    assert replayed(conversation(prompt(), call(1, "edit", edit(3, 4, DOUBLED), forged)))[0] == ["differs"]
