"""The canary must get out where nothing holds it, or its failing to get out elsewhere would mean nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox import canary
from sandbox.isolate import Isolation, obstacle_to
from sandbox.launcher import Zygote


def fly(level: str, *, with_landlock: bool = True) -> canary.Canary:
    zygote = Zygote(level, landlock=with_landlock)
    try:
        return canary.fly(zygote)
    finally:
        zygote.close()


@pytest.mark.parametrize("level", ["bubblewrap", "bubblewrap without landlock", "landlock"])
def test_the_levels_hold(level: str) -> None:
    """Everything is tried, nothing succeeds, and honest code works there."""
    name = level.split()[0]
    if obstacle_to(name):
        pytest.skip(str(obstacle_to(name)))
    flight = fly(name, with_landlock=level == name)
    assert flight.passed, (flight.summary(), flight.denied)
    assert len(flight.denied) >= 40


@pytest.mark.skipif(sys.platform != "linux", reason="the attempts go for Linux")
def test_the_canary_gets_out_where_nothing_holds_it() -> None:
    """Each attempt that can succeed for an ordinary user does, and what it left outside is seen from outside."""
    flight = fly("none")
    assert not flight.passed
    expected = {
        *("read_secret", "list_folder", "read_project", "read_passwords", "write_file", "make_folder", "link_file"),
        *("use_tcp", "use_udp", "use_unix_socket", "use_abstract_socket", "signal_parent", "signal_zygote", "fork"),
        *("start_thread", "start_program", "use_hidden_file", "use_socketpair", "become_dumpable"),
        *("reached a listener: tcp", "reached a listener: udp", "changed a file", "planted a file"),
    }
    assert expected <= set(flight.escapes), expected - set(flight.escapes)
    assert "got out" in flight.summary()


FAKE = """#!/bin/sh
if [ "$1" = --version ]; then echo bubblewrap 0.8.0; exit 0; fi
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


def fake_bubblewrap(folder: Path, text: str) -> None:
    (folder / "bwrap").write_text(text)
    (folder / "bwrap").chmod(0o755)


@pytest.mark.skipif(obstacle_to("landlock") is not None, reason="needs Landlock")
@pytest.mark.parametrize(
    ("text", "reason"),
    [(FAKE, "past bubblewrap"), ("#!/bin/sh\necho no user name spaces >&2\nexit 1\n", "no user name spaces")],
    ids=["isolates nothing", "does not start"],
)
def test_a_bubblewrap_that_does_not_isolate_is_not_believed(
    text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program called bwrap is no proof: the next level is taken, and the record says why."""
    fake_bubblewrap(tmp_path, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Isolation() as isolation:
        assert isolation.level == "landlock"
        said = str(isolation.evidence["stronger_levels"])
        # As root, the worker becomes nobody, who may not even reach an interpreter in root's home unless it is mounted.
        assert reason in said or (os.geteuid() == 0 and "did not start" in said)
