"""Reads from a server's headers or text how long it asks to wait."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

_NUMBER = r"(\d{1,6}(?:\.\d{1,6})?)"
_ASKS = r"(?:retry|try again|wait|available)[^.\d\n]{0,40}?"
_IN_WORDS = re.compile(rf"{_ASKS}{_NUMBER} ?(ms|s|sec|seconds?|m|minutes?|h|hours?)\b", re.IGNORECASE)
_IN_PARTS = re.compile(
    rf"{_ASKS}((?:\d{{1,6}}h)?(?:\d{{1,6}}m)?\d{{1,6}}(?:\.\d{{1,9}})?s)\b", re.IGNORECASE
)  # 7m12.5s
_IN_FIELDS = re.compile(rf"(?:retry[_-]?after|estimated_time)\W{{1,6}}{_NUMBER}", re.IGNORECASE)
_RESET_FIELD = re.compile(r"x-ratelimit-reset\W{1,6}(\d{1,16})", re.IGNORECASE)
_RETRY_DELAY = re.compile(rf"retry_?delay\W{{1,6}}{_NUMBER}s", re.IGNORECASE)
_DURATION = re.compile(
    r"(?:(\d{1,4})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,6}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)
_RESET_HEADERS = ("x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", "ratelimit-reset")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def asked_to_wait(headers: Mapping[str, str], said: str) -> float | None:
    """Seconds that the server asks to wait, from its headers, else from its text `said`; None when it does not say.

    Known: `Retry-After-Ms`, `Retry-After` (seconds, "20s" or a date), `X-RateLimit-Reset` (seconds, a duration such as
    "1m30s", or an epoch in seconds or milliseconds), "Please retry in 22.3s", "try again in 7m12.5s",
    `"retryDelay": "22s"`, and `retry_after`, `estimated_time` or `X-RateLimit-Reset` in the body.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _amount(headers.get(name, ""))
        if seconds:  # 0 says nothing
            return seconds * unit
    parsed = email.utils.parsedate_tz(headers.get("retry-after", ""))
    if parsed:
        return max(0.0, email.utils.mktime_tz(parsed) - time.time())
    if match := _RETRY_DELAY.search(said):
        return float(match[1])
    if match := _IN_PARTS.search(said):
        return _amount(match[1].lower())
    if match := _IN_WORDS.search(said):
        unit_name = match[2].lower()
        return float(match[1]) * _SECONDS["ms" if unit_name == "ms" else unit_name[0]]
    if match := _IN_FIELDS.search(said):
        return float(match[1])
    if match := _RESET_FIELD.search(said):
        return _from_epoch(float(match[1]))
    resets = [seconds for name in _RESET_HEADERS if (seconds := _amount(headers.get(name, ""))) is not None]
    return max((_from_epoch(seconds) for seconds in resets), default=None)


def _amount(text: str) -> float | None:
    """Seconds in "20", "20s" or "1m30.5s"; None for anything else."""
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        match = _DURATION.fullmatch(text)
        if not text or match is None:
            return None
        hours, minutes, rest, thousandths = (float(part or 0) for part in match.groups())
        seconds = 3600 * hours + 60 * minutes + rest + thousandths / 1000
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _from_epoch(seconds: float) -> float:
    """Seconds to wait. A number so large that it is a point in time, in seconds or milliseconds, is converted."""
    now = time.time()
    if seconds > 1e12:
        seconds /= 1000
    return max(0.0, seconds - now) if seconds > 1e9 else seconds
