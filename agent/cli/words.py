"""The words of a command line: `~` before them, and what was meant where a task file stands at the wrong place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_HOME = re.compile(r"((?:--)?[\w-]+=)?(~(?:/.*)?)")


def with_home(words: Sequence[str]) -> list[str]:
    """The words with `~` expanded where a shell does not: in `--profile=~/my.toml`, and where it was quoted."""
    found = ((word, _HOME.fullmatch(word)) for word in words)
    return [f"{match[1] or ''}{Path(match[2]).expanduser()}" if match else word for word, match in found]


def meant(words: Sequence[str]) -> str | None:
    """The command that a user may have meant who named a task file where it is not taken; None without such a file."""
    plain = [word.removeprefix("--profile=") for word in words]
    file = next((shlex.quote(word) for word in plain if word.endswith(".toml") and not word.startswith("-")), None)
    if file is None:
        return None
    if words[0] == "task":
        return f"agent task {words[1]} {file}" if words[1] in ("check", "new") else None
    return f"agent {words[0]} --profile {file}" if words[0] in ("search", "plan", "baselines") else None
