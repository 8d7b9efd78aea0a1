"""The bubblewrap command line: a root of its own that holds an interpreter, torch, and ten files of this project.

All of it is read-only and there is no folder to write to: results leave through a pipe. Name spaces for processes,
network, IPC and host name; no capabilities; it dies with whoever started it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from sandbox.runtime import Runtime

# Shared libraries of the system. Never all of /usr: /usr/share may hold data sets, with their test labels.
_LIBRARIES = ("/lib64", "/usr/lib64", "/lib/{triplet}", "/usr/lib/{triplet}", "/lib/ld-linux-aarch64.so.1")
_LIBRARIES_ELSEWHERE = ("/lib", "/usr/lib")  # distributions without multiarch folders
_SYSTEM_FILES = ("/etc/ld.so.cache", "/sys/devices/system/cpu")
_LINKS_IN = (Path("/"), Path("/usr"))  # where distributions link /lib to usr/lib and the like
_DEVICES = ("/dev/null", "/dev/urandom")  # torch opens the latter when it is imported
_ISOLATE = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")


def program() -> str | None:
    """Where bubblewrap is, None where it is not installed."""
    return shutil.which("bwrap")


def version() -> str | None:
    """What `bwrap --version` says, None where it is not installed or does not run."""
    bwrap = program()
    if bwrap is None:
        return None
    try:
        done = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version_number() -> tuple[int, ...]:
    digits = (version() or "").rpartition(" ")[2].split(".")
    return tuple(int(part) for part in digits if part.isdecimal())


def command(runtime: Runtime, python: list[str]) -> list[str]:
    """The command that runs `python` inside. Raises FileNotFoundError where bubblewrap is not installed."""
    bwrap = program()
    if bwrap is None:
        raise FileNotFoundError("bubblewrap (the program bwrap) is not installed")
    return [bwrap, *_name_spaces(), *_mounts(runtime), "--chdir", "/", "--", *python]


def _name_spaces() -> list[str]:
    # The worker has the environment it is to have, which --clearenv would take away: sandbox.launcher makes it.
    common = [*_ISOLATE, "--die-with-parent", "--new-session", "--hostname", "worker", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        # Root needs no user name space, and would stay root in one. The zygote becomes nobody: confine.drop_root.
        return [*common, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    # An older bubblewrap does not know the second one; the system call filter denies new name spaces as well.
    return ["--unshare-user", *(["--disable-userns"] if _version_number() >= (0, 8) else []), *common]


def _mounts(runtime: Runtime) -> list[str]:
    system = [*_libraries(), *map(Path, _SYSTEM_FILES), runtime.python, *runtime.libraries, runtime.stdlib]
    own = [*runtime.packages, *runtime.ours]
    links = {path: path.readlink() for path in system if path.is_symlink() and path.parent in _LINKS_IN}
    parents = [parent for path in (*system, *own) for parent in reversed(path.parents) if path.exists()]
    folders = dict.fromkeys([*parents, Path("/dev"), Path("/proc")])
    return [
        *(part for path, target in links.items() for part in ("--symlink", str(target), str(path))),
        # Parents are made by hand: those that bubblewrap makes on its own may be closed to all but root.
        *(part for path in folders if path not in links for part in ("--perms", "0755", "--dir", str(path))),
        *(part for path in system if path not in links for part in ("--ro-bind-try", str(path), str(path))),
        *(part for path in runtime.others for part in ("--perms", "0755", "--tmpfs", str(path))),
        *(part for path in own for part in ("--ro-bind", str(path), str(path))),
        *("--proc", "/proc"),
        *(part for device in _DEVICES for part in ("--dev-bind", device, device)),
        *(part for path in (*runtime.others, Path("/")) for part in ("--remount-ro", str(path))),
    ]


def _libraries() -> list[Path]:
    triplet = sysconfig.get_config_var("MULTIARCH") or "none"
    found = [Path(pattern.format(triplet=triplet)) for pattern in _LIBRARIES]
    if not any((folder / "libc.so.6").is_file() for folder in found):
        found += map(Path, _LIBRARIES_ELSEWHERE)
    return found
