"""A stand-in for the host of a run: secrets to be stolen, files to be spoilt, listeners to be reached."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parents[2]
KEY_NAME = "OPENAI_API_KEY"
NEEDLE = "the text of an earlier candidate"


@dataclass(frozen=True)
class Host:
    """`facts` is what a hostile region is told, so that nothing but the isolation stands in its way."""

    folder: Path
    token: str
    facts: dict[str, Any]
    listeners: dict[str, socket.socket]

    def fingerprint(self) -> dict[str, str]:
        """Everything that an attack could have changed: names, contents, modes, times, and who reached a listener."""
        found = {}
        watched = [Path(torch.__file__), Path(torch.__file__).parent / "__pycache__", PROJECT / "sandbox" / "zygote.py"]
        places = [Path("/tmp"), Path("/dev/shm"), Path("/var/tmp")]
        for path in [self.folder, *sorted(self.folder.rglob("*")), *watched]:
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            state = (
                status.st_mode,
                status.st_uid,
                status.st_mtime_ns,
                status.st_nlink,
                hashlib.sha256(content).hexdigest(),
            )
            found[str(path)] = repr(state)
        for place in places:
            found[str(place)] = repr(
                [name for name in ("fill", "initsearch-attack", "owned") if (place / name).exists()]
            )
        for name, listener in self.listeners.items():
            with contextlib.suppress(BlockingIOError):
                if listener.type == socket.SOCK_DGRAM:
                    found[name] = repr(listener.recv(64))
                else:
                    listener.accept()[0].close()
                    found[name] = "reached"
        return found


@contextlib.contextmanager
def host(folder: Path) -> Iterator[Host]:
    """Lay out the bait in `folder`, readable and writable for everybody, and open the listeners."""
    token = secrets.token_hex(16)
    contents = {
        "secret": token,
        "hidden/result.json": f'{{"accuracy": 93.1, "token": "{token}"}}',
        "git/config": f"[core]\n\tbare = false\n# {token}\n",
        "output/weights.safetensors": token,
        "checkpoint.pt": token,
    }
    folder.chmod(0o777)
    for parent in list(folder.parents)[:2]:  # pytest's own, closed to others
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o711)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o777)
        path.write_text(content)
        path.chmod(0o666)
    with contextlib.ExitStack() as stack:
        addresses: dict[str, tuple[int, int, tuple[str, int] | str]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "socket")),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{token}"),
        }
        listeners = {}
        for name, (family, kind, address) in addresses.items():
            listener = listeners[name] = stack.enter_context(socket.socket(family, kind))
            listener.setblocking(False)
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen()
        (folder / "socket").chmod(0o777)
        facts = {
            "secret": str(folder / "secret"),
            "hidden": str(folder / "hidden"),
            "git": str(folder / "git"),
            "output": str(folder / "output" / "weights.safetensors"),
            "next_output": str(folder / "output" / "next.safetensors"),
            "pickle": str(folder / "checkpoint.pt"),
            "planted": str(folder / "planted"),
            "project": str(PROJECT),
            "dataset": str(next(path for path in sorted((PROJECT / "benchmark/data").rglob("*")) if path.is_file())),
            "torch": torch.__file__,
            "parent": os.getpid(),
            "key_name": KEY_NAME,
            "needle": (NEEDLE[:12], NEEDLE[12:]),
            "tcp": listeners["tcp"].getsockname()[1],
            "udp": listeners["udp"].getsockname()[1],
            "unix": str(folder / "socket"),
            "abstract": token,
        }
        yield Host(folder, token, facts, listeners)
