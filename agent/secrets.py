"""API keys: reads them from the environment, hides them from child processes, removes them from texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

KEY_VARIABLE = "OPENAI_API_KEY"

_SECRET_NAME = re.compile(r"(_API_KEY|_TOKEN|_SECRET|_PASSWORD)$", re.IGNORECASE)
_LOOKS_LIKE_KEY = re.compile(r"\b(?:sk|rk|pk)-[A-Za-z0-9_\-*]{8,}|\b(?:gsk|hf|xai)[_-]\w{20,}|(?<=Bearer )[^\s\"']{8,}")
_SHORTEST = 8  # a shorter "key" is a placeholder such as `none`, and occurs in ordinary text


def read_key(environ: Mapping[str, str]) -> str | None:
    """The key in the environment, or None when the variable is missing or blank."""
    return environ.get(KEY_VARIABLE, "").strip() or None


def without_key(text: str, key: str) -> str:
    """`text` with every occurrence of the key replaced by `[key]`."""
    return text.replace(key, "[key]") if len(key) >= _SHORTEST else text


def scrub(text: str, key: str) -> str:
    """`text` without the key, and without anything that looks like a key. For messages to people."""
    return _LOOKS_LIKE_KEY.sub("[key]", without_key(text, key))


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a key, token, secret or password."""
    return _SECRET_NAME.search(name) is not None


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """A copy of an environment for a child that must know no secret."""
    return {name: value for name, value in environ.items() if not is_secret(name)}


@contextmanager
def kept_from_children() -> Iterator[dict[str, str]]:
    """Remove all secrets from `os.environ` while the block runs, so that no child inherits them. Yields the secrets."""
    secrets = {name: value for name, value in os.environ.items() if is_secret(name)}
    for name in secrets:
        del os.environ[name]
    try:
        yield secrets
    finally:
        os.environ.update(secrets)
