"""Build the bubblewrap command line. The worker gets its own root with an interpreter, torch and some project files.

Everything in that root is read-only, and no folder is writable: results leave through a pipe. The worker has its own
name spaces for processes, network, IPC and host name. It has no capabilities, and it ends when its starter ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from sandbox.runtime import Runtime

# Shared libraries of the system. Mounting all of /usr would expose /usr/share, which may hold data sets with labels.
_LIBRARIES = ("/lib64", "/usr/lib64", "/lib/{triplet}", "/usr/lib/{triplet}", "/lib/ld-linux-aarch64.so.1")
_LIBRARIES_ELSEWHERE = ("/lib", "/usr/lib")  # distributions without multiarch folders
_SYSTEM_FILES = ("/etc/ld.so.cache", "/sys/devices/system/cpu")
_LINKS_IN = (Path("/"), Path("/usr"))  # where distributions link /lib to usr/lib and the like
_DEVICES = ("/dev/null", "/dev/urandom")  # torch opens the latter when it is imported
_ISOLATE = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")


def program() -> str | None:
    """Return the path of bubblewrap, or None if it is not installed."""
    return shutil.which("bwrap")


def version() -> str | None:
    """Return the output of `bwrap --version`, or None if bubblewrap is not installed or does not run."""
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


def required() -> str:
    """Return the path of bubblewrap. Raises FileNotFoundError if it is not installed."""
    bwrap = program()
    if bwrap is None:
        raise FileNotFoundError("bubblewrap (the program bwrap) is not installed")
    return bwrap


def options(runtime: Runtime) -> bytes:
    """Return all options in the format that `bwrap --args` reads: each one is followed by a zero byte."""
    return b"".join(os.fsencode(option) + b"\0" for option in (*_name_spaces(), *_mounts(runtime), "--chdir", "/"))


def _name_spaces() -> list[str]:
    # No --clearenv: sandbox.launcher has already reduced the environment to what the worker needs.
    common = [*_ISOLATE, "--die-with-parent", "--new-session", "--hostname", "worker", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        # Root needs no user name space and would stay root in one. The zygote drops root itself: confine.drop_root.
        return [*common, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    # Older versions do not know --disable-userns. The system call filter denies new name spaces as well.
    return ["--unshare-user", *(["--disable-userns"] if _version_number() >= (0, 8) else []), *common]


def _mounts(runtime: Runtime) -> list[str]:
    system = [*_libraries(), *map(Path, _SYSTEM_FILES), runtime.python, *runtime.libraries, runtime.stdlib]
    own = [*runtime.packages, *runtime.ours]
    links = {path: path.readlink() for path in system if path.is_symlink() and path.parent in _LINKS_IN}
    parents = [parent for path in (*system, *own) for parent in reversed(path.parents) if path.exists()]
    folders = dict.fromkeys([*parents, Path("/dev"), Path("/proc")])
    return [
        *(part for path, target in links.items() for part in ("--symlink", str(target), str(path))),
        # Create parent folders explicitly: those that bubblewrap creates may be readable by root only.
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
