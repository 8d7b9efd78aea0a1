"""Python modules that travel as text: captured from a user's folder, and imported from memory elsewhere.

Isolation gets the text of a user's network, never its folder, because the data lie there. The trusted side imports the
same text, so that a file that changes during a search changes nothing. Imports neither torch nor numpy.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_TAKEN = frozenset({"agent", "benchmark", "sandbox", "prompts", "torch", "numpy", "torchvision", "timm", "custom_init"})
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Source:
    """One module: its name as it is imported, its file in the user's folder, its text."""

    name: str
    file: str
    text: str
    package: bool = False


def module_name(file: str) -> str:
    """The name under which a user's file is imported: its stem, unless Python or this project has that name."""
    stem = "".join(char if char.isalnum() or char == "_" else "_" for char in Path(file).stem)
    usable = stem.isidentifier() and stem not in _TAKEN and stem not in sys.stdlib_module_names
    return stem if usable else f"task_{stem}"


def import_file(file: str, folder: Path) -> ModuleType:
    """Import `folder/file` with `folder` first on the module path. Raises whatever the file raises."""
    path = (folder / file).resolve()
    for place in dict.fromkeys((str(path.parent), str(folder))):
        if place not in sys.path:
            sys.path.insert(0, place)
    importlib.invalidate_caches()
    name = module_name(file)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def captured(file: str, folder: Path) -> tuple[Source, ...]:
    """The module of `file`, and every module that was imported from its folder or from `folder` since.

    Raises OSError or SyntaxError (another encoding than the file says) for a file that cannot be read.
    """
    main, roots = module_name(file), (folder.resolve(), (folder / file).resolve().parent)
    found: dict[str, Source] = {}
    for name, module, place in _imported_from(roots):
        if not str(module.__file__).endswith(".py"):
            continue
        shown = place.relative_to(next(root for root in roots if place.is_relative_to(root))).as_posix()
        try:
            text = importlib.util.decode_source(place.read_bytes())
        except (UnicodeDecodeError, SyntaxError) as error:
            raise SyntaxError(f"{shown}: {error}; save it as UTF-8") from None
        found[name] = Source(name, shown, text, hasattr(module, "__path__"))
    return tuple(sorted(found.values(), key=lambda source: (source.name != main, source.name)))


def forget(folder: Path) -> None:
    """Forget every module that was imported from `folder`, so that the next import finds its own modules only."""
    for name, _, _ in _imported_from((folder.resolve(),)):
        del sys.modules[name]
    for name in _FINDER.sources:
        sys.modules.pop(name, None)
    _FINDER.sources.clear()


def _imported_from(roots: tuple[Path, ...]) -> Iterator[tuple[str, ModuleType, Path]]:
    """Each module of the user's below one of the folders, with the real place of its file.

    A process that has imported torch has 1500 modules in 200 folders, so each folder's links are followed once.
    """
    real = functools.cache(os.path.realpath)
    starts = tuple(f"{str(root).rstrip(os.sep)}{os.sep}" for root in roots)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _TAKEN or name == "__main__":
            continue
        path = getattr(module, "__file__", None)
        if not isinstance(path, str):
            continue
        folder, file = os.path.split(path)
        # In strings: a Path for each module takes ten times as long.
        place = f"{real(folder)}{os.sep}{file}"
        if os.path.islink(place):  # noqa: PTH114
            place = os.path.realpath(place)
        if place.startswith(starts) and not any(part in _INSTALLED for part in Path(place).parts):
            yield name, module, Path(place)


class _Finder(MetaPathFinder, InspectLoader):
    """Finds and loads modules from memory. A package without a file of its own is an empty module."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.sources:
            source = self.sources[fullname]
            return ModuleSpec(fullname, self, origin=source.file, is_package=source.package)
        if any(name.startswith(f"{fullname}.") for name in self.sources):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname].text if fullname in self.sources else ""

    def is_package(self, fullname: str) -> bool:
        return fullname not in self.sources or self.sources[fullname].package

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        file = self.sources[name].file if name in self.sources else "<package>"
        module.__file__ = file
        exec(compile(self.get_source(name), file, "exec", dont_inherit=True), module.__dict__)


_FINDER = _Finder()


def provide(sources: Iterable[Source]) -> None:
    """Let this process import these modules from memory. A module of another text under the same name is forgotten."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    for source in sources:
        if _FINDER.sources.get(source.name) != source:
            _FINDER.sources[source.name] = source
            sys.modules.pop(source.name, None)
