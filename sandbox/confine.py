"""Irreversible steps by which a Linux process gives up its identity, capabilities, memory and time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {value}): {os.strerror(code)}")


def no_new_privs() -> None:
    """Keep later programs from gaining privileges. The kernel requires this before Landlock and seccomp."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    """Deny other processes of this user access to /proc/PID/mem, environ and ptrace. Children inherit this."""
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent `parent` ends. Comes after any change of user."""
    _prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(1)


def prefer_as_victim() -> None:
    """When memory runs out, let the kernel end this process and its children before others."""
    with contextlib.suppress(OSError):  # without /proc the kernel's own choice stands
        Path("/proc/self/oom_score_adj").write_text("500")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that all descendants can be killed."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _set_capabilities(low: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    sets = (_CapabilitySets * 2)(_CapabilitySets(low, low, 0), _CapabilitySets(0, 0, 0))
    if libc.capset(ctypes.byref(header), sets) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")


def drop_root(needed: list[Path]) -> None:
    """Become `nobody` without capabilities if this process is root; otherwise do nothing.

    `needed` lists the paths that the process must read as `nobody`. If one is not readable (an interpreter under root's
    private home), the process keeps the capability to read all files. Landlock still limits what it reads.
    """
    if os.geteuid() != 0:
        return
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _set_capabilities(0 if all(os.access(path, os.R_OK) for path in needed) else 1 << _CAP_DAC_READ_SEARCH)


def memory_in_use() -> int:
    """Return the size of this process's address space in bytes, or 0 without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def limit_resources(*, cpu_seconds: float, memory_bytes: int) -> None:
    """Limit CPU time and, beyond what is in use, memory; forbid writing files. Works on any POSIX system."""
    seconds = max(1, round(cpu_seconds))
    limits = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (64, 64),
    }
    if sys.platform == "linux":
        size = memory_in_use() + memory_bytes
        limits[resource.RLIMIT_AS] = (size, size)
        limits[resource.RLIMIT_MEMLOCK] = (0, 0)
        limits[resource.RLIMIT_MSGQUEUE] = (0, 0)
    for kind, (soft, hard) in limits.items():
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))
