"""Run directories for the tests of page and review: a finished run, and ways to spoil a copy of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.runs.directory import RunDirectory

Fields = dict[str, Any]

HOSTILE = (
    "</pre></details><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<style>body{display:none}</style>{{ 7*7 }}{% raw %} &amp; \" ' ` ]]> <!-- --> \x00\x1b[31m \u202eevil"
)
SCRIPTS = "العربية עברית हिन्दी ไทย 中文 日本語 한국어 Ελληνικά кириллица አማርኛ 👩‍💻 ∑√∞"


def every_script() -> str:
    """Two characters of each writing system that Unicode names: the first words of their names tell them apart."""
    found: dict[str, str] = {}
    for point in range(0x80, sys.maxunicode + 1):
        char = chr(point)
        if unicodedata.category(char)[0] in "LN":
            script = unicodedata.name(char, "").partition(" ")[0]
            if len(found.get(script, "")) < 2:
                found[script] = found.get(script, "") + char
    return " ".join(found.values())


def copy_run(run: Path, folder: Path) -> RunDirectory:
    """A copy of a run directory that may be spoilt."""
    target = folder / run.name
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("report.html", ".lock"))
    return RunDirectory(target)


def read_log(run: RunDirectory) -> list[Fields]:
    """The events as dictionaries."""
    return [json.loads(line) for line in run.events.read_text(encoding="utf-8").splitlines()]


def write_log(run: RunDirectory, events: list[Fields]) -> None:
    """Write events as a log whose hash chain is right."""
    lines, previous = [], "0" * 64
    for seq, event in enumerate(events):
        line = json.dumps({**event, "seq": seq, "previous": previous}, ensure_ascii=False)
        previous = hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()
        lines.append(line + "\n")
    run.events.write_bytes("".join(lines).encode("utf-8", "surrogatepass"))


def change_log(run: RunDirectory, change: Callable[[Fields], Fields | None]) -> None:
    """Rewrite the log event by event; None drops one."""
    write_log(run, [changed for event in read_log(run) if (changed := change(event)) is not None])


def change_summary(run: RunDirectory, **changes: Any) -> None:
    """Set fields of run.json; None removes one."""
    summary = run.read_summary() | changes
    run.write_summary({name: value for name, value in summary.items() if value is not None})
