"""The audit: what counts as hidden, what counts as shown, and what does not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.transcript_text import run_audit
from agent.transcripts import audit, parse_transcript
from agent.transcripts.model import CUT_MARK, Note, RecordedCall, Segment, Transcript
from tests.agent.transcript_samples import LISTING, call, conversation, prompt, write

HEAD = "[Test #1] (2 tests remaining; call submit(n=1) to submit this result)\n\n"
SMALL = "### small (scripts/small.sh)\nFinal metrics (small):\nacc_small=61.5\n"
LARGE = "\n### large-v2 (scripts/large.sh)\nFinal metrics (large-v2):\nacc_large-v2=71.5\n"
BOARD_SMALL = "\n[Leaderboard] Results saved: {'acc_small': 61.5, 'elapsed_small': 3}"
BOARD_BOTH = (
    "\n[Leaderboard] Results saved: {'acc_small': 61.5, 'elapsed_small': 3, 'acc_large_v2': 71.5, "
    "'acc_large_v2_std': nan, 'elapsed_large-v2': 9}"
)
AUTO = "\n\n[auto-submit] Test budget exhausted — this result is auto-submitted as final."


def _labels(*parts: list[dict[str, Any]], text: str = LISTING) -> list[tuple[int, int, str]]:
    found = audit(parse_transcript(conversation(prompt(text), *parts)))
    return [(leak.segment, leak.step, leak.label) for leak in found.leaks]


def test_the_leaderboard_line_leaks_a_hidden_task() -> None:
    """The public harness prints all tasks after every test; one finding a reply and hidden task, with the values."""
    document = conversation(prompt(), call(1, "test", None, HEAD + SMALL + BOARD_BOTH))
    found = audit(parse_transcript(document))
    assert [(leak.step, leak.label) for leak in found.leaks] == [(1, "large-v2")]
    assert found.leaks[0].text == "'acc_large_v2': 71.5, 'acc_large_v2_std': nan, 'elapsed_large-v2': 9"
    assert found.calls == 1


@pytest.mark.parametrize(
    "result",
    [HEAD + SMALL, HEAD + SMALL + BOARD_SMALL, HEAD + SMALL + LARGE + BOARD_BOTH],
    ids=["visible only", "a clean leaderboard", "everything is visible"],
)
def test_visible_tasks_are_no_leak(result: str) -> None:
    """What a test is allowed to show is not reported."""
    assert _labels(call(1, "test", None, result)) == []


def test_a_submission_may_show_everything() -> None:
    """Hidden values after submit(n), after test(submit=N) or in the self-submitted last test are no leak."""
    shown = SMALL + LARGE + BOARD_BOTH
    assert _labels(call(1, "test", None, HEAD + SMALL), call(2, "submit", {"n": 1}, "[submit] x\n" + shown)) == []
    assert _labels(call(1, "test", None, HEAD + SMALL), call(2, "test", {"submit": 1}, shown)) == []
    last = "[Test #3] (0 tests remaining)\n\n" + shown
    assert _labels(call(1, "test", None, HEAD + SMALL), call(2, "test", None, last + AUTO)) == []
    assert _labels(call(1, "test", None, HEAD + SMALL), call(2, "test", None, last + CUT_MARK, cut=True)) == []


def test_the_middle_dialect_submits_its_last_test_itself() -> None:
    """Its first line says so; what the reply shows then is final."""
    last = "[Test #3] (0 tests remaining; auto-submitted as final)\n\n" + SMALL + BOARD_BOTH
    assert _labels(call(1, "test", None, HEAD + SMALL), call(2, "test", None, last)) == []


def test_a_last_test_that_is_still_to_be_submitted_leaks() -> None:
    """No tests remain, but the model may still choose among them: what it sees is before the submission."""
    last = "[Test #3] (0 tests remaining)\n\n" + SMALL + BOARD_BOTH
    submit = call(3, "submit", {"n": 1}, "[submit] x\n" + SMALL + LARGE)
    assert _labels(call(1, "test", None, HEAD + SMALL), call(2, "test", None, last), submit) == [(0, 2, "large-v2")]


def test_visibility_is_judged_in_each_segment() -> None:
    """A task that one attempt could see may be hidden in the next, as in the public record."""
    found = audit(
        parse_transcript(
            conversation(
                prompt(),
                call(1, "test", None, HEAD + SMALL + LARGE + BOARD_BOTH),
                prompt(),
                call(1, "test", None, HEAD + SMALL + BOARD_BOTH),
            )
        )
    )
    assert [(leak.segment, leak.label) for leak in found.leaks] == [(1, "large-v2")]


def test_a_hidden_task_that_nothing_names_is_found_by_its_metric() -> None:
    """The prompt was cut before its list of tasks; the leaderboard's own pattern gives the task away."""
    board = "\n[Leaderboard] Results saved: {'ic_a1': 1, 'elapsed_a1': 2, 'ic_secret-9': 3, 'elapsed_total': 4}"
    text = HEAD + "### a1 (scripts/a1.sh)\n" + board
    assert _labels(call(1, "test", None, text), text="no list of tasks") == [(0, 1, "secret-9")]


def test_the_longest_label_counts() -> None:
    """csi300_recent ends in no visible label, and csi300 is not taken for it."""
    listing = "label: `csi300`\nlabel: `csi300_recent`"
    board = "\n[Leaderboard] Results saved: {'ic_csi300': 1, 'ic_csi300_recent': 2}"
    assert _labels(call(1, "test", None, HEAD + "### csi300 (x)\n" + board), text=listing) == [(0, 1, "csi300_recent")]


def test_a_task_that_the_text_declares_hidden_may_not_even_have_a_section() -> None:
    """Our own task says which data set is hidden; a heading for it before the submission is a leak."""
    text = (
        "- ResNet-56 on CIFAR-100 (100 classes)\n"
        "- MobileNetV2 on FashionMNIST — hidden, evaluated on final submission only"
    )
    sections = "### resnet56-cifar100 (x)\nacc=1\n\n### mobilenetv2-fmnist (x)\ntest_acc_mobilenetv2-fmnist=93.1\n"
    found = audit(parse_transcript(conversation(prompt(text), call(1, "test", None, HEAD + sections))))
    assert [leak.label for leak in found.leaks] == ["mobilenetv2-fmnist"]
    assert "test_acc_mobilenetv2-fmnist=93.1" in found.leaks[0].text


def _own(*entries: RecordedCall | Note, prompt: str = "") -> list[tuple[int, str, str]]:
    segment = Segment(prompt, entries=entries)
    found = audit(Transcript("run", segments=(segment,), hidden_labels=frozenset({"mobilenetv2-tiny"})))
    return [(leak.step, leak.label, leak.text) for leak in found.leaks]


def test_a_run_of_ours_must_not_even_name_its_hidden_task() -> None:
    """In the prompt, in a note, in the reply of any tool: our record declares the name, so nobody may be told it."""
    name = "mobilenetv2-tiny"
    assert _own(RecordedCall(1, "view", recorded=f"first\nsee {name} too\nlast")) == [(1, name, f"see {name} too")]
    assert _own(Note("user", f"now {name}", 2)) == [(2, name, f"now {name}")]
    assert _own(prompt=f"# Task\nlater {name}") == [(0, name, f"later {name}")]
    assert _own(RecordedCall(1, "test", recorded=f"[Test #1] ok\ntest_acc_{name}=12.00")) == [
        (1, name, f"test_acc_{name}=12.00")
    ]


def test_what_the_model_wrote_itself_or_saw_after_the_submission_is_no_leak() -> None:
    """A name in the model's own code comes back with every view; the submission's reply may name everything."""
    name = "mobilenetv2-tiny"
    written = RecordedCall(1, "rewrite", {"content": f"# for {name}"}, recorded=f"OK\n     1  # for {name}")
    tested = RecordedCall(2, "test", recorded="[Test #1] (0 tests remaining)")
    submitted = RecordedCall(3, "submit", {"n": 1}, recorded=f"[submit] Submitting\n### {name}")
    assert _own(written, tested, submitted, Note("user", name, 4)) == []
    assert len(_own(tested, written, Note("user", "mobilenetv2 on tiny pictures"))) == 0


def test_hidden_layers_are_not_hidden_tasks() -> None:
    """The word "hidden" about a network declares nothing."""
    text = "- small: an MLP with one hidden layer of 300 units - hidden units 300\n- label: `small`"
    assert _labels(call(1, "test", None, HEAD + SMALL + BOARD_SMALL), text=text) == []


def test_json_plain_text_and_exit_codes(tmp_path: Path) -> None:
    """`--json` prints one object with leaks and calls; exit 3 when there is a leak, 0 when there is none."""
    leaky = write(tmp_path, conversation(prompt(), call(4, "test", None, HEAD + SMALL + BOARD_BOTH)))
    out = io.StringIO()
    assert run_audit(leaky, as_json=True, out=out) == 3
    printed = json.loads(out.getvalue())
    assert printed["calls"] == 1
    assert {"step", "label", "text"} <= set(printed["leaks"][0])
    out = io.StringIO()
    assert run_audit(leaky, as_json=False, out=out) == 3
    assert "hidden task large-v2" in out.getvalue()
    clean = write(tmp_path, conversation(prompt(), call(1, "test", None, HEAD + SMALL)))
    assert run_audit(clean, as_json=True, out=io.StringIO()) == 0
