"""Looking at somebody else's run directory runs nothing, touches nothing outside, shows nothing of it, and ends."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import cli
from tests.hostile_runs.harms import HARMS, SECRET, STEERING, Harm, Target
from tests.sample import SAMPLE, restore

pytestmark = pytest.mark.usefixtures("commands_built_once", "drawn_once")

_SECONDS = 20
"""Nothing takes so long but what waits for a pipe."""
LOOKS = ("verify RUN", "show RUN", "review RUN", "runs", "replay RUN --json", "export RUN --format patch")
"""With these every harm is looked at. They open all that the others open, and take milliseconds."""
ALL_LOOKS = (
    *LOOKS,
    *("show RUN --json", "review RUN --json", "report RUN --no-measure", "compare RUN GOOD -o PAGE", "runs --csv"),
    *("runs --json", "replay RUN --plain", "audit RUN", "export RUN --format atif", "export RUN --format module"),
    *("export RUN --format mls-bench", "watch RUN"),
)
THOROUGH = {
    *("promisor_remote_for_a_deleted_blob", "signature_program", "workspace_is_a_link"),
    *("summary_nested_deeply", "event_of_half_a_character", "every_text_steers_the_terminal"),
}
"""The harms that are looked at with all commands: a page takes seconds. INITSEARCH_HOSTILE=all does so with each."""
ACTS = ("search --resume RUN", "submit RUN", "ablate RUN", "review RUN --approve")
_TRAPS = ("gpg", "gpg2", "gpgsm", "ssh", "ssh-keygen", "less", "pager", "vi", "git-upload-pack", "git-remote-x")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept sample run, whole."""
    return restore(SAMPLE, tmp_path_factory.mktemp("good") / "good").path


@pytest.fixture
def target(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A copy to harm in runs/bad, a folder beside the runs, and programs on the PATH that tell on whoever runs them."""
    shutil.copytree(good, tmp_path / "runs" / "bad", symlinks=True)
    outside, traps, marker = tmp_path / "outside", tmp_path / "traps", tmp_path / "marker"
    outside.mkdir()
    traps.mkdir()
    (outside / "secret").write_text(SECRET)
    (outside / "secret.json").write_text(json.dumps(SECRET))
    for name in _TRAPS:
        (traps / name).write_text(f"#!/bin/sh\necho {name} >> {marker}\n")
        (traps / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{traps}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    return Target(tmp_path / "runs" / "bad", outside, marker)


def _fingerprint(folder: Path) -> dict[str, Any]:
    """Everything below a folder: what it is, its mode, and its content."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return found


@contextlib.contextmanager
def _limited(words: str) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise AssertionError(f"agent {words} still waits after {_SECONDS} s")

    kept = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in kept.items():
            signal.signal(number, handler)


def _agent(words: str, target: Target, good: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process: an exception that nobody catches fails the test."""
    named = {"RUN": str(target.run), "GOOD": str(good), "PAGE": str(target.run.parents[1] / "page.html")}
    arguments = ["agent", *(named.get(word, word) for word in words.split())]
    if words.startswith("runs"):
        arguments += ["--runs", str(target.run.parent)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    monkeypatch.setattr(sys, "argv", arguments)
    code: Any = 0
    with _limited(words), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return code, texts[0], texts[1]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.name)
def test_looking_is_safe(harm: Harm, target: Target, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command that looks ends in time with an exit code of its own and a word; verify finds the harm."""
    harm.do(target)
    before = _fingerprint(target.outside)
    thorough = harm.name in THOROUGH or os.environ.get("INITSEARCH_HOSTILE") == "all"
    for words in ALL_LOOKS if thorough else LOOKS:
        code, out, err = _agent(words, target, good, monkeypatch)
        assert code in (0, 1, 2, 3), (words, code, err)
        assert code == 0 or err.strip() or out.strip(), words
        assert SECRET not in out + err, words
        assert "Traceback" not in out + err, words
        assert not re.search(r"pydantic|validation error|\[Errno|object has no", out + err), (words, out, err)
        steering = set(STEERING) & set(err if words.startswith("export") else out + err)
        assert not {char for char in steering if not char.isprintable()}, words  # a file's bytes go to a program as is
        assert not target.marker.exists(), f"agent {words} ran a program: {target.marker.read_text()}"
        if words == "verify RUN":
            assert code in ((0, 3) if harm.blind else (1, 3)), (code, out, err)
        if words.startswith("runs"):
            assert code == 0, err
            assert "bad" in out
    assert _fingerprint(target.outside) == before
    page = target.run / "report.html"
    if page.is_file() and not page.is_symlink():
        assert SECRET not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("harm", [harm for harm in HARMS if harm.links], ids=lambda harm: harm.name)
def test_acting_is_refused(harm: Harm, target: Target, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume, submit and ablate write in the run: they refuse before anything is started or written."""
    for words in ACTS:
        status = "waiting_for_review" if words.startswith("submit") else "interrupted"
        summary = json.loads((good / "run.json").read_text(encoding="utf-8"))
        (target.run / "run.json").unlink(missing_ok=True)
        (target.run / "run.json").write_text(json.dumps({**summary, "status": status}))
        harm.do(target) if words == ACTS[0] or harm.name.startswith("run.json") else None
        before = _fingerprint(target.outside)
        code, out, err = _agent(words, target, good, monkeypatch)
        if words != "review RUN --approve":
            assert code in (1, 2, 3), (words, out, err)
            assert "error: " in err, err
        assert "Traceback" not in err
        assert _fingerprint(target.outside) == before, words
        assert not target.marker.exists()


def test_the_traps_work(target: Target) -> None:
    """git itself, in the same run directories, runs what the repository names: the suite would notice."""
    for name in ("promisor_remote_for_a_deleted_blob", "signature_program"):
        next(harm for harm in HARMS if harm.name == name).do(target)
        for words in (["log", "-1"], ["cat-file", "blob", "HEAD:sandbox/custom_init.py"]):
            subprocess.run(["git", "-C", str(target.run / "workspace"), *words], capture_output=True, check=False)
        assert target.marker.exists(), name
        target.marker.unlink()


def test_cells_are_no_formulas(target: Target, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spreadsheet that opens `agent runs --csv` computes nothing that a run's author wrote."""
    path = target.run / "run.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    for formula in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
        path.write_text(json.dumps({**summary, "profile": formula, "status": formula}))
        _, out, _ = _agent("runs --csv", target, good, monkeypatch)
        (row,) = csv.DictReader(io.StringIO(out))
        assert not row["profile"].startswith(tuple("=+-@\t\r")), formula
        assert float(row["hidden_gain"]) < 0, "a number stays one"


def test_an_intact_run_is_found_intact(target: Target, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all of the above would be found for no reason."""
    code, out, _ = _agent("verify RUN", target, good, monkeypatch)
    assert (code, "FAULT" in out) == (0, False)
