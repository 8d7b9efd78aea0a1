"""Find the files a worker needs: interpreter, standard library, torch with its imports, some of this project."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
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
    *("benchmark/__init__.py", "benchmark/models.py", "sandbox/__init__.py", "sandbox/confine.py"),
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

    def readable(self) -> list[Path]:
        """Return the paths that a candidate may read: only code that it may still import."""
        members = [member for member in sorted(self.stdlib.iterdir()) if member not in self.others]
        return [*members, *self.packages]


def find() -> Runtime:
    """Find the installation without importing torch. Raises FileNotFoundError if torch is not installed."""
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
        packages=tuple(folder / name for folder in folders for name in _PACKAGES if (folder / name).exists()),
        ours=tuple(root / name for name in _OURS),
        path=(stdlib, stdlib / "lib-dynload", *folders, root),
    )
