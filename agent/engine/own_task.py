"""`search(network=…, data=…)`: a task made of a function and arrays, without a file."""

from __future__ import annotations

import ast
import inspect
import symtable
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import UsageError

if TYPE_CHECKING:
    from benchmark.networks import Network
    from benchmark.task import Prepared, Profile

MODULE = "network"
"""The name of the module that isolation imports in place of the caller's code."""


def is_own(settings: Mapping[str, Any]) -> bool:
    """Whether settings of `search` describe a task of the caller's own."""
    return "network" in settings


def take_task(settings: dict[str, Any]) -> Profile:
    """Take the keys of a task out of `settings` and make its profile. Raises UsageError.

    `network` is a function, or a text as in a task file; `data` four arrays, or a text. Every key of a task file's
    table counts, and `caveat`, `baseline` and `noise`. Texts are relative to the working directory.
    """
    from agent.config import SearchConfig
    from agent.profiles import finished_profile
    from benchmark.task_loading import make_profile
    from benchmark.task_schema import TaskFileError, TaskTable, parsed, suggested_key

    network, data = settings.pop("network"), settings.pop("data", None)
    if settings.get("profile") is not None:
        raise UsageError(f"search: profile {settings['profile']!r} contradicts network, which is a task of your own")
    table = {name: settings.pop(name) for name in list(settings) if name in TaskTable.model_fields}
    whole: dict[str, Any] = {name: settings.pop(name) for name in ("caveat", "baseline", "noise") if name in settings}
    known = [*SearchConfig.model_fields, *TaskTable.model_fields, "caveat", "noise"]
    for name in sorted(settings.keys() - SearchConfig.model_fields.keys()):  # before the data are loaded
        raise UsageError(f"search: unknown setting {name!r}{suggested_key(name, known)}")
    made, prepared = None, None
    if callable(network):
        function = network
        if not (inspect.isfunction(function) or inspect.isclass(function)):
            kind = type(function).__name__
            raise UsageError(f"network: a {kind} is neither a function nor a class that builds the network; define one")
        name = function.__name__ if function.__name__.isidentifier() else "network"
        made, network = (lambda packages: network_of(function, name, packages)), f"{MODULE}.py:{name}"
    if data is not None and not isinstance(data, str):
        prepared, data = _prepared(data), "arrays"
    if data is not None:
        table["data"] = data
    try:
        written = parsed({"visible": [{**table, "network": network}], **whole}, "search")
        profile = make_profile(
            written,
            Path.cwd(),
            None,
            given=lambda _: prepared,
            networks_given=lambda one: made(one.packages) if made else None,
        )
    except TaskFileError as error:
        raise UsageError(str(error)) from None
    return finished_profile(profile, "search", Path.cwd())


def _prepared(data: Any) -> Prepared:
    from benchmark.data import DataError
    from benchmark.data.arrays import returned, shuffled
    from benchmark.data.prepared import prepare

    try:
        return prepare(shuffled(returned(data, "data", "is")))
    except DataError as error:
        raise UsageError(f"search: {error}") from None


def network_of(function: Callable[..., object], name: str, packages: tuple[str, ...] = ()) -> Network:
    """The network that a function builds, as text. Raises UsageError where its source cannot be had."""
    from benchmark.networks import Network
    from benchmark.sources import Source
    from benchmark.task_loading import with_libraries

    source = Source(MODULE, f"{MODULE}.py", source_of(function))
    return with_libraries(Network(f"{MODULE}.py:{name}", None, sources=(source,), packages=packages))


def source_of(function: Callable[..., object]) -> str:
    """A module with the function and everything of the caller's own that it uses: functions, classes, imports, numbers.

    Raises UsageError.
    """
    parts: dict[str, str] = {}
    imports: dict[str, str] = {}
    _collect(function, parts, imports)
    return "\n".join(imports.values()) + "\n\n\n" + "\n\n".join(parts.values())


def _collect(thing: Any, parts: dict[str, str], imports: dict[str, str]) -> None:
    name = getattr(thing, "__name__", repr(thing))
    if name in parts:
        return
    if inspect.isfunction(thing) and thing.__closure__:
        raise UsageError(f"network: {name} uses variables of the function around it; pass a function of a module")
    if inspect.isfunction(thing) and thing.__name__ == "<lambda>":
        raise UsageError("network: the source of a lambda cannot be had alone; define a function with def")
    try:
        text = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        raise UsageError(
            f"network: the source of {name} cannot be had, and isolation needs it; define it in a file or a notebook"
        ) from None
    parts[name] = ""  # before what it uses, so that recursion ends
    scope = vars(inspect.getmodule(thing) or object()) if inspect.isclass(thing) else thing.__globals__
    for used in sorted(_global_names(text) & set(scope)):
        value = scope[used]
        if inspect.ismodule(value):
            if not _is_installed(value):
                raise UsageError(
                    f"network: {name} uses {used}, a module of your own; network='FILE.py:{name}' takes it along"
                )
            imports[used] = f"import {value.__name__} as {used}"
        elif inspect.isclass(value) or inspect.isfunction(value):
            if _is_installed(value):
                imports[used] = f"from {value.__module__} import {value.__name__} as {used}"
            else:
                _collect(value, parts, imports)
        elif _is_literal(value):
            parts[f"={used}"] = f"{used} = {value!r}\n"
        elif inspect.isbuiltin(value):
            continue
        else:
            raise UsageError(
                f"network: {name} uses {used}, a {type(value).__name__}, which cannot be sent to isolation"
            )
    parts[name] = parts.pop(name) or text  # after what it uses


def _global_names(text: str) -> set[str]:
    """The names that a function or class takes from its module; a variable of its own may be called as one there."""
    found: set[str] = set()
    tables = [symtable.symtable(text, MODULE, "exec")]
    for table in tables:
        tables += table.get_children()
        outermost = table.get_type() == "module"
        used = (symbol for symbol in table.get_symbols() if symbol.is_referenced())
        found |= {symbol.get_name() for symbol in used if outermost or symbol.is_global()}
    return found


def _is_literal(value: object) -> bool:
    """Whether the value can be written as text: numbers, texts, and lists, tuples and dicts of them."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return False


def _is_installed(thing: Any) -> bool:
    """Whether a module, class or function comes from an installed package or the standard library."""
    import sys

    name = thing.__name__ if inspect.ismodule(thing) else thing.__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None or name == "__main__":
        return False
    return file is None or "site-packages" in file or "dist-packages" in file or f"python{sys.version_info[0]}." in file
