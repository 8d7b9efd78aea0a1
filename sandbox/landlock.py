"""Landlock: a process gives up the file system, TCP, signals to others and abstract sockets. It needs no privileges.

ctypes makes the system calls. Their numbers are the same on every architecture that has Landlock.
Source: linux/Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TCP = (1 << 0) | (1 << 1)  # bind, connect
_SCOPES = (1 << 0) | (1 << 1)  # abstract unix sockets, signals
# Number of file system rights in each ABI. The ruleset handles all of them, so that what no rule allows is denied.
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_FS_RIGHTS_SINCE_5 = 16


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result


def abi() -> int:
    """Return the kernel's Landlock version, or 0 if it has none or Landlock is switched off."""
    if sys.platform != "linux":
        return 0
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def create_ruleset(readable: Iterable[Path], listable: Iterable[Path] = ()) -> int:
    """Make a ruleset that allows reading only `readable` (files, or folders with their contents); return its fd.

    In the folders `listable`, names may be listed, but files not read.

    It denies everything else that this kernel's Landlock can deny. Paths that do not exist are skipped.
    Raises OSError if the kernel has no Landlock.
    """
    version = abi()
    if not version:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock (Linux 5.13 or newer, enabled at boot)")
    attributes = _RulesetAttr((1 << _FS_RIGHTS.get(version, _FS_RIGHTS_SINCE_5)) - 1, 0, 0)
    size = 8
    if version >= 4:
        attributes.handled_access_net, size = _TCP, 16
    if version >= 6:
        attributes.scoped, size = _SCOPES, 24
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    whole = [(path, _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE) for path in readable]
    for path, rights in [*whole, *((path, _READ_DIR) for path in listable)]:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            rule = _PathBeneathAttr(rights, handle)
            _syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule),
                     ctypes.c_uint32(0))  # fmt: skip
        finally:
            os.close(handle)
    return ruleset


def restrict_self(ruleset: int) -> None:
    """Apply `ruleset` to the calling thread and all it starts later. Irreversible; needs no_new_privs."""
    _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
