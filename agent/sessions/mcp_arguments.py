"""What a model reads when it calls a tool with wrong arguments: what is wrong, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

_KINDS = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"}


def wrong_arguments(tool: str, parameters: Mapping[str, Any], error: ValidationError) -> str:
    """The reply to a call that does not fit the tool's JSON schema `parameters`."""
    properties: Mapping[str, Any] = parameters.get("properties", {})
    faults: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        name, *inside = fault["loc"] or ("the call",)
        allowed = allowed_values(properties.get(str(name), {}))
        place = f" ({name}[{inside[0]}])" if inside and isinstance(inside[0], int) else ""
        wrong = f"{name} must be {allowed}, not {_shortened(fault['input'])}{place}"
        faults.setdefault(f"{name}{place}", f"{name} ({allowed}) is missing" if fault["type"] == "missing" else wrong)
    takes = ", ".join(f"{name} ({allowed_values(schema)})" for name, schema in properties.items())
    return (
        f"ERROR: Invalid arguments for '{tool}': {'; '.join(faults.values())}. Nothing was changed or spent. "
        f"Call {tool} again with: {takes}"
    )


def allowed_values(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed_values(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kind = schema.get("type")
    if kind == "array":
        return "a list of texts" if schema.get("items", {}).get("type") == "string" else "a list"
    words = _KINDS.get(str(kind), "an object")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return words
    return f"{words} of at least {low:g}" if high is None else f"{words} from {low:g} to {high:g}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
