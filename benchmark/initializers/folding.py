"""Constants out of a Python expression, without running it: dicts, lists, numbers, arithmetic, and math's functions."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.initializers.errors import InitConfigError

_MATH_MODULES = ("math", "np", "numpy", "torch")
_CONSTANTS = {name: getattr(math, name) for name in ("pi", "e", "tau")}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    name: getattr(math, name) for name in ("sqrt", "exp", "log", "log2", "log10", "pow", "sin", "cos")
}
_BUILT_IN: Mapping[str, Callable[..., float]] = {"float": float, "abs": abs, "min": min, "max": max}
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}

_MOST_ENTRIES = 1000


class NotConstantError(Exception):
    """An expression whose value only running it would tell."""


def fold(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of an expression: dict(…) and {…}, lists, constants, arithmetic of numbers, math.sqrt and its like.

    `names` gives the values of plain names, such as those that the file assigns before. A tuple becomes a list.
    Raises InitConfigError with the line for anything else, and for arithmetic that fails.
    """
    try:
        return _fold(node, names)
    except NotConstantError as error:
        (culprit,) = error.args
        raise InitConfigError(
            f"line {culprit.lineno}: {_shown(culprit)} would have to be run; only dicts, lists, numbers, strings and "
            "arithmetic are read"
        ) from None
    except OverflowError:
        raise InitConfigError(f"line {node.lineno}: {_shown(node)}: a number is out of range") from None
    except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise InitConfigError(f"line {node.lineno}: {_shown(node)}: {error}") from None


def _shown(node: ast.expr) -> str:
    try:
        return repr(ast.unparse(node)[:60])
    except (RecursionError, ValueError):
        return "a huge expression"


def _fold(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value) if isinstance(value, str | int | float | None):
            return value
        case ast.Call(func=ast.Name(id="dict" | "ConfigDict"), args=[], keywords=keywords):
            given = [word.arg for word in keywords if word.arg is not None]
            if twice := next((name for name in given if given.count(name) > 1), None):
                raise ValueError(f"{twice} is given twice")  # as Python says, which is not asked here
            return _merged([(word.arg, word.value) for word in keywords], names)
        case ast.Dict(keys=keys, values=values) if all(key is None or isinstance(key, ast.Constant) for key in keys):
            constants = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            return _merged(list(zip(constants, values, strict=True)), names)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [one for element in elements for one in _elements(element, names)]
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Attribute(attr=name) if name.endswith("Init") and name in names:
            return names[name]  # a class by its full path, as in mmengine.model.KaimingInit
        case ast.Attribute(value=ast.Name(id="nn" | "torch.nn") | ast.Attribute(attr="nn"), attr=name):
            return name  # layer=nn.Conv2d
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _number(operand, names)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return float(_number(left, names)) ** float(_number(right, names))  # floats overflow early, integers never
        case ast.BinOp(left=left, op=ast.Add() | ast.BitOr(), right=right) if _joinable(a := _fold(left, names)):
            b = _fold(right, names)
            if not _joinable(b) or len(a) + len(b) > _MOST_ENTRIES:
                raise NotConstantError(node)
            return a | b if isinstance(node.op, ast.BitOr) else a + b
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATORS:
            return _OPERATORS[type(operation)](_number(left, names), _number(right, names))
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _MATH_MODULES and name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=function, args=arguments, keywords=[]):
            called = _function(function)
            if called is not None:
                return called(*(float(_number(argument, names)) for argument in arguments))
    raise NotConstantError(node)


def _elements(node: ast.expr, names: Mapping[str, Any]) -> list[Any]:
    """What stands at one place of a list: several values for `*others`."""
    if not isinstance(node, ast.Starred):
        return [_fold(node, names)]
    values = _fold(node.value, names)
    if not isinstance(values, list) or len(values) > _MOST_ENTRIES:
        raise NotConstantError(node)
    return values


def _merged(items: list[tuple[Any, ast.expr]], names: Mapping[str, Any]) -> dict[Any, Any]:
    """A dict from its keys and expressions; the key None stands for `**`."""
    merged: dict[Any, Any] = {}
    for key, expression in items:
        value = _fold(expression, names)
        if key is None and not isinstance(value, dict):
            raise NotConstantError(expression)
        merged |= value if key is None else {key: value}
    return merged


def _joinable(value: object) -> bool:
    return isinstance(value, list | dict)


def _function(node: ast.expr) -> Callable[..., float] | None:
    match node:
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _MATH_MODULES:
            return _FUNCTIONS.get(name)
        case ast.Name(id=name):
            return _FUNCTIONS.get(name) or _BUILT_IN.get(name)
    return None


def _number(node: ast.expr, names: Mapping[str, Any]) -> int | float:
    value = _fold(node, names)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise NotConstantError(node)
    return value
