"""The canary escapes where there is no isolation. Otherwise its failure to escape elsewhere would prove nothing.

That every level holds it: tests/attacks/test_attacks.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox import canary
from sandbox.isolate import Isolation, obstacle_to
from sandbox.launcher import Zygote


@pytest.mark.skipif(sys.platform != "linux", reason="the attempts go for Linux")
def test_the_canary_gets_out_where_nothing_holds_it() -> None:
    """Every attempt that an ordinary user can make succeeds, and the checks outside find its traces."""
    zygote = Zygote("none")
    try:
        result = canary.run(zygote)
    finally:
        zygote.close()
    assert not result.passed
    expected = {
        *("read_secret", "list_folder", "read_project", "read_passwords", "write_file", "make_folder", "link_file"),
        *("use_tcp", "use_udp", "use_unix_socket", "use_abstract_socket", "signal_parent", "signal_zygote", "fork"),
        *("start_thread", "start_program", "use_hidden_file", "use_socketpair", "become_dumpable"),
        *("reached a listener: tcp", "reached a listener: udp", "changed a file", "planted a file"),
    }
    assert expected <= set(result.escapes), expected - set(result.escapes)
    assert "got out" in result.summary()


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
    """A program called bwrap that isolates nothing is not used: the next level is, and the record says why.

    The second interpreter, which was started in it meanwhile, is not used either.
    """
    fake_bubblewrap(tmp_path, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Isolation(at_once=True) as isolation:
        assert isolation._second.zygote is None
        assert isolation.level == "landlock"
        said = str(isolation.evidence["stronger_levels"])
        # As root, the worker becomes nobody, who may not even reach an interpreter in root's home unless it is mounted.
        assert reason in said or (os.geteuid() == 0 and "did not start" in said)
