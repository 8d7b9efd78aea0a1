"""Values of JSON that anybody may have written: each function gives one type, or what stands for none."""

from __future__ import annotations

import json
import math
from typing import Any


def text(value: object) -> str:
    """An untrusted value as text; "" for None."""
    return "" if value is None else str(value)


def number(value: object) -> float | None:
    """The untrusted value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond what a float can hold
        return None


def whole(value: object) -> int | None:
    """The untrusted value if it is an integer, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def mapping(value: object) -> dict[str, Any]:
    """The untrusted value if it is a JSON object, else {}."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The JSON objects of the untrusted value if it is a list, else []."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def unwrapped(value: object) -> object:
    """The untrusted value, or the JSON object that it is the text of, as programs keep the arguments of calls."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, dict) else value
