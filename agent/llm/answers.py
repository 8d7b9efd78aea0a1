"""Parse what a server sent into an `Answer`. Servers that deviate from the API are tolerated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.llm.streamed import is_stream, joined
from agent.llm.thoughts import split_thoughts

MAX_TEXT = 64 * 1024
"""Characters that are kept of any one text of an answer: a region may have 16 kB."""

_NAME = re.compile(r"(?:(?:functions?|tools?|default_api)[.:])?(?P<name>[^<:]*)(?::\d+)?(?:<\|.*)?", re.DOTALL)
_UNPARSED = re.compile(
    r"error parsing tool call: raw='(?P<raw>.*)', err=|Failed to parse input at pos \d+: (?P<rest>.*)", re.DOTALL
)
_REASONING_FIELDS = ("reasoning_content", "reasoning")
_THOUGHT_PARTS = ("thinking", "reasoning")
_ARGUMENT_FIELDS = ("arguments", "parameters", "args", "input")
_LONGEST_ID = 16 * 1024  # characters: some gateways hide the signature of a thought in the id
CARRIED = ("reasoning_details", "thinking_blocks", "extra_content", "provider_specific_fields")
"""Fields in which servers sign thoughts. They want them back with the message or the call that had them."""


class BadBody(Exception):
    """A body with status 200 that holds no answer. `about` is the message of the error inside it.

    `whole`: that error as JSON. `busy`: its code means that the server will answer later.
    """

    def __init__(self, message: str, error: Any = None) -> None:
        super().__init__(message)
        self.about = "" if error is None else _error_text(error)
        self.whole = "" if error is None else clean(json.dumps(error, ensure_ascii=False))
        self.busy = isinstance(error, dict) and str(error.get("code")) in ("429", "503", "529")


@dataclass(frozen=True)
class WireCall:
    """A tool call as the model wrote it; `arguments` should be JSON and may be anything."""

    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Its fields in `CARRIED`."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one request and its answer; `cost` is what the server says it charged, in dollars."""

    prompt: int
    completion: int
    estimated: bool = False
    """True when the server sent no usage, so that four characters were counted as one token."""
    cost: float | None = None

    @property
    def total(self) -> int:
        """Prompt tokens plus completion tokens."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class Answer:
    """One answer of a model. A resumed run reads it from the log."""

    text: str = ""
    reasoning: str = ""
    reasoning_field: str = ""
    """The field in which the reasoning came; some servers want it back in the same field."""
    calls: tuple[WireCall, ...] = ()
    finish_reason: str = ""
    model: str = ""
    usage: Usage = Usage(0, 0, estimated=True)
    seconds: float = 0.0
    """Wall time of the request with its retries."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the message that are in `CARRIED`."""

    def as_content(self) -> dict[str, Any]:
        """The answer as plain JSON for the event log; `from_content` reads it."""
        return {
            "message": {
                "content": self.text,
                "reasoning": self.reasoning,
                "reasoning_field": self.reasoning_field,
                "tool_calls": [
                    {
                        "id": call.id,
                        "name": call.name,
                        "arguments": call.arguments,
                        **({"extra": call.extra} if call.extra else {}),
                    }
                    for call in self.calls
                ],
                **({"extra": self.extra} if self.extra else {}),
            },
            "finish_reason": self.finish_reason,
            "model": self.model,
            "usage": {
                "prompt": self.usage.prompt,
                "completion": self.usage.completion,
                "estimated": self.usage.estimated,
                "cost": self.usage.cost,
            },
            "seconds": self.seconds,
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Answer:
        """The answer that `as_content` wrote down. Raises KeyError or TypeError when it did not."""
        message = content["message"]
        return cls(
            text=message["content"],
            reasoning=message["reasoning"],
            reasoning_field=message["reasoning_field"],
            calls=tuple(WireCall(**call) for call in message["tool_calls"]),
            finish_reason=content["finish_reason"],
            model=content["model"],
            usage=Usage(**content["usage"]),
            seconds=content["seconds"],
            extra=message.get("extra", {}),
        )


def parse_answer(body: str, *, sent_characters: int) -> Answer:
    """Read the body of a 200. `sent_characters` is the size of the request, for servers that do not count tokens.

    The work grows in proportion to the body. Raises BadBody for HTML, an empty body, an error with status 200, no
    choice at all, or JSON that is nested too deeply to be read.
    """
    try:
        return _parse(body, sent_characters)
    except RecursionError:
        raise BadBody(f"the server answered with JSON that is nested too deeply: {_quote(body)}") from None


def failed_generation(body: Any, sent_characters: int = 0) -> Answer | None:
    """What the model wrote, where a server refuses its own model's answer because it holds no proper call.

    Groq has it in a field, Ollama and llama.cpp in the message of the error.
    """
    fields = body if isinstance(body, dict) else {}
    written, found = fields.get("failed_generation"), _UNPARSED.search(str(fields.get("message")))
    if not isinstance(written, str):
        if found is None:
            return None
        written = found["raw"] or found["rest"] or ""
    return _read({}, {"finish_reason": "tool_use_failed"}, {"content": written}, sent_characters)


def _parse(body: str, sent_characters: int) -> Answer:
    try:
        body = body.removeprefix("\ufeff")
        data = joined(body) if is_stream(body) else json.loads(body, strict=False)
    except (ValueError, RecursionError):
        raise BadBody(f"the server answered with something that is not JSON: {_quote(body)}") from None
    if not isinstance(data, dict):
        raise BadBody(f"the server answered with JSON that is no completion: {_quote(body)}")
    if error := data.get("error"):
        raise BadBody(f"the server answered 200 with an error: {_quote(_error_text(error))}", error)
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(choice, dict):
        error = choice.get("error") or (message.get("error") if isinstance(message, dict) else None)
        if error or choice.get("finish_reason") == "error":
            error = error or "finish_reason is error"
            raise BadBody(f"the server answered 200 with an error in its choice: {_quote(_error_text(error))}", error)
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise BadBody(f"the server's answer holds no message: {_quote(body)}")
    for other in choices[1:] if isinstance(choices, list) else []:  # one answer in parts: its calls in a later choice
        parts = other.get("message") if isinstance(other, dict) else None
        if isinstance(parts, dict):
            message = {**message, **{name: value for name, value in parts.items() if value and not message.get(name)}}
    answer = _read(data, choice, message, sent_characters)
    uncounted = answer.usage.estimated or answer.usage.prompt == 0
    if uncounted and not (answer.text.strip() or answer.reasoning or answer.calls):
        raise BadBody("the server answered with nothing, and counted no tokens for it")
    return answer


def _error_text(error: Any) -> str:
    return clean(str(error.get("message") or error) if isinstance(error, dict) else str(error))


def _read(data: dict[str, Any], choice: dict[str, Any], message: dict[str, Any], sent_characters: int) -> Answer:
    text = _text(message.get("content")) or _text(message.get("refusal"))
    field = next((name for name in _REASONING_FIELDS if _text(message.get(name))), "")
    reasoning = _text(message.get(field)) if field else ""
    thought, text = split_thoughts(text)
    reasoning = "\n\n".join(filter(None, (reasoning, _thoughts(message.get("content")), thought)))
    raw_calls = message.get("tool_calls")
    calls = list(raw_calls) if isinstance(raw_calls, list) else [raw_calls] if isinstance(raw_calls, dict) else []
    if not calls and isinstance(message.get("function_call"), dict):
        calls = [{"function": message["function_call"]}]
    wire_calls = tuple(
        call for number, item in enumerate(calls, start=1) if (call := _wire_call(item, number)) is not None
    )
    written = len(text) + len(reasoning) + sum(len(call.arguments) for call in wire_calls)
    return Answer(
        text=clip(text),
        reasoning=clip(reasoning),
        reasoning_field=field,
        calls=tuple(replace(call, arguments=clip(call.arguments)) for call in wire_calls),
        finish_reason=clean(str(choice.get("finish_reason") or ""))[:100],
        model=clean(str(data.get("model") or ""))[:200],
        usage=_usage(data.get("usage"), sent_characters, written),
        extra=_carried(message),
    )


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters of a text, its beginning and its end, and how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… ({len(text) - limit:,} characters left out) …\n{text[-(limit // 2) :]}"


def clean(text: str) -> str:
    """Half surrogate pairs, which JSON can carry and UTF-8 cannot, become question marks."""
    return text.encode("utf-8", "replace").decode()


def _text(value: Any) -> str:
    """A text, or the texts in a list of parts. Thoughts among the parts are none of them."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        said = [part for part in value if not (isinstance(part, dict) and part.get("type") in _THOUGHT_PARTS)]
        return "".join(_text(part.get("text")) if isinstance(part, dict) else _text(part) for part in said)
    return ""


def _thoughts(content: Any) -> str:
    """The thoughts in a list of parts: Mistral has a list of texts in such a part, others one text."""
    parts = content if isinstance(content, list) else []
    kinds = [(part, part["type"]) for part in parts if isinstance(part, dict) and part.get("type") in _THOUGHT_PARTS]
    return "\n\n".join(filter(None, (_text(part.get(kind)) or _text(part.get("text")) for part, kind in kinds)))


def _wire_call(item: Any, number: int) -> WireCall | None:
    """A call from an entry of `tool_calls`; some servers write name and arguments beside `function` or without it."""
    if not isinstance(item, dict):
        return None
    function = item.get("function")
    holder = function if isinstance(function, dict) else item
    name = function if isinstance(function, str) else holder.get("name") or item.get("name")
    if not isinstance(name, str) and holder is item:
        return None
    identity = item.get("id")
    return WireCall(
        clean(identity) if isinstance(identity, str) and 0 < len(identity) <= _LONGEST_ID else f"call_{number}",
        plain_name(clean(str(name or "")))[:100],
        plain_arguments(next((one[key] for one in (holder, item) for key in _ARGUMENT_FIELDS if key in one), None)),
        _carried(item),
    )


def _carried(holder: dict[str, Any]) -> dict[str, Any]:
    """The fields of a message or call that go back with it, if they are not too long."""
    found = {name: holder[name] for name in CARRIED if holder.get(name)}
    written = clean(json.dumps(found, ensure_ascii=False))
    return json.loads(written) if len(written) <= MAX_TEXT else {}


def plain_name(name: str) -> str:
    """A tool's name without what servers leave around it: `functions.test`, `test<|channel|>commentary`, `test:0`."""
    found = _NAME.fullmatch(name.strip())
    return found["name"].strip() if found and found["name"].strip() else name.strip()


def plain_arguments(arguments: Any) -> str:
    """Arguments as the text of a JSON object, where they are none at all or were encoded twice."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    for _ in range(2):
        if written.strip() in ("", "null", "[]", '""', "None"):
            return "{}"
        if not written.lstrip().startswith('"'):
            break
        try:
            inner = json.loads(written, strict=False)
        except (ValueError, RecursionError):
            break
        written = inner if isinstance(inner, str) else written
    return clean(written)


def _usage(value: Any, sent: int, written: int) -> Usage:
    counts = value if isinstance(value, dict) else {}
    prompt, completion = (_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    if prompt is None or completion is None:
        return Usage(sent // 4, written // 4, estimated=True)
    cost = counts.get("cost")
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e6
    return Usage(prompt, completion, cost=float(cost) if known and cost is not None else None)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _quote(text: str) -> str:
    flat = " ".join(clean(text[:2000]).split())
    return repr(flat[:200] + ("…" if len(flat) > 200 else "")) if flat else "an empty body"
