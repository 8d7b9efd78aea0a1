"""The sample run under tests/data: a finished run made small enough to be kept, and made whole again.

    make sample RUN=latest                              # keep this run, verify it, and take its picture for the README
    python -m tests.sample restore /tmp/sample          # a run folder again: agent show /tmp/sample

The history in `workspace/` is kept as a git bundle, because a repository cannot hold another one's `.git`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agent.errors import AgentError, UsageError
from agent.runs.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests" / "data" / "sample-run"
PICTURE = ROOT / "docs" / "report.png"
MAX_BYTES = 600_000
_KEPT = (
    *("events.jsonl", "study.journal", "network.json", "ablation.json"),
    *("submission.patch", "initialize_weights.py", "reviews.jsonl"),
)
_BUNDLE = "workspace.bundle"
_FOREIGN = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|mnt|media|Users|private|var/folders)/[^\s\"'\\]*")
"""Paths that mean something on one machine only."""


def keep(run: RunDirectory, folder: Path) -> int:
    """Copy what a reader needs of a finished run to `folder` and return its size in bytes.

    Raises UsageError when the run is not finished, is too large, or holds a path of this machine.
    """
    summary = run.read_summary()
    if summary.get("submitted_test") is None or not summary.get("hidden"):
        raise UsageError(f"{run.path}: nothing was submitted and judged on the hidden task; keep a finished run")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name in _KEPT:
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, folder / name)
    for store in (run.results, run.hidden):
        shutil.copytree(store, folder / store.name)
    RunDirectory(folder).write_summary({**summary, "run": run.path.name})
    _git("-C", run.workspace, "bundle", "create", "--quiet", folder.absolute() / _BUNDLE, "--all")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _BUNDLE and (found := _FOREIGN.search(path.read_text(encoding="utf-8"))):
            shutil.rmtree(folder)
            raise UsageError(
                f"{run.path}: {path.name} holds a path of this machine ({found.group()}); search in a clone"
            )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        shutil.rmtree(folder)
        raise UsageError(f"{run.path}: {size:,} bytes are more than a sample may have ({MAX_BYTES:,})")
    return size


def restore(folder: Path, target: Path) -> RunDirectory:
    """A whole run folder again, at `target`, which must not exist."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(_BUNDLE))
    workspace = RunDirectory(target).workspace
    _git("init", "--quiet", "--template=", "--initial-branch=main", workspace)
    fetch = ("fetch", "--quiet", "--update-head-ok", "--no-write-fetch-head")
    _git("-C", workspace, *fetch, folder.absolute() / _BUNDLE, "+refs/*:refs/*")
    _git("-C", workspace, "read-tree", "HEAD")
    _git("-C", workspace, "checkout-index", "--all")
    _unpack(workspace)
    return RunDirectory(target)


def take_picture(page: Path, picture: Path) -> bool:
    """The top of a page, as it stands on a desk, in 128 colours; False where there is no Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        return False
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="initsearch-sample-") as profile:
        shot = Path(profile) / "shot.png"
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")
        place = (f"--user-data-dir={profile}", "--window-size=1100,1000", f"--screenshot={shot}")
        subprocess.run([browser, *flags, *place, page.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(128).save(picture, optimize=True)
    return True


def main(words: list[str]) -> int:
    """`keep RUN` or `restore FOLDER`; the exit code is 1 when the kept sample does not verify."""
    parser = argparse.ArgumentParser(prog="python -m tests.sample", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("keep").add_argument("run", nargs="?", default="latest")
    actions.add_parser("restore").add_argument("folder", type=Path)
    given = parser.parse_args(words)
    try:
        if given.action == "restore":
            print(restore(SAMPLE, given.folder).path)
            return 0
        run = RunDirectory.find(given.run, ROOT / "runs")
        print(f"{SAMPLE}: {keep(run, SAMPLE):,} bytes")
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return _judge()


def _judge() -> int:
    from agent.report import write_report
    from agent.studies.verify import verify

    with tempfile.TemporaryDirectory(prefix="initsearch-sample-") as folder:
        run = restore(SAMPLE, Path(folder) / json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))["run"])
        faults = [check for check in verify(run) if check.fault is not None]
        for check in faults:
            print(f"FAULT {check.what}: {check.fault}", file=sys.stderr)
        taken = take_picture(write_report(run, measure=False), PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes" if taken else "no picture: there is no Chromium here")
    return 1 if faults else 0


def _unpack(workspace: Path) -> None:
    """Loose objects, as a search leaves them."""
    packs = workspace / ".git" / "objects" / "pack"
    with tempfile.TemporaryDirectory(prefix="initsearch-sample-") as folder:
        for number, path in enumerate(sorted(packs.iterdir())):
            shutil.move(path, Path(folder) / f"{number}{path.suffix}")
        for pack in Path(folder).glob("*.pack"):
            _git("-C", workspace, "unpack-objects", "-q", data=pack.read_bytes())


def _git(*words: str | Path, data: bytes = b"") -> None:
    subprocess.run(["git", *map(str, words)], check=True, capture_output=True, timeout=120, input=data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
