"""Check a region before anything runs (forbidden names, allowed imports), and warn its author during editing.

This is a lint for honest mistakes, not a security boundary: Python code can avoid any list of forbidden names.
`sandbox.isolate` contains hostile code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sandbox.lines import EditableFile
from sandbox.parsing import MAX_REGION_BYTES, TooCostlyError, parse
from sandbox.region import FUNCTION, NAMES_IN_SCOPE

_MODULES = frozenset(
    {
        *("math", "cmath", "collections", "copy", "dataclasses", "enum", "fractions", "functools", "itertools"),
        *("numpy", "operator", "re", "statistics", "torch", "typing"),
    }
)
_NAMES = frozenset({"open", "exec", "eval", "compile", "__import__", "input", "breakpoint"})
_ATTRIBUTES = {
    "torch": frozenset(
        {
            *("load", "save", "from_file", "hub", "os", "sys", "utils", "multiprocessing", "distributed", "jit"),
            *("serialization", "package", "library", "ops", "classes"),
        }
    ),
    "np": frozenset({"load", "save", "savez", "savez_compressed", "loadtxt", "savetxt", "genfromtxt", "fromfile"})
    | {"memmap", "lib", "ctypeslib", "f2py", "DataSource"},
}
_DUNDERS = frozenset({"__name__", "__class__", "__doc__", "__len__", "__init__", "__post_init__"})
_TOP_LEVEL = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Rejection:
    """Why a region is rejected. `line` counts in the text that the author sees; `message` contains it too."""

    kind: Literal["syntax", "signature", "too_large", "isolation"]
    message: str
    line: int | None = None


def check_region(region: str, *, first_line: int = 1) -> Rejection | None:
    """Return the first fault of a region, or None. It must be small, parse, define the function and keep the rules.

    `first_line` is the number of the region's first line in the text that the author sees.
    """
    return _checked(region, first_line)[0]


def advise(file: EditableFile) -> list[str]:
    """Return warnings after an accepted edit. The commonest mistake is a left-over end of an older version."""
    if not file.ranges:
        return []
    rejection, tree = _checked(file.range_text(), file.ranges[0].start)
    if rejection is not None:
        return [f"a test would be refused now ({rejection.kind}): {rejection.message}."]
    return [] if tree is None else [*_unreachable(tree)]


def _checked(region: str, first_line: int) -> tuple[Rejection | None, ast.Module | None]:
    """The first fault of a region, or None and its tree."""
    size = len(region.encode(errors="replace"))
    if size > MAX_REGION_BYTES:
        message = f"the region is {size:,} bytes; at most {MAX_REGION_BYTES:,} are allowed"
        return Rejection("too_large", message), None
    tree = _parse(region, first_line)
    if isinstance(tree, Rejection):
        return tree, None
    return _signature(tree) or _top_level(tree, region, first_line) or _rules(tree), tree


def _parse(region: str, first_line: int) -> ast.Module | Rejection:
    if "\0" in region:
        line = first_line + region.partition("\0")[0].count("\n")
        return Rejection("syntax", f"line {line} has a NUL byte, which no Python source may hold", line)
    try:
        tree = parse(region)
    except TooCostlyError as error:
        return Rejection("too_large", str(error.msg))
    except SyntaxError as error:
        if error.lineno is None:
            return Rejection("syntax", f"Python cannot compile the region: {error.msg}")
        line = first_line + error.lineno - 1
        return Rejection("syntax", f"line {line}: {error.msg}", line)
    return ast.increment_lineno(tree, first_line - 1)


def _signature(tree: ast.Module) -> Rejection | None:
    found = [node for node in tree.body if FUNCTION in _binds(node)]
    if not found:
        return Rejection("signature", f"the region must define {FUNCTION}(model, config) at its top level")
    if len(found) > 1:
        lines = " and ".join(str(node.lineno) for node in found)
        message = (
            f"{FUNCTION} is defined {len(found)} times (lines {lines}) and the last would win; if one of them is what "
            "a shorter replacement left behind, delete it, or replace the whole region with rewrite"
        )
        return Rejection("signature", message, found[-1].lineno)
    function = found[0]
    line = function.lineno
    if not isinstance(function, ast.FunctionDef):
        return Rejection("signature", f"line {line}: {FUNCTION} must be a plain function (def)", line)
    positional = [*function.args.posonlyargs, *function.args.args]
    required = len(positional) - len(function.args.defaults) + function.args.kw_defaults.count(None)
    if [argument.arg for argument in positional[:2]] != ["model", "config"] or required > 2:
        message = (
            f"line {line}: the signature must be {FUNCTION}(model, config), not "
            f"({', '.join(argument.arg for argument in positional)}); further parameters need default values"
        )
        return Rejection("signature", message, line)
    return None


def _binds(node: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _top_level(tree: ast.Module, region: str, first_line: int) -> Rejection | None:
    for node in tree.body:
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not text and not isinstance(node, _TOP_LEVEL):
            found = region.split("\n")[node.lineno - first_line].strip()
            message = (
                f"line {node.lineno}: only functions, classes, constants and imports may stand at the region's top "
                f"level, not '{found:.60}'; move it into {FUNCTION}, or delete it if an "
                "older version left it behind"
            )
            return Rejection("isolation", message, node.lineno)
    return None


def _rules(tree: ast.Module) -> Rejection | None:
    offences = ((node.lineno, message) for node, message in _offences(tree))
    first = min(offences, default=None)
    return None if first is None else Rejection("isolation", f"line {first[0]}: {first[1]}", first[0])


def _offences(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, message) for alias in node.names if (message := _import_message(alias.name)))
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" if node.module == "torch" else node.module for alias in node.names]
            if node.level or (message := next(filter(None, (_import_message(m or "") for m in modules)), None)):
                yield node, "relative imports are not available" if node.level else str(message)
        elif isinstance(node, ast.Name) and node.id in _NAMES:
            yield node, f"{node.id} is not available: an initialiser only computes tensors"
        elif isinstance(node, ast.Attribute):
            base = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in _ATTRIBUTES.get({"numpy": "np"}.get(base, base), ()):
                yield node, f"{base}.{node.attr} is not available: an initialiser only computes tensors"
            elif node.attr.startswith("__") and node.attr.endswith("__") and node.attr not in _DUNDERS:
                yield node, f"access to {node.attr} is not allowed"


def _import_message(module: str) -> str | None:
    """Return why `module` cannot be imported, or None. `from torch import X` is passed as torch.X."""
    root, _, rest = module.partition(".")
    if root == "random":
        return "use torch for random numbers: the seed of a trial governs torch's generator"
    if root == "benchmark":
        return f"nothing of benchmark can be imported; in scope already: {', '.join(NAMES_IN_SCOPE)}"
    part = rest.partition(".")[0]
    if root not in _MODULES:
        return f"{root or 'this module'} cannot be imported; available: {', '.join(sorted(_MODULES))}"
    if root == "torch" and part in _ATTRIBUTES["torch"]:
        return f"torch.{part} is not available: an initialiser only computes tensors"
    return None


def _unreachable(tree: ast.Module) -> Iterator[str]:
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION)
    for index, node in enumerate(function.body[:-1]):
        if isinstance(node, ast.Return | ast.Raise):
            first, last = function.body[index + 1].lineno, function.body[-1].end_lineno
            yield f"lines {first}..{last} stand after the end of {FUNCTION} in line {node.lineno} and never run."
            return
