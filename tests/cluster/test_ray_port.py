"""Another program listens at the address that was meant to be Ray's: what the user is told, and how soon."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.conftest import agent_command, agent_environment
from tests.cluster.conftest import needs_clusters

STEERING = "\x1b[2J\x1b]0;title\x07"


def _says_nothing(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def _hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


def _greets(connection: socket.socket) -> None:
    connection.sendall(f"SSH-2.0-OpenSSH {STEERING}\r\n".encode())
    _says_nothing(connection)


def _is_a_web_server(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(f"HTTP/1.1 400 {STEERING}\r\nContent-Length: 0\r\n\r\n".encode())


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yields HOST:PORT of a program that answers each connection so."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=reply, args=(server.accept()[0],), daemon=True).start()

    def reply(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


@pytest.mark.parametrize("answer", [_says_nothing, _hangs_up, _greets, _is_a_web_server])
def test_another_program_at_the_port(answer: Callable[[socket.socket], None], tmp_path: Path) -> None:
    """One sentence, exit 2 (doctor: 1) and nothing trained; nothing that the program sends reaches the terminal."""
    needs_clusters()
    pytest.importorskip("ray", minversion="2.50")
    search = ("search", "--profile", "smoke", "--budget", "1", "--runs", str(tmp_path / "runs"))
    with listening(answer) as address:
        began = [
            subprocess.Popen(
                agent_command(*words, "--executor", "ray", "--ray-address", address),
                cwd=tmp_path,
                env=agent_environment(tmp_path / "cache"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for words in (("doctor",), search)
        ]
        (found, said), (out, errors) = (process.communicate(timeout=400) for process in began)
    print(f"\n{errors}{found}")
    sentence = f"--ray-address {address}: no Ray cluster answers there: what listens there does not answer as Ray does"
    assert [process.returncode for process in began] == [1, 2]
    assert found.count(sentence) == errors.count(sentence) == 1
    for text in (found, said, out, errors):
        assert "Traceback" not in text
        assert "title" not in text
        assert "gcs" not in text.lower()
