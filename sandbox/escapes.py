"""The escapes that a canary attempts inside a worker. `sandbox.canary` reads this file as text and runs it as a region.

A function has escaped if it neither raises nor returns False. An escape does no harm.
"""

# These rules ask for pathlib, but the plain calls are the attempts:
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH109, PTH118, PTH120, PTH123, PTH208, PTH211
from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

FACTS: dict[str, Any] = {}
"""Paths, ports and process ids of the bait. `sandbox.canary` appends a line that sets them to this text."""

libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> None:
    if getattr(libc, function)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read(path: str, size: int = 1 << 16) -> bytes:
    with Path(path).open("rb") as stream:
        return stream.read(size)


def read_secret() -> bool:
    return FACTS["token"] in read(FACTS["secret"]).decode()


def list_folder() -> bool:
    return bool(os.listdir(os.path.dirname(FACTS["secret"])))


def read_project() -> bool:
    return bool(read(FACTS["source"]))


def read_passwords() -> bool:
    return bool(read("/etc/passwd"))


def read_parent_environ() -> bool:
    found = hashlib.sha256(read(f"/proc/{FACTS['parent']}/environ", 1 << 24)).hexdigest()
    return found == str(FACTS["environ"])


def read_parent_memory() -> bool:
    return bool(read(f"/proc/{FACTS['parent']}/maps")) and FACTS["environ"] != ""


def read_zygote_memory() -> bool:
    return bool(read(f"/proc/{os.getppid()}/maps"))


def read_own_environment() -> bool:
    return any(name not in ENVIRONMENT for name in os.environ)


ENVIRONMENT = {
    "LANG",
    "LC_CTYPE",
    "HOME",
    "PWD",
    "PYTHONHASHSEED",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "TORCHINDUCTOR_CACHE_DIR",
    "LD_LIBRARY_PATH",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
}


def write_file() -> None:
    open(FACTS["planted"], "w").close()


def change_file() -> None:
    with open(FACTS["secret"], "r+") as stream:
        stream.write("x")


def empty_file() -> None:
    os.truncate(FACTS["secret"], 0)


def change_mode() -> None:
    os.chmod(FACTS["secret"], 0o600)


def change_times() -> None:
    os.utime(FACTS["secret"], (0, 0))


def delete_file() -> None:
    os.unlink(FACTS["secret"])


def rename_file() -> None:
    os.rename(FACTS["secret"], FACTS["planted"] + "-renamed")


def link_file() -> None:
    os.symlink("/etc/passwd", FACTS["planted"] + "-link")


def make_folder() -> None:
    os.mkdir(FACTS["planted"] + "-folder")


def make_pipe() -> None:
    os.mkfifo(FACTS["planted"] + "-pipe")


def write_anywhere() -> bool:
    for folder in ("/", "/tmp", "/dev/shm", "/var/tmp", os.getcwd(), os.path.dirname(os.__file__)):
        try:
            open(os.path.join(folder, "initsearch-canary"), "w").close()
            os.unlink(os.path.join(folder, "initsearch-canary"))
        except OSError:
            continue
        return True
    raise PermissionError("nowhere")


def use_tcp() -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", FACTS["tcp"]))


def use_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", FACTS["udp"]))


def use_unix_socket() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(FACTS["named"])


def use_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + FACTS["abstract"])


def use_netlink() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()


def use_socketpair() -> None:
    socket.socketpair()


def use_io_uring() -> None:
    call("syscall", 425, 4, ctypes.create_string_buffer(256))


def signal_parent() -> None:
    os.kill(FACTS["parent"], 0)


def signal_zygote() -> None:
    os.kill(os.getppid(), 0)


def signal_through_pipe() -> None:
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getppid())


def trace_parent() -> None:
    call("ptrace", 0x4206, FACTS["parent"], None, None)


def trace_zygote() -> None:
    call("ptrace", 0x4206, os.getppid(), None, None)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def start_thread() -> None:
    threading.Thread(target=int).start()


def start_program() -> None:
    subprocess.run([sys.executable, "--version"], check=False)


def new_name_space() -> None:
    call("unshare", 0x10000000)


def mount() -> bool:
    try:
        call("mount", b"none", b"/", b"no such file system", 0, None)
    except OSError as error:
        return error.errno == errno.ENODEV  # the call was permitted: only the file system's name stopped it
    return True


def use_hidden_file() -> None:
    call("memfd_create", b"canary", 0)


def use_shared_memory() -> None:
    segment = libc.shmget(0, 4096, 0o1600)
    if segment == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    call("shmctl", segment, 0, None)


def become_root() -> bool:
    os.setuid(0)
    return os.geteuid() == 0


def be_root() -> bool:
    return os.geteuid() == 0 or os.getegid() == 0 or bool(set(os.getgroups()) & {0})


def outlive_zygote() -> None:
    call("prctl", 1, 0, 0, 0, 0)


def become_dumpable() -> None:
    call("prctl", 4, 1, 0, 0, 0)


def raise_limits() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))


def hold_descriptors() -> bool:
    for number in range(4, 1024):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue
        return True
    return False


def replace_program() -> None:
    os.execv("/bin/sh", ["sh", "-c", "true"])


def attempt(function: Callable[[], bool | None]) -> None:
    print(json.dumps([function.__name__, "not reported"]), flush=True)
    try:
        result = "denied: nothing there" if function() is False else "succeeded"
    except BaseException as error:  # noqa: BLE001 - whatever stops it, it was stopped
        result = f"denied: {type(error).__name__}: {error}"[:160]
    print(json.dumps([function.__name__, result]), flush=True)


ATTEMPTS = (
    hold_descriptors,
    read_secret,
    list_folder,
    read_project,
    read_passwords,
    read_parent_environ,
    read_parent_memory,
    read_zygote_memory,
    read_own_environment,
    write_file,
    change_file,
    empty_file,
    change_mode,
    change_times,
    delete_file,
    rename_file,
    link_file,
    make_folder,
    make_pipe,
    write_anywhere,
    use_tcp,
    use_udp,
    use_unix_socket,
    use_abstract_socket,
    use_netlink,
    use_socketpair,
    use_io_uring,
    signal_parent,
    signal_zygote,
    signal_through_pipe,
    trace_parent,
    trace_zygote,
    fork,
    start_thread,
    start_program,
    new_name_space,
    mount,
    use_hidden_file,
    use_shared_memory,
    become_root,
    be_root,
    outlive_zygote,
    become_dumpable,
    raise_limits,
    replace_program,
)


def initialize_weights(model: nn.Module, config: dict[str, str | int]) -> None:
    for function in ATTEMPTS:
        attempt(function)
    for parameter in model.parameters():
        nn.init.ones_(parameter) if parameter.dim() < 2 else nn.init.orthogonal_(parameter)
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]
    print(json.dumps(["end", "denied: reached"]), flush=True)
