"""Calls written as Python, such as `[edit(op="insert", after_line=3, content="…"), test()]`. Nothing is evaluated.

Llama 3.2 and 4, Gemma 3, Olmo 3 and LFM 2 write them: in a list, one on each line, or as `print(default_api.test())`.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from typing import Any

_LONGEST = 64 * 1024  # characters of one list or one call
_DEEPEST = 8
_MOST = 200  # calls; an answer may hold ten
_CALL = re.compile(r"\[\s{0,99}[\w.]{1,100}\(|[\w.]{1,100}\(")
_BETWEEN = re.compile(r"[\s,;]*")
_TOKEN = re.compile(
    r'''(?P<text>"""(?:[^"\\]|\\.|"(?!""))*+"""|\'\'\'(?:[^'\\]|\\.|'(?!\'\'))*+\'\'\'
        |(?P<short>"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'))
    |(?P<open>[\[({])|(?P<close>[\])}])|(?P<unclosed>["'])''',
    re.VERBOSE | re.DOTALL,
)
_LINE_BREAK = re.compile(r"\\.|\r\n?|\n", re.DOTALL)


def python_calls(text: str, position: int = 0) -> tuple[list[dict[str, Any]], int, bool]:
    """The calls that follow one another from `position` on, where they end, and whether what follows only looks so.

    Each call is an object with `name` and `arguments`, as in JSON. The values of arguments are literals.
    """
    found: list[dict[str, Any]] = []
    end, following = position, after_separators(text, position)
    while len(found) < _MOST and _CALL.match(text, following):
        calls, after = one_python_list(text, following)
        if not calls:
            return found, end, True
        found += calls
        end, following = after, after_separators(text, after)
    return found, end, False


def one_python_list(text: str, position: int) -> tuple[list[dict[str, Any]], int]:
    """The calls of the one list, or the one call, that begins at `position`, and its end; `position`: there is none."""
    source, end = _balanced(text, position)
    calls = _read(source) if source else []
    return calls, end if calls else position


def only_python_calls(text: str) -> list[dict[str, Any]]:
    """The calls of a text that holds nothing else; an empty list where it holds more."""
    found, end, _ = python_calls(text)
    return found if after_separators(text, end) == len(text) else []


def python_dict(text: str) -> dict[str, Any] | None:
    """The dict that a text is in Python's notation, which some servers send in place of JSON; None for any other."""
    source, end = _balanced(text, len(text) - len(text.lstrip()))
    try:
        value = _plain(ast.literal_eval(source.strip())) if end == len(text.rstrip()) else None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def after_separators(text: str, position: int) -> int:
    """The first position that is neither white space nor a comma or semicolon."""
    found = _BETWEEN.match(text, position)
    return found.end() if found else position


def _balanced(text: str, start: int) -> tuple[str, int]:
    """The text from `start` to the bracket that closes its first one, and where that ends; an empty text: it is open.

    Line breaks in short strings, which models write and Python refuses, are escaped.
    """
    parts, depth, copied = [], 0, start
    for token in _TOKEN.finditer(text, start, start + _LONGEST):
        if token["unclosed"]:
            break
        if token["short"]:
            parts += [text[copied : token.start()], _LINE_BREAK.sub(_escaped, token["short"])]
            copied = token.end()
        depth += bool(token["open"]) - bool(token["close"])
        if depth > _DEEPEST:
            break
        if token["close"] and depth <= 0:
            return "".join([*parts, text[copied : token.end()]]), token.end()
    return "", start


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\\") else r"\n"


def _read(source: str) -> list[dict[str, Any]]:
    """The calls in one list or one call; an empty list where anything else stands there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            value = ast.parse(source, mode="eval").body
        return [_call(one) for one in (value.elts if isinstance(value, ast.List) else [value])]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _call(node: ast.expr) -> dict[str, Any]:
    """One call. A value without a name is `n` if it is a number, else `content`. Raises ValueError for all else."""
    if not isinstance(node, ast.Call):
        raise ValueError
    name = ast.unparse(node.func)
    if name == "print" and len(node.args) == 1 and isinstance(node.args[0], ast.Call):
        return _call(node.args[0])
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    given |= {"content" if isinstance(value, str) else "n": value for value in map(ast.literal_eval, node.args)}
    if None in given or len(given) < len(node.args) + len(node.keywords):
        raise ValueError
    return {"name": name, "arguments": {str(key): _plain(value) for key, value in given.items()}}


def _plain(value: Any) -> Any:
    """A literal as JSON has it. Raises ValueError for a literal that JSON does not have."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    numeric = isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**63
    if numeric or value is None or isinstance(value, str):
        return value
    raise ValueError
