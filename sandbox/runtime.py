"""Find the files a worker needs: interpreter, standard library, torch with its imports, some of this project."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Import names and sibling folders of torch, numpy and all their imports. They are listed one by one, because folders of
# installed packages may also contain data sets (scikit-learn ships some), keys and private code.
_PACKAGES = (
    *("torch", "torch.libs", "torchgen", "functorch", "numpy", "numpy.libs", "typing_extensions.py"),
    *("sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "tqdm", "packaging"),
    *("nvidia", "triton", "cuda", "mkl", "intel_openmp"),
)
_OURS = (
    *("benchmark/__init__.py", "benchmark/models.py", "benchmark/networks.py", "benchmark/sources.py"),
    *("benchmark/user_code.py", "benchmark/vision.py", "sandbox/__init__.py", "sandbox/confine.py"),
    *("sandbox/landlock.py", "sandbox/prelude.py", "sandbox/seccomp.py", "sandbox/wire.py", "sandbox/worker.py"),
    "sandbox/zygote.py",
)
# Folders inside the standard library's folder that do not belong to it. __pycache__ is not listed: without it every
# start compiles the modules that torch imports, which takes a third of a second.
_OTHERS = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip", "lib2to3")


@dataclass(frozen=True)
class Runtime:
    """The files and folders of the installation that a worker uses."""

    python: Path
    libraries: tuple[Path, ...]
    """Shared libraries of the interpreter."""
    stdlib: Path
    others: tuple[Path, ...]
    """Folders inside `stdlib` that are not part of it, such as the installed packages."""
    packages: tuple[Path, ...]
    ours: tuple[Path, ...]
    path: tuple[Path, ...]
    """`sys.path` of the worker."""
    folders: tuple[Path, ...] = ()
    """The folders in which the installed packages lie."""

    def readable(self) -> list[Path]:
        """Return the paths that a candidate may read: only code that it may still import."""
        members = [member for member in sorted(self.stdlib.iterdir()) if member not in self.others]
        return [*members, *self.packages]


def find(extra: Iterable[str] = ()) -> Runtime:
    """Find the installation without importing torch. Raises FileNotFoundError if torch is not installed.

    `extra` are import names of installed packages that the worker may read as well, with all that they depend on.
    """
    folders: list[Path] = []
    for name in ("torch", "numpy", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise FileNotFoundError(f"the package {name} is not installed for {sys.executable}")
        origin = Path(spec.origin)
        folder = origin.parent.parent if spec.submodule_search_locations else origin.parent
        if folder not in folders:
            folders.append(folder)
    root = Path(__file__).resolve().parent.parent
    stdlib = Path(sysconfig.get_path("stdlib"))
    return Runtime(
        python=Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)),
        libraries=tuple(path for path in sorted(Path(sys.base_prefix, "lib").glob("*.so*")) if path.is_file()),
        stdlib=stdlib,
        others=tuple(stdlib / name for name in _OTHERS if (stdlib / name).is_dir()),
        packages=tuple(
            dict.fromkeys(
                [
                    *(folder / name for folder in folders for name in _PACKAGES if (folder / name).exists()),
                    *installed(extra),
                ]
            )
        ),
        ours=tuple(root / name for name in _OURS),
        path=(stdlib, stdlib / "lib-dynload", *folders, root),
        folders=tuple(folders),
    )


def installed(names: Iterable[str]) -> list[Path]:
    """The files and folders of these installed packages and of all that they depend on, torch and numpy left out.

    Raises FileNotFoundError for a package that is not installed.
    """
    names = list(names)
    owners = importlib.metadata.packages_distributions() if names else {}
    waiting: list[str] = []
    for name in names:
        if name not in owners:
            raise FileNotFoundError(f"the package {name} is not installed for {sys.executable}")
        waiting += owners[name]
    seen = {"torch", "numpy"}
    found: dict[Path, None] = {}
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on another platform only
        for file in distribution.files or ():
            if file.parts[0] not in ("..", "/", "__pycache__"):
                found[Path(str(distribution.locate_file(file.parts[0])))] = None
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement and (match := re.match(r"[A-Za-z0-9._-]+", requirement)):
                waiting.append(match[0])
    return [path for path in found if path.exists()]
