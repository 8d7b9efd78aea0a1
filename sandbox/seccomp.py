"""Seccomp: a filter under which a process may only compute, read files, and write to descriptors that it has.

The filter is an allow-list, so that it also denies system calls that do not exist yet. All other calls fail with EPERM:
processes, threads, signals, sockets, new files, changes to the file system, name spaces, tracing, io_uring, and memory
that outlives the process.
The filter is small, and libseccomp's binding is not on PyPI; hence ctypes.
Source: linux/Documentation/userspace-api/seccomp_filter.rst; numbers from asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
import sys

# name: (x86_64, aarch64); None where the architecture has no such call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # files already open, and reading
    **{"read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67)},
    **{"close": (3, 57), "close_range": (436, 436), "lseek": (8, 62), "dup": (32, 23), "dup2": (33, None)},
    **{"dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None), "ppoll": (271, 73)},
    **{"select": (23, None), "pselect6": (270, 72), "getdents64": (217, 61), "getcwd": (79, 17)},
    **{"stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291)},
    **{"access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439)},
    **{"readlink": (89, None), "readlinkat": (267, 78)},
    # memory
    **{"mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233)},
    **{"brk": (12, 214), "membarrier": (324, 283), "get_mempolicy": (239, 236)},
    # the process itself
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132)},
    **{"restart_syscall": (219, 128), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178)},
    **{"getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177)},
    **{"getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150), "getpgid": (121, 155)},
    **{"getpgrp": (111, None), "getsid": (124, 156), "uname": (63, 160), "sysinfo": (99, 179)},
    **{"getrusage": (98, 165), "getrlimit": (97, 163), "times": (100, 153), "getpriority": (140, 141)},
    **{"getcpu": (309, 168), "sched_yield": (24, 124), "sched_getaffinity": (204, 123)},
    **{"futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "getrandom": (318, 278)},
    **{"exit": (60, 93), "exit_group": (231, 94)},
    # time
    **{"clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101)},
    **{"gettimeofday": (96, 169), "time": (201, None)},
}
_OPEN, _OPENAT, _FCNTL, _PRLIMIT = (2, None), (257, 56), (72, 25), (302, 261)
_CLONE3 = 435
# Flags that create, empty or write: O_ACCMODE, O_CREAT, O_TRUNC, O_TMPFILE (the same on both architectures).
_WRITING = 0o3 | 0o100 | 0o1000 | 0o20000000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. Not F_SETOWN and F_SETSIG: they can send any signal.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the table, AUDIT_ARCH
_X32_BIT = 0x40000000
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; the low word comes first on both machines
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class SeccompUnavailable(OSError):
    """There is no filter for this machine, or the kernel refuses filters."""


def machine() -> str | None:
    """Return this machine's name in the table of system calls, or None if the table does not cover it."""
    name = platform.machine()
    return name if sys.platform == "linux" and name in _MACHINES and sys.maxsize > 2**32 else None


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


@functools.cache
def program(name: str) -> bytes:
    """Return the filter for machine `name` ("x86_64" or "aarch64") as packed BPF instructions."""
    column, architecture = _MACHINES[name]
    deny, allow = _instruction(_RETURN, _ERRNO | errno.EPERM), _instruction(_RETURN, _ALLOW)
    absent = _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    code = [
        _instruction(_LOAD, _ARCH),
        _instruction(_JEQ, architecture, 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
        _instruction(_JGE, _X32_BIT, 0, 1),
        deny,
    ]

    def rule(number: int | None, body: list[bytes]) -> None:
        if number is not None:
            code.extend([_instruction(_JEQ, number, 0, len(body)), *body])

    for numbers in _ALLOWED.values():
        rule(numbers[column], [allow])
    for numbers, position in ((_OPEN, 1), (_OPENAT, 2)):
        flags = _instruction(_LOAD, _ARGUMENTS + 8 * position)
        rule(numbers[column], [flags, _instruction(_JSET, _WRITING, 0, 1), deny, allow])
    commands = [part for command in _FCNTL_COMMANDS for part in (_instruction(_JEQ, command, 0, 1), allow)]
    rule(_FCNTL[column], [_instruction(_LOAD, _ARGUMENTS + 8), *commands, deny])
    # prlimit64 changes a limit if its third argument (a pointer) is set; otherwise it only reads.
    new_limit = _ARGUMENTS + 16
    asks = [_instruction(_LOAD, new_limit), _instruction(_JEQ, 0, 1, 0), deny]
    rule(_PRLIMIT[column], [*asks, _instruction(_LOAD, new_limit + 4), _instruction(_JEQ, 0, 1, 0), deny, allow])
    rule(_CLONE3, [absent])  # a filter cannot read its arguments; the C library falls back to clone, which is denied
    return b"".join([*code, deny])


def install() -> None:
    """Apply the filter to the calling thread. Irreversible; needs no_new_privs. Raises SeccompUnavailable."""
    name = machine()
    if name is None:
        raise SeccompUnavailable(errno.ENOSYS, f"no table of system calls for {sys.platform} on {platform.machine()}")
    filters = program(name)
    buffer = ctypes.create_string_buffer(filters, len(filters))

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.c_void_p))

    argument = _Program(len(filters) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(argument), 0, 0) != 0:
        code = ctypes.get_errno()
        raise SeccompUnavailable(code, f"the kernel refuses the seccomp filter: {os.strerror(code)}")
