"""A real head of `ray start --head` that wants a token: with it, with another one, and with none."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.conftest import agent_command, agent_environment, json_lines
from tests.cluster.conftest import needs_clusters
from tests.cluster.ray_head import ray_head

SEARCH = ("search", "--profile", "smoke", "--budget", "2", "--parallel", "2", "--json", "--no-page", "--no-cache")

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    address: str
    token: str


def _home(folder: Path, token: str | None) -> Path:
    """A home folder that has this token."""
    (folder / ".ray").mkdir(parents=True)
    if token is not None:
        (folder / ".ray" / "auth_token").write_text(token)
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    needs_clusters()
    pytest.importorskip("ray", minversion="2.60")  # since then `ray start` makes a cluster that wants the token
    token = f"right-{uuid.uuid4().hex}"
    home = _home(tmp_path_factory.mktemp("head"), token)
    with ray_head(RAY, home, cpus=2) as address:
        yield Head(address, token)


def _run(folder: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    environ = {name: value for name, value in agent_environment(folder).items() if not name.startswith("RAY_")}
    return subprocess.run(
        words,
        cwd=folder,
        env=environ | {"HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def _agent(folder: Path, home: Path, head: Head, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(folder, home, *agent_command(*words, "--executor", "ray", "--ray-address", head.address))


def test_the_token_of_the_home_folder_is_shown(head: Head, tmp_path: Path) -> None:
    """Doctor and a search reach the cluster; the token is in nothing that they print or leave."""
    home = _home(tmp_path / "home", head.token)
    examined = _agent(tmp_path / "work", home, head, "doctor")
    print(f"\n{examined.stdout}")
    assert examined.returncode == 0, examined.stderr
    assert "node " in examined.stdout
    searched = _agent(tmp_path / "work", home, head, *SEARCH)
    assert searched.returncode == 0, searched.stderr
    assert json_lines(searched.stdout)[-1]["status"] == "submitted"
    written = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert any(path.name == "events.jsonl" for path in written)
    for text in (examined.stdout, examined.stderr, searched.stdout, searched.stderr):
        assert head.token not in text
    for path in written:
        assert head.token.encode() not in path.read_bytes(), path
        assert path.name != "events.jsonl" or b"RAY_AUTH" not in path.read_bytes()


@pytest.mark.parametrize(
    ("token", "why"), [("wrong-0123456789", "is not the one"), (None, "is not there"), ("", "is empty")]
)
def test_without_the_token_there_is_one_sentence(head: Head, tmp_path: Path, token: str | None, why: str) -> None:
    """Ray itself printed the refusal twenty times in twenty seconds, then that no cluster answers."""
    home = _home(tmp_path / "home", token)
    examined = _agent(tmp_path / "work", home, head, "doctor")
    refused = _agent(tmp_path / "work", home, head, *SEARCH)
    print(f"\n{refused.stderr}{examined.stdout}")
    assert (examined.returncode, refused.returncode) == (1, 2)
    sentence = f"--ray-address {head.address}: the Ray cluster there wants its token, and"
    assert examined.stdout.count(sentence) == refused.stderr.count(sentence) == 1
    assert why in examined.stdout
    assert why in refused.stderr
    for text in (examined.stdout, examined.stderr, refused.stdout, refused.stderr):
        assert "Traceback" not in text
        assert "gcs_client" not in text
        assert head.token not in text


_CALLS = """
import os, sys
import ray  # before the variable is set: a notebook that has used Ray
from benchmark.executors.ray import RayExecutor
from benchmark.executors.ray_cluster import connected
from benchmark.hardware import DescribeEnvironment
from tests.benchmark.test_executor import Environment

names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "OMP_NUM_THREADS")
with connected(sys.argv[1]), RayExecutor(slots=1, threads=1, describe=DescribeEnvironment()) as executor:
    print(executor.submit(Environment(names)).result(timeout=300))
    print(sorted(name for name in os.environ if "AUTH" in name))
"""


def test_a_cluster_that_wants_none_is_shown_none(head: Head, tmp_path: Path) -> None:
    """With a token in ~/.ray (Ray leaves one there) no actor of such a cluster started: the search took no message."""
    (tmp_path / "head").mkdir()
    with ray_head(RAY, tmp_path / "head", variables={"RAY_AUTH_MODE": "disabled"}) as address:
        done = _run(tmp_path, _home(tmp_path / "home", head.token), sys.executable, "-c", _CALLS, address)
    assert done.returncode == 0, done.stderr
    assert "'OMP_NUM_THREADS': '1'" in done.stdout


def test_a_training_gets_no_token(head: Head, tmp_path: Path) -> None:
    """Neither the training nor this process has a variable of it; and Ray may have been imported long before."""
    done = _run(tmp_path, _home(tmp_path / "home", head.token), sys.executable, "-c", _CALLS, head.address)
    assert done.returncode == 0, done.stderr
    expected = {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": None, "OMP_NUM_THREADS": "1"}
    assert done.stdout == f"{expected}\n[]\n"
    assert "RAY_AUTH_MODE" not in os.environ
