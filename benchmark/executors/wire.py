"""Answers and reports as JSON, for engines whose workers are other machines: nothing that comes back is unpickled."""

from __future__ import annotations

import functools
import importlib
import json
from typing import Any

from pydantic import TypeAdapter

from benchmark.executors.seam import AnswerT, Call, InfrastructureError

MAX_ANSWER_BYTES = 16 * 2**20
"""Largest answer that is read. The result of an evaluation has a few kilobytes: a point of its curve for each epoch."""


def answer_to_json(call: Call[AnswerT], answer: AnswerT) -> str:
    """The answer of a call as JSON, by the type that the call's signature names."""
    return json.dumps(_adapter(type(call)).dump_python(answer, mode="json"))


def answer_from_json(call: Call[AnswerT], text: str | bytes) -> AnswerT:
    """The answer of a call from JSON that a worker sent. Raises InfrastructureError if it is no such answer."""
    try:
        if len(text) > MAX_ANSWER_BYTES:
            raise ValueError(f"{len(text):,} bytes")
        answer: AnswerT = _adapter(type(call)).validate_python(parsed(text))
    except ValueError as error:
        raise InfrastructureError(f"a worker's answer is none: {' '.join(str(error).split())[:300]}") from None
    return answer


def report_to_json(content: Any) -> str:
    """A report as JSON."""
    return json.dumps(TypeAdapter(type(content)).dump_python(content, mode="json"))


def report_from_json(call: Call[Any], text: str | bytes) -> Any:
    """A report from JSON; of the type that the call names as `reports`, if it names one. Raises ValueError."""
    if len(text) > MAX_ANSWER_BYTES:
        raise ValueError("a report is too large")
    return _report_adapter(getattr(type(call), "reports", Any)).validate_python(parsed(text))


def parsed(text: str | bytes) -> Any:
    """What JSON of another machine says. Raises ValueError, also when it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@functools.cache
def _adapter(call_type: type[Any]) -> TypeAdapter[Any]:
    function = call_type.__call__
    answer = function.__annotations__["return"]
    return TypeAdapter(eval(answer, function.__globals__) if isinstance(answer, str) else answer)


@functools.cache
def _report_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


_CALLS = (
    *("agent.evaluation.calls", "agent.engine.search_cost"),
    *("benchmark.cost", "benchmark.executors.checks", "benchmark.hardware"),
)
"""Modules whose calls may be named in a file."""


def call_to_json(call: Call[Any]) -> tuple[str, bytes]:
    """A call as JSON, and its tensors as bytes (empty without)."""
    split = getattr(call, "without_tensors", None)
    plain, tensors = (call, b"") if split is None else split()
    kind = type(plain)
    fields = TypeAdapter(kind).dump_python(plain, mode="json")
    return json.dumps({"module": kind.__module__, "name": kind.__name__, "fields": fields}), tensors


def call_from_json(text: str | bytes, tensors: bytes, modules: tuple[str, ...] = _CALLS) -> Call[Any]:
    """The call of `call_to_json`. Raises ValueError when it is none of ours."""
    found = json.loads(text)
    module, name = str(found["module"]), str(found["name"])
    kind = getattr(importlib.import_module(module), name, None) if module in modules else None
    if not isinstance(kind, type):
        raise ValueError(f"{module}.{name} is no call")
    call: Any = TypeAdapter(kind).validate_python(found["fields"])
    return call.with_tensors(tensors) if tensors else call  # type: ignore[no-any-return]
