"""Finds the numbers in the code of a region, with the range of each, and replaces them by other values.

A number is a float literal that is assigned to a name (also as a parameter's default) or is an exponent. Integers are
not changed, since they count and index; write `2.0` to have a 2 scaled. A comment on the same line sets the range and
the scale, and makes every float literal of its line a number:

    last_gamma = 0.3  # scale: 0.05..1 log
    nn.init.constant_(norm.bias, 0.1)  # scale: -0.2..0.3 linear
    eps = 1e-5  # scale: off

Without a comment a number ranges from a quarter to four times its value on a log scale, and an exponent from one below
to one above its value. Then a negative number keeps its sign, and a zero is not changed.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.suggestions import did_you_mean
from sandbox.parsing import parse

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_COMMENT = re.compile(r"#\s*scale\s*:")
_Scale = tuple[float, float, bool]  # low, high, log
_FACTOR = 4.0
_EXPONENT_REACH = 1.0


class ScaleCommentError(ValueError):
    """A `# scale:` comment cannot be parsed; the message names the line and shows the form."""


class UnknownNumberError(KeyError):
    """The region has no number of the given name."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, with quotes around the sentence.
        return str(self.args[0])


@dataclass(frozen=True)
class ScalableNumber:
    """A float literal in a region and its range. `region[start:end]` is its text, `line` counts from 1.

    `log`: the logarithm is uniform; then `low` is positive. A value can lie outside a range that a comment sets.
    """

    name: str
    value: float
    line: int
    start: int
    end: int
    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class _Literal:
    """A literal in the syntax tree: the node that is replaced, and its context."""

    name: str
    node: ast.expr
    value: float
    exponent: bool
    only_by_comment: bool

    @property
    def digits(self) -> ast.expr:
        """The node without its sign."""
        return self.node.operand if isinstance(self.node, ast.UnaryOp) else self.node


def find_numbers(region: str) -> list[ScalableNumber]:
    """All numbers of a region in the order of the text; names that occur twice get the suffixes _2, _3, …

    Raises SyntaxError when the region is not Python, ScaleCommentError for a comment that cannot be understood.
    """
    tree = parse(region)
    comments = _scale_comments(region)
    lines = _lines(region)
    found: dict[tuple[int, int], _Literal] = {}
    for literal in _literals(tree):
        if not literal.only_by_comment or literal.node.lineno in comments:
            found.setdefault((literal.digits.lineno, literal.digits.col_offset), literal)

    numbers: list[ScalableNumber] = []
    taken: dict[str, int] = {}
    for _, literal in sorted(found.items()):
        node, value, line = literal.node, literal.value, literal.node.lineno
        if line in comments:
            scale = comments[line]
        elif literal.exponent:
            scale = value - _EXPONENT_REACH, value + _EXPONENT_REACH, False
        else:
            node, value = literal.digits, abs(value)
            scale = value / _FACTOR, value * _FACTOR, True
        if scale is None or not math.isfinite(value) or not _usable(*scale):
            continue
        low, high, log = scale
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = lines[line - 1].at(node.col_offset), lines[node.end_lineno - 1].at(node.end_col_offset)
        numbers.append(ScalableNumber(_unused(literal.name, taken), value, line, start, end, low, high, log))
    return numbers


def rescale(region: str, values: Mapping[str, float]) -> str:
    """The region with new values for some of its numbers, with at most four significant digits. The rest is byte-equal.

    A number whose value does not change keeps its text. Raises UnknownNumberError for a name that `find_numbers` does
    not list, ValueError for a value that is not finite, and what `find_numbers` raises.
    """
    numbers = {number.name: number for number in find_numbers(region)}
    for name, value in values.items():
        if name not in numbers:
            hint = did_you_mean(name, numbers)
            raise UnknownNumberError(f"no number {name!r}; {hint}The region has: {', '.join(numbers) or 'none'}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value}")
    for number in reversed(numbers.values()):
        value = values.get(number.name, number.value)
        if value != number.value:
            text = readable(value)
            if text.startswith("-") and region[number.end :].lstrip(" \t").startswith(("**", ".")):
                text = f"({text})"  # a power or an attribute binds more strongly than the sign
            elif not text.startswith("-") and region[: number.start][-1:].isidentifier():
                text = f" {text}"  # the removed sign separated a keyword from the digits
            region = region[: number.start] + text + region[number.end :]
    return region


def readable(value: float) -> str:
    """A float literal with at most four significant digits, such as 0.1 or 2.0 or 1e-05."""
    text = f"{value + 0.0:.4g}"  # adding zero turns -0.0 into 0.0
    return text if any(mark in text for mark in ".e") else f"{text}.0"


def current(numbers: Iterable[ScalableNumber]) -> dict[str, float]:
    """Name → value in the region, clipped to the range. This is the first point of a search."""
    return {number.name: min(max(number.value, number.low), number.high) for number in numbers}


def distributions(numbers: Iterable[ScalableNumber]) -> dict[str, BaseDistribution]:
    """Optuna distributions, by name. The `params` of a trial that was asked for with them are for `rescale`."""
    from optuna.distributions import FloatDistribution

    return {number.name: FloatDistribution(number.low, number.high, log=number.log) for number in numbers}


def _literals(tree: ast.AST) -> Iterator[_Literal]:
    """Float literals in the tree. Strings and the insides of f-strings are skipped."""
    for node in _walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _assigned(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
            yield from _assigned(node.target, node.value)
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            pairs = [*zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True)]
            pairs += [(a, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True) if d is not None]
            for argument, default in pairs:
                yield from _named(argument.arg, default)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            base = f"{node.left.id}_exponent" if isinstance(node.left, ast.Name) else "exponent"
            yield from _named(base, node.right, exponent=True)
        elif isinstance(node, ast.Call) and _called(node) == "pow" and node.args:
            yield from _named("exponent", node.args[-1], exponent=True)
    for node in _walk(tree):  # last, because a literal that was found above keeps its name and its sign
        if isinstance(node, ast.UnaryOp | ast.Constant):
            yield from _named("number", node, only_by_comment=True)


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Parents before children; not into f-strings, whose columns Python 3.11 gets wrong."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.JoinedStr)]


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[_Literal]:
    if isinstance(target, ast.Name | ast.Attribute):
        yield from _named(target.id if isinstance(target, ast.Name) else target.attr, value)
    elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        for one, other in zip(target.elts, value.elts, strict=False):
            yield from _assigned(one, other)


def _named(name: str, node: ast.expr, *, exponent: bool = False, only_by_comment: bool = False) -> Iterator[_Literal]:
    """The literal, if the node is a float with or without a sign."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd):
        node = node.operand
    inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
    if isinstance(inner, ast.Constant) and isinstance(inner.value, float):
        value = inner.value if inner is node else -inner.value
        yield _Literal(name, node, value, exponent, only_by_comment)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _usable(low: float, high: float, log: bool) -> bool:
    """Whether a range can be sampled: not empty, finite, and positive for a log scale."""
    return low < high and math.isfinite(high - low) and (low > 0 or not log)


def _scale_comments(region: str) -> dict[int, _Scale | None]:
    """Line → (low, high, log), or None for "off", from the comments that begin with `scale:`."""
    comments: dict[int, _Scale | None] = {}
    lines = io.StringIO(region.replace("\r\n", "\n").replace("\r", "\n"))
    try:
        tokens = list(tokenize.generate_tokens(lines.readline))
    except tokenize.TokenError as error:
        raise SyntaxError(str(error.args[0])) from error
    for token in tokens:
        if token.type == tokenize.COMMENT and (match := _COMMENT.match(token.string)):
            comments[token.start[0]] = _parse_scale(token.string[match.end() :].strip(), token.start[0])
    return comments


def _parse_scale(text: str, line: int) -> _Scale | None:
    if text == "off":
        return None
    form = "write it as '# scale: 0.05..1 log', '# scale: -1..1 linear' or '# scale: off'"
    first, dots, rest = text.partition("..")
    second, *laws = rest.split() or [""]
    try:
        low, high = float(first), float(second)
    except ValueError:
        low = high = math.nan
    readable_law = laws in ([], ["log"], ["linear"])
    if not dots or first.startswith(".") or not readable_law or not (math.isfinite(low) and math.isfinite(high)):
        raise ScaleCommentError(f"line {line}: cannot read the range {text!r:.200}; {form}")
    log = laws == ["log"] if laws else low > 0
    if low >= high:
        raise ScaleCommentError(f"line {line}: the range {text!r:.200} is empty; {form}")
    if log and low <= 0:
        raise ScaleCommentError(f"line {line}: a log range must begin above zero, not at {low:g}; {form}")
    return low, high, log


@dataclass(frozen=True)
class _Line:
    """The start and the bytes of a line. The tree counts columns in UTF-8 bytes, we count characters."""

    start: int
    content: bytes

    def at(self, column: int) -> int:
        return self.start + len(self.content[:column].decode())


def _lines(region: str) -> list[_Line]:
    lines, start = [], 0
    for content in region.encode().splitlines(keepends=True):
        lines.append(_Line(start, content))
        start += len(content.decode())
    return lines


def _unused(name: str, taken: dict[str, int]) -> str:
    """A name that is not taken yet; `taken` maps each name to the last suffix that was tried for it."""
    candidate, count = name, taken.get(name, 1)
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken[name] = count
    taken.setdefault(candidate, 1)
    return candidate
