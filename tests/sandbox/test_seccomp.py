"""The system call filter, instruction by instruction: what it lets pass on both architectures."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from sandbox import seccomp

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": 0, "aarch64": 1}
MACHINES = ("x86_64", "aarch64")


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Run the filter as the kernel would."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number, AUDIT_ARCH[machine] if arch is None else arch, 0, *padded)
    code = list(struct.iter_unpack("<HBBI", seccomp.program(machine)))
    accumulator, position = 0, 0
    while True:
        operation, if_true, if_false, value = code[position]
        position += 1
        match operation:
            case 0x20:
                accumulator = int.from_bytes(data[value : value + 4], "little")
            case 0x06:
                return int(value)
            case _:
                holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
                position += if_true if holds[operation] else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_computing_and_reading_pass(machine: str) -> None:
    """An honest initialiser needs memory, clocks, files to read and a pipe to write to."""
    for name in ("read", "write", "mmap", "brk", "futex", "exit_group", "clock_gettime", "getrandom", "newfstatat"):
        number = seccomp._ALLOWED[name][COLUMN[machine]]
        assert number is not None
        assert verdict(machine, number) == ALLOW, name
    open_at = seccomp._OPENAT[COLUMN[machine]]
    for flags in (0, 0o2000000, 0o10000000, 0o200000 | 0o2000000):  # O_RDONLY, O_CLOEXEC, O_PATH, O_DIRECTORY
        assert verdict(machine, open_at, -100 & (2**64 - 1), 0, flags) == ALLOW


# x86_64, aarch64
FORBIDDEN = {
    **{"socket": (41, 198), "connect": (42, 203), "socketpair": (53, 199), "clone": (56, 220), "execve": (59, 221)},
    **{"kill": (62, 129), "tgkill": (234, 131), "ptrace": (101, 117), "unlinkat": (263, 35), "mkdirat": (258, 34)},
    **{
        "fchmodat": (268, 53),
        "renameat2": (316, 276),
        "symlinkat": (266, 36),
        "mknodat": (259, 33),
        "mount": (165, 40),
    },
    **{"unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "io_uring_setup": (425, 425), "prctl": (157, 167)},
    **{"memfd_create": (319, 279), "process_vm_readv": (310, 270), "openat2": (437, 437), "setuid": (105, 146)},
    **{"ioctl": (16, 29), "sendmsg": (46, 211), "splice": (275, 76), "personality": (135, 92), "truncate": (76, 45)},
    **{
        "ftruncate": (77, 46),
        "fallocate": (285, 47),
        "shmget": (29, 194),
        "pidfd_open": (434, 434),
        "keyctl": (250, 219),
    },
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_rest_is_denied(machine: str, name: str) -> None:
    """A call that reaches beyond the process fails, and so does one that does not exist yet."""
    assert verdict(machine, FORBIDDEN[name][COLUMN[machine]]) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_files_open_for_reading_only(machine: str) -> None:
    """No flag that writes, creates or empties a file gets through, on its own or with others."""
    number = seccomp._OPENAT[COLUMN[machine]]
    for flags in (0o1, 0o2, 0o3, 0o100, 0o1000, 0o20200000, 0o2000001):
        assert verdict(machine, number, 3, 0, flags) == EPERM, oct(flags)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_are_allowed_in_part(machine: str) -> None:
    """Descriptors may be duplicated but not made to send signals; limits may be read but not set."""
    fcntl, prlimit = seccomp._FCNTL[COLUMN[machine]], seccomp._PRLIMIT[COLUMN[machine]]
    assert verdict(machine, fcntl, 1, 3) == ALLOW  # F_GETFL
    for command in (8, 10, 15, 1031):  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETPIPE_SZ
        assert verdict(machine, fcntl, 1, command) == EPERM
    assert verdict(machine, prlimit, 0, 0, 0, 1) == ALLOW
    for pointer in (1, 1 << 32, 0x7FFF_0000_0000):
        assert verdict(machine, prlimit, 0, 0, pointer, 0) == EPERM
    assert verdict(machine, 435) == ENOSYS  # clone3: the C library then tries clone, which is denied


def test_other_tables_of_system_calls_do_not_help() -> None:
    """The 32-bit and x32 tables give other calls the numbers of harmless ones."""
    assert verdict("x86_64", 0, arch=0x40000003) == KILL
    assert verdict("aarch64", 63, arch=0x40000028) == KILL
    assert verdict("x86_64", 0x40000000) == EPERM
    assert verdict("x86_64", 0x40000000 | 41) == EPERM


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernel(machine: str, header: str) -> None:
    """A number off by one would allow another call than the name says."""
    if not Path(header).exists():
        pytest.skip(f"{header}: no kernel headers here")
    text = Path(header).read_text()
    kernel = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    kernel["newfstatat"] = kernel.get("newfstatat", kernel.get("fstatat", -1))
    named = {**seccomp._ALLOWED, **FORBIDDEN, "open": seccomp._OPEN, "openat": seccomp._OPENAT}
    named |= {"fcntl": seccomp._FCNTL, "prlimit64": seccomp._PRLIMIT}
    for name, numbers in named.items():
        if numbers[COLUMN[machine]] is not None:
            assert kernel[name] == numbers[COLUMN[machine]], name
