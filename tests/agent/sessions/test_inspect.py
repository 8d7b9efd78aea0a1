"""The task for Inspect AI, run by Inspect itself with its mock model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from agent.protocol import ToolCall
from agent.runs.directory import RunDirectory
from agent.transcripts import audit
from benchmark.tasks import PROFILES

pytest.importorskip("inspect_ai", reason="the extra inspect (inspect-ai >= 0.3.285) is not installed")
if "initsearch" not in entry_points(group="inspect_ai").names:
    pytest.skip("initsearch was installed before it had this entry point: pip install -e .", allow_module_level=True)

from inspect_ai import eval as evaluate
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import ChatMessageAssistant, ChatMessageTool, ChatMessageUser, ModelOutput, ModelUsage, get_model
from inspect_ai.tool import ToolCall as InspectCall

from agent.sessions.inspect_task import conversation

ROOT = Path(__file__).resolve().parents[3]
COUNTS_BYTES = """import tiktoken
RANKS = {bytes([n]): n for n in range(256)}
ONE = tiktoken.Encoding("bytes", pat_str=r"[\\s\\S]", mergeable_ranks=RANKS, special_tokens={})
tiktoken.get_encoding = lambda name: ONE
"""
"""The mock model counts tokens by a table that tiktoken downloads; this one needs no network."""
HIDDEN = PROFILES["smoke"].hidden[0].name
REGION = """def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.05)
"""


whole_searches = pytest.mark.skipif(
    os.environ.get("INITSEARCH_ENVIRONMENTS") != "all",
    reason="a search by Inspect takes half a minute; INITSEARCH_ENVIRONMENTS=all",
)


@pytest.fixture
def shared_results(finished: object, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline comes from the results of the search that the tests share."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))


def scores(log: EvalLog) -> tuple[dict[str, float], dict[str, Any]]:
    """Value and metadata of the only score of the only sample."""
    assert log.status == "success", log.error
    assert log.samples is not None
    (sample,) = log.samples
    assert sample.scores is not None
    (score,) = sample.scores.values()
    assert isinstance(score.value, dict)
    assert score.metadata is not None
    return {name: float(str(value)) for name, value in score.value.items()}, score.metadata


def scripted(*calls: ToolCall) -> Any:
    """Inspect's mock model, which makes these calls one by one."""
    outputs = [ModelOutput.for_tool_call("mockllm/model", call.tool, dict(call.arguments)) for call in calls]
    for output in outputs:  # without it the mock model counts tokens, by a table that is downloaded
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return get_model("mockllm/model", custom_outputs=outputs)


@whole_searches
@pytest.mark.usefixtures("shared_results")
def test_scores_are_those_of_the_run(tmp_path: Path) -> None:
    """A model that edits, tests, submits what does not exist, then test 1: gains and intervals are the run's."""
    model = scripted(
        ToolCall("view"),
        ToolCall("rewrite", {"content": REGION}),
        ToolCall("test"),
        ToolCall("submit", {"n": 2}),
        ToolCall("submit", {"n": 1}),
    )
    (log,) = evaluate(
        "initsearch/init_search",
        task_args={"profile": "smoke", "budget": 1, "runs": str(tmp_path / "runs")},
        model=model,
        log_dir=str(tmp_path / "logs"),
        display="none",
    )
    value, metadata = scores(log)
    shown = RunDirectory(Path(metadata["run"])).read_summary()
    assert shown["submitted_test"] == 1
    for kind in ("visible", "hidden"):
        assert metadata[kind] == json.loads(json.dumps(shown[kind]))
        ((_, task),) = shown[kind].items()
        assert value[f"{kind}_gain"] == task["gain"]
        assert len(task["ci"]) == 2
    assert (value["submitted"], value["leaks"], metadata["tests_used"]) == (1, 0, 1)
    assert log.samples is not None
    (sample,) = log.samples
    told = [message for message in sample.messages if message.role == "user"]
    assert "Measured in this run" in told[0].text
    errors = [
        message.error.message for message in sample.messages if isinstance(message, ChatMessageTool) and message.error
    ]
    assert errors == ["ERROR: There is no test #2; tests so far: 1."]
    assert audit(Path(metadata["run"])).leaks == ()


@whole_searches
@pytest.mark.usefixtures("shared_results")
def test_the_command_line_with_a_model_that_never_acts(tmp_path: Path) -> None:
    """`inspect eval` finds the task by its name; a model that only talks ends the search, and gets no gain."""
    command = [sys.executable, "-m", "inspect_ai", "eval", "initsearch/init_search", "--model", "mockllm/model"]
    options = ["-T", "profile=smoke", "-T", "budget=1", "--log-dir", str(tmp_path / "logs"), "--display", "none"]
    (tmp_path / "sitecustomize.py").write_text(COUNTS_BYTES, encoding="utf-8")
    places = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [*command, *options],
        env={**os.environ, "INITSEARCH_RUNS": str(tmp_path / "runs"), "PYTHONPATH": places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "logs").glob("*.eval")
    value, metadata = scores(read_eval_log(str(path)))
    assert value == {"visible_gain": 0, "hidden_gain": 0, "submitted": 0, "leaks": 0}
    assert Path(metadata["run"]).parent == tmp_path / "runs"
    assert metadata["tests_used"] == 0
    assert RunDirectory(Path(metadata["run"])).read_summary()["status"] == "tests_exhausted"


def test_a_hidden_name_in_the_conversation_is_a_leak() -> None:
    """The audit reads what the model was told, before its submission, and not what it wrote itself."""

    def messages(reply: str) -> list[Any]:
        call = InspectCall(id="c", function="view", arguments={})
        return [
            ChatMessageUser(content="Find."),
            ChatMessageAssistant(content="", tool_calls=[call]),
            ChatMessageTool(content=reply, tool_call_id="c", function="view"),
        ]

    hidden = frozenset({HIDDEN})
    assert [leak.label for leak in audit(conversation(messages(f"{HIDDEN}: 33.1"), hidden)).leaks] == [HIDDEN]
    assert audit(conversation(messages("nothing"), hidden)).leaks == ()
