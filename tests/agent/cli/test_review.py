"""`agent review`: what a person sees, what is written down, and when a verdict stops counting."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agent.cli.review_text import _print_gains
from agent.engine.search import SearchOutcome
from agent.errors import RunDamaged, UsageError
from agent.report.findings import find
from agent.report.flags import code_flags, weight_flags
from agent.runs.directory import RunDirectory
from agent.runs.record import read_run
from agent.runs.reviews import add_review, standing
from agent.studies.reviewing import look_at
from benchmark.statistics import NoisePrior, compare
from tests.agent.conftest import Agent, Terminal
from tests.agent.report_samples import HOSTILE, change_log, change_summary, copy_run


@pytest.fixture
def run(finished: SearchOutcome, tmp_path: Path) -> RunDirectory:
    return copy_run(finished.run, tmp_path)


def test_review_shows_diff_numbers_and_flags(run: RunDirectory, agent: Agent) -> None:
    """Off a terminal `agent review` prints the brief, asks nothing, and names the next command."""
    shown = agent("review", str(run.path))
    assert shown.returncode == 0, shown.stderr
    for expected in ("On the visible tasks", "resnet20-tiny", "mobilenetv2-tiny", "Flags", "+def initialize_weights"):
        assert expected in shown.stdout
    assert "next: agent review" in shown.stderr
    assert "\x1b" not in shown.stdout
    assert not (run.path / "reviews.jsonl").exists()


def test_what_to_type_next_is_quoted(run: RunDirectory, agent: Agent, tmp_path: Path) -> None:
    """A run of somebody else may be called `a; CMD`, and may name a proposer `command:CMD`: whoever copied the line
    below "next:" ran CMD. `agent verify` named a run elsewhere by its name, which found nothing.
    """
    place = tmp_path / "elsewhere" / "a; touch owned"
    place.parent.mkdir()
    run.path.rename(place)
    there = RunDirectory(place)
    config = there.read_summary()["config"] | {"budget": "3; id", "profile": "$(id)"}
    change_summary(there, config=config)
    for words in (("show",), ("verify",), ("review",), ("review", "--comment", "sandbox/custom_init.py:30", "-m", "m")):
        found = agent(words[0], str(place), *words[1:])
        assert f"'{place}'" in found.stderr.rpartition("next: ")[2], found.stderr
    change_summary(there, config=config | {"proposer": "command:touch owned"})
    again = agent("review", str(place), "--reject", "-m", "no").stderr.rpartition("next: ")[2]
    assert again.startswith("agent search --budget '3; id' --profile '$(id)'")
    assert "command:" not in again


def test_what_cannot_be_approved_is_not_offered(run: RunDirectory, agent: Agent) -> None:
    """Below "Cannot be approved", and where nothing was submitted, the next command was `agent review --approve`."""
    with (run.path / "submission.patch").open("a") as patch:
        patch.write("\n")
    shown = agent("review", str(run.path))
    assert "Cannot be approved" in shown.stdout
    assert "--approve" not in shown.stderr
    assert "next: agent verify" in shown.stderr
    (run.path / "submission.patch").unlink()
    (run.path / "initialize_weights.py").unlink()
    assert "next: agent show" in agent("review", str(run.path)).stderr


def test_no_heading_is_cut_beside_wide_numbers(run: RunDirectory) -> None:
    """With a gain of +10.00 a terminal of 80 columns showed "detectable fr…"."""
    wide = compare({0: 8.0}, {0: 18.0}, NoisePrior(8.0, 5))
    output = io.StringIO()
    _print_gains(Console(file=output, width=80), replace(find(read_run(run)), visible={"mobilenetv2-tiny": wide}))
    head, second, *_ = output.getvalue().strip("\n").splitlines()
    assert head.rstrip().endswith("detectable")
    assert second.startswith("task")
    assert second.rstrip().endswith("from")


def test_verdicts_are_appended(run: RunDirectory, agent: Agent) -> None:
    """Comment, rejection, approval: one line each with time, author and the patch's hash; the last verdict counts."""
    identity = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Ada",
                "GIT_CONFIG_KEY_1": "user.email", "GIT_CONFIG_VALUE_1": "ada@example.org"}  # fmt: skip
    before = time.time()
    place = "sandbox/custom_init.py:30"
    assert agent("review", str(run.path), "--comment", place, "-m", "why 0.1?", env=identity).returncode == 0
    assert agent("review", str(run.path), "--reject", "-m", "too long", env=identity).returncode == 3
    assert agent("review", str(run.path)).returncode == 3
    assert agent("review", str(run.path), "--approve", env=identity).returncode == 0
    now = standing(run)
    assert [one.kind for one in now.reviews] == ["comment", "reject", "approve"]
    assert {one.author for one in now.reviews} == {"Ada <ada@example.org>"}
    assert (now.reviews[0].file, now.reviews[0].line, now.reviews[0].message) == (*place.split(":")[:1], 30, "why 0.1?")
    assert all(before - 1 <= one.time <= time.time() for one in now.reviews)
    assert now.approved
    shown = agent("review", str(run.path))
    assert "why 0.1?" in shown.stdout


def test_changed_patch_drops_the_verdict(run: RunDirectory, agent: Agent) -> None:
    """An approval holds for the bytes that were read, and comes back when they do."""
    patch = run.path / "submission.patch"
    add_review(run, "approve", "")
    assert standing(run).approved
    original = patch.read_bytes()
    patch.write_bytes(original + b"\n")
    assert not standing(run).approved
    assert standing(run).dropped is not None
    assert "review it again" in agent("review", str(run.path)).stdout
    patch.write_bytes(original)
    assert standing(run).approved


def test_review_as_json(run: RunDirectory, agent: Agent) -> None:
    """--json is one object with numbers, flags, diff and the verdict in force."""
    add_review(run, "request_changes", "use two digits")
    shown = agent("review", str(run.path), "--json")
    assert shown.returncode == 3
    fields = json.loads(shown.stdout)
    assert fields["in_force"]["message"] == "use two digits"
    assert fields["visible"]["resnet20-tiny"]["ci"]
    assert fields["diff"].startswith("--- a/sandbox/custom_init.py")
    assert all(set(flag) == {"weight", "kind", "message", "line"} for flag in fields["flags"])


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--reject"], "needs a reason"),
        (["--request-changes", "-m", "  "], "needs a reason"),
        (["--approve", "--reject", "-m", "x"], "exclude each other"),
        (["-m", "x"], "-m says why"),
        (["--comment", "40", "-m", "x"], "FILE:LINE"),
        (["--comment", "other.py:4", "-m", "x"], "changes sandbox/custom_init.py only"),
        (["--comment", "sandbox/custom_init.py:99999", "-m", "x"], "has lines 1 to"),
        (["--comment", "sandbox/custom_init.py:0", "-m", "x"], "has lines 1 to"),
    ],
)
def test_mistakes_record_nothing(run: RunDirectory, agent: Agent, words: list[str], error: str) -> None:
    """A wrong use ends with exit code 2, one sentence and no line in reviews.jsonl."""
    done = agent("review", str(run.path), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert error in done.stderr
    assert not (run.path / "reviews.jsonl").exists()


def test_nothing_to_review(run: RunDirectory) -> None:
    """A run without a patch can be looked at, not judged."""
    (run.path / "submission.patch").unlink()
    change_summary(run, status="interrupted", submitted_test=None)
    change_log(run, lambda event: None if event["kind"] == "submitted" else event)
    assert look_at(run).record.submitted is None
    with pytest.raises(UsageError, match="nothing to review"):
        add_review(run, "approve", "")


def test_damaged_reviews_are_not_passed_over(run: RunDirectory) -> None:
    """A line that cannot be read might be a rejection: the command stops and names the line."""
    add_review(run, "approve", "")
    with (run.path / "reviews.jsonl").open("a") as handle:
        handle.write('{"kind": "reject"\n')
    with pytest.raises(RunDamaged, match=r"line 2"):
        standing(run)


def test_hostile_text_does_not_steer_the_terminal(run: RunDirectory, agent: Agent) -> None:
    """Escape sequences and direction overrides of a proposer, a file or a reviewer are spelt out."""
    change_summary(run, caveat=HOSTILE)
    change_log(run, lambda event: {**event, "task": HOSTILE} if event["kind"] == "evaluated" else event)
    add_review(run, "comment", HOSTILE)
    shown = agent("review", str(run.path), env={"FORCE_COLOR": ""})
    assert "\x1b" not in shown.stdout
    assert "\u202e" not in shown.stdout
    assert "\\x1b[31m" in shown.stdout


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal(run: RunDirectory, terminal: Terminal, columns: int, colour: bool) -> None:
    """At 80 and 120 columns, with colour and with NO_COLOR: the table fits, and a typed `r` and reason reject."""
    extra = {"COLUMNS": str(columns), "TERM": "xterm-256color"} | ({} if colour else {"NO_COLOR": "1"})
    typed = [("[q]uit? ", "x\n"), ("[q]uit? ", "r\n"), ("why? ", "\n"), ("[q]uit? ", "r\n"), ("why? ", "no gain\n")]
    screen, code = terminal("review", str(run.path), env=extra, script=typed)
    assert code == 3
    assert standing(run).verdict is not None
    assert [one.message for one in standing(run).reviews] == ["no gain"]
    assert "needs a reason" in screen
    assert bool(re.search(r"\x1b\[(?:1;)?3[0-7]m", screen)) == colour
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen)
    numbers = [line for line in plain.splitlines() if "-tiny" in line and " … " in line and "%" not in line]
    assert len(numbers) == 2
    assert all(len(line) <= columns for line in numbers)


def test_a_refused_candidate_is_flagged(run: RunDirectory) -> None:
    """A test that was trained beforehand has no score; the reviewer is told that it was tried."""
    failure = "suspicious: before any training the network was right on 90.0 %"
    change_log(
        run, lambda event: event | {"accuracy": None, "failure": failure} if event.get("role") == "test/1" else event
    )
    (flag,) = [flag for flag in look_at(run).flags if flag.kind == "step zero"]
    assert flag.message.startswith("test/1 was refused on resnet20-tiny (seed 0): before any training")


def region(*lines: str) -> str:
    return "\n".join(["def initialize_weights(model, config):", *(f"    {line}" for line in lines), ""])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (region("torch.manual_seed(3)"), "randomness"),
        (region("x = np.random.randn(3)", "return x"), "randomness"),
        (region("return hash('a')"), "randomness"),
        (region("if config['arch'] == 'resnet56':", "    return"), "architecture"),
        (region("if config.get('arch') == 'VGG-16-BN':", "    return"), "architecture"),
        (region("return type(model).__name__"), "architecture"),
        (region("return 0.73912"), "leftover number"),
        (region("gain = 2.0"), "leftover"),
        ("def helper():\n    pass\n\n" + region("pass"), "leftover"),
    ],
)
def test_flags_from_the_code(code: str, kind: str) -> None:
    """Each of these is raised without anyone asking, with its line."""
    found = [flag for flag in code_flags(code) if flag.kind == kind]
    assert found
    assert all(flag.line for flag in found)


@pytest.mark.parametrize("name", ["kaiming_normal", "orthogonal", "fixup", "zero_last_gamma"])
def test_sound_code_raises_no_flag(name: str) -> None:
    """The library's own recipes are clean, √2 and 0.1 included."""
    from benchmark.recipes import get_recipe

    assert [flag for flag in code_flags(get_recipe(name).region) if flag.weight != "note"] == []


def test_flags_from_the_weights() -> None:
    """Constant weights, a broken signal, and scales that differ from network to network."""

    def network(std: float, constant: float | None = None, faults: tuple[str, ...] = ()) -> dict[str, object]:
        parameter = {"name": "conv.weight", "shape": [2, 2, 3, 3], "role": "convolution weight", "std": std}
        return {
            "parameters": [{**parameter, "constant": constant, "kaiming_ratio": 1.0}],
            "signal": {"faults": list(faults)},
        }

    tasks = {
        "a": {"baseline": network(1.0), "submission": network(1.0)},
        "b": {"baseline": network(1.0), "submission": network(3.0)},
        "c": {"baseline": network(1.0), "submission": network(0.0, 0.5, ("no gradient reaches any weight",))},
        "d": {"baseline": network(1.0), "submission": {"error": "shape"}},
    }
    found = {flag.kind: flag.message for flag in weight_flags({"tasks": tasks})}
    assert set(found) == {"differs by network", "constant weights", "signal", "initialisation"}
    assert "× 1 on a, × 3 on b" in found["differs by network"]
