"""Which files a worker needs: the interpreter, the standard library, torch with what it imports, and a few of ours."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# Import names and sibling folders of torch and numpy and of all that they import. Named one by one, because folders of
# installed packages also hold data sets (scikit-learn ships some), keys and other people's code.
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
# What a standard library's folder holds besides the standard library. Its __pycache__ belongs to it: without, every
# start compiles what torch imports, which takes a third of a second.
_OTHERS = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip", "lib2to3")


@dataclass(frozen=True)
class Runtime:
    """Files and folders of the installation a worker runs on."""

    python: Path
    libraries: tuple[Path, ...]
    """Shared libraries that came with the interpreter."""
    stdlib: Path
    others: tuple[Path, ...]
    """Folders within `stdlib` that are not part of it: above all everybody's installed packages."""
    packages: tuple[Path, ...]
    ours: tuple[Path, ...]
    path: tuple[Path, ...]
    """`sys.path` of the worker."""

    def readable(self) -> list[Path]:
        """What a candidate may read: code it may still import, nothing else."""
        members = [member for member in sorted(self.stdlib.iterdir()) if member not in self.others]
        return [*members, *self.packages]


def find() -> Runtime:
    """Look the installation up, without importing torch. Raises FileNotFoundError where torch is not installed."""
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
