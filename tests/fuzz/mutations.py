"""Structural damage: JSON documents and texts with parts replaced, removed and repeated."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

_DEEP = "@deep@"
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3.5, 10**30, -(10**400), 1e308, float("inf"), float("nan")),
    *("", " ", "\n", "\0", "\ud800", "é" * 50, "x" * 5000, "1", "-1", "nan", "../..", "/", "\r", "\x1b[2J", _DEEP),
    *([], {}, [[]], [None], {"": {}}, [0, 1], ["a", 1], {"name": 1}, {"text": []}, [[_DEEP]]),
)
"""Values that no author of a file has in mind; the mark stands for thousands of brackets."""

PIECES = (
    *("```", "```python\n", "~~~", "<tool_call>", "</tool_call>", "<think>", "</think>", "{", "}", "[", "]", '"', "'"),
    *("\n", "\n\n", "\r", "\t", " " * 40, "\0", "\ud800", "\x0c", "def initialize_weights(model, config):\n    pass\n"),
    *(
        "def initialize_weights",
        '{"tool": "edit", "n": 1}',
        '{"name": "submit", "arguments": "{}"}',
        "# scale: 1..2 log",
    ),
    *(
        "# scale: off",
        "\\",
        "f'{",
        "lambda:",
        "not ",
        "(",
        ")",
        "-",
        "1.5",
        "x = 0.5",
        "x" * 200,
        "é",
        "😀",
        "finally:",
    ),
    *(
        "[Test #1] (2 tests remaining)",
        "[Current file: a.py | editable: 1–2 | total: 3 lines]\n",
        "Editable range: 1–9.",
    ),
    *(
        "## a.py  [EDITABLE — lines 1–2 only]\n",
        "     1: x\n",
        "     1  x\n",
        "### task (",
        "[Leaderboard] {'a_b': 1.0}",
    ),
    *("label: `x`", "hidden", "99999", "0", "–", "a = [", "{name = 1}", "[[a]]", "inf", "=", "true", ",", ": "),
)


def mutated(document: Any, random: random.Random) -> Any:
    """A copy of a JSON document with one to four of its parts replaced, removed, repeated or exchanged."""
    root = [copy.deepcopy(document)]
    for _ in range(random.randint(1, 4)):
        container, key = random.choice(list(_places(root)))
        match random.randint(0, 5):
            case 0 if container is not root:
                del container[key]
            case 1 if isinstance(container, list) and container is not root:
                container[key:key] = [copy.deepcopy(container[key])] * random.randint(1, 3)
            case 2:
                other, place = random.choice(list(_places(root)))
                container[key] = copy.deepcopy(other[place])
            case 3 if isinstance(container[key], str):
                container[key] = spliced(container[key], random)
            case 4 if isinstance(container, dict):
                container[random.choice(["", "x", "\ud800", "initsearch", "step", "kind"])] = container[key]
            case _:
                container[key] = copy.deepcopy(random.choice(STRANGE))
    return root[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    keys: Sequence[Any] = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def spliced(text: str, random: random.Random) -> str:
    """A text with one to four places cut, repeated or filled with something that has a meaning somewhere."""
    for _ in range(random.randint(1, 4)):
        first, last = sorted(random.randint(0, len(text)) for _ in range(2))
        match random.randint(0, 3):
            case 0:
                text = text[:first] + text[last:]
            case 1:
                text = text[:last] + text[first:last][:2000] * random.randint(1, 3) + text[last:]
            case 2:
                text = text[:first] + random.choice(PIECES) * random.choice([1, 1, 2, 50]) + text[first:]
            case _:
                text = (
                    text[:first] + chr(random.choice([0, 9, 13, 34, 39, 92, 123, 133, 0x2028, 0xD800])) + text[first:]
                )
    return text[:100_000]


def as_json(document: Any, random: random.Random) -> bytes:
    """JSON as a careless program writes it, with NaN, half surrogates and thousands of brackets; at times damaged."""
    text = json.dumps(document).replace(f'"{_DEEP}"', "[" * 5000 + "]" * 5000)
    data = text.encode()
    return bytes_mutated(data, random) if random.random() < 0.25 else data


def bytes_mutated(data: bytes, random: random.Random) -> bytes:
    """Bytes with one to three places cut, flipped or filled."""
    for _ in range(random.randint(1, 3)):
        first, last = sorted(random.randint(0, len(data)) for _ in range(2))
        match random.randint(0, 3):
            case 0:
                data = data[:first]
            case 1:
                data = data[:first] + data[last:]
            case 2:
                data = (
                    data[:first] + random.choice([b"\xff", b"\0", b"\n", b"{", b"9" * 5000, b"\\ud800"]) + data[first:]
                )
            case _:
                data = data[:first] + bytes([random.randint(0, 255)]) + data[first + 1 :]
    return data
