"""What is fuzzed: for each reader its sound inputs, how they are damaged, and the errors that it may raise."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from agent.config import load_config
from agent.errors import Rejected, RunDamaged, UsageError
from agent.llm.answers import BadBody, parse_answer
from agent.llm.calls import ArgumentError, calls_in_text, tool_call
from agent.proposers.scripted import read_script
from agent.report.diff import coloured, side_by_side
from agent.report.flags import code_flags
from agent.runs.directory import RunDirectory
from agent.runs.log import read_events
from agent.runs.log_lines import GENESIS
from agent.runs.record import read_run
from agent.runs.reviews import standing
from agent.spaces.literals import ScaleCommentError, current, find_numbers, rescale
from agent.transcripts import TranscriptError, load_transcript, replay, write_atif, write_mls_bench
from agent.transcripts.audit import audit
from agent.transcripts.loading import parse_json, parse_transcript
from benchmark.initializers import region_from_init_cfg
from benchmark.initializers.errors import InitConfigError
from benchmark.initializers.reading import parse_init_cfg
from benchmark.store import ResultStore
from benchmark.weights import WeightsRejected, load_initial_weights
from sandbox.editing import Dialect, Editor
from sandbox.region import RegionError, region_of, scaffold
from sandbox.rules import advise, check_region
from tests.agent.transcript_samples import DOUBLED, DOUBLED_REPLY, LISTING, TWO_FILES, call, conversation, edit, prompt
from tests.agent.transcripts.test_coding_agents import claude, codex, mini
from tests.fuzz.mutations import as_json, bytes_mutated, mutated, spliced

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample-run"
_CONVERSATION = conversation(
    prompt(),
    call(1, "edit", edit(3, 4, DOUBLED), DOUBLED_REPLY),
    call(2, "undo", {"n": 1}, "Undo complete:\nRestored: lab/custom.py"),
    call(3, "test", {}, "[Test #1] (2 tests remaining)\n### small\n[Leaderboard] {'acc_small': 1.0}\nacc_large-v2=2.5"),
    prompt(LISTING + TWO_FILES, cut=True),
    call(1, "edit", edit(3, 4, "x\n... (truncated)"), DOUBLED_REPLY, cut=True),
    call(2, "submit", {"n": 1}, "[submit] Submitting result from test #1 as final."),
)
_ANSWER = {
    "choices": [
        {
            "finish_reason": "stop",
            "message": {
                "content": [{"type": "text", "text": "<think>hm</think>x"}],
                "reasoning": "hm",
                "tool_calls": [{"id": "1", "function": {"name": "edit", "arguments": '{"op": "insert", "n": "1"}'}}],
                "function_call": {"name": "test", "arguments": {}},
            },
        }
    ],
    "model": "m",
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.1},
}
_SAID = (
    "Let me try.\n\n```python\ndef initialize_weights(model, config):\n    gain = 1.5  # scale: 1..2\n```\nand then\n"
    '~~~json\n{"tool": "submit", "arguments": {"n": 1}}\n~~~\n<tool_call>{"name": "test"}</tool_call>\n'
    "[edit(op='insert', after_line=3, content=\"a\\n\"), undo(n=-1), view(x=[None, {'y': 1.5}])]\n"
    "```tool_code\nprint(default_api.submit(1))\n```\n<function_calls>test()\nscreen()</function_calls>"
)
_TOML = 'budget = 3\nproposer = "llm"\nworkers = "auto"\nmax_cost = 1.5\nprice = "1/2"\nruns = "runs"\nsubmit = true\n'
_INIT_CFG = (
    "init_cfg = [dict(type='Kaiming', layer='Conv2d', mode='fan_out'), dict(type='Constant', layer=['BatchNorm2d'], "
    "val=1, bias=-0.5), {'type': 'Normal', 'std': 0.01, 'override': dict(name='fc', type='Xavier')}]"
)


@dataclass(frozen=True)
class Target:
    """One reader. `make` damages an input, `read` takes it; `errors` are what may come out instead of a result."""

    name: str
    make: Callable[[random.Random], Any]
    read: Callable[[Any], object]
    errors: tuple[type[Exception], ...] = ()

    def once(self, random: random.Random) -> None:
        """Make one input and read it; any other error than the expected ones comes out."""
        made = self.make(random)
        with contextlib.suppress(*self.errors):
            self.read(made)


def _event_log(random: random.Random) -> bytes:
    """The sample's log with damaged events, chained anew so that the damage is not found by its hashes alone."""
    events = [json.loads(line) for line in (SAMPLE / "events.jsonl").read_bytes().splitlines()[:40]]
    spared = random.choice([0, 1])
    damaged = mutated(events[spared:], random)
    lines, previous = [], GENESIS
    for event in events[:spared] + (damaged if isinstance(damaged, list) else [damaged]):
        if isinstance(event, dict) and "previous" in event and random.random() < 0.98:
            event["previous"] = previous
        line = as_json(event, random) if random.random() < 0.02 else json.dumps(event).encode()
        lines.append(line)
        previous = hashlib.sha256(line).hexdigest()
    return b"".join(line + b"\n" for line in lines)


def _read_log(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events.jsonl")
        path.write_bytes(data)
        with contextlib.suppress(RunDamaged):
            read_events(path)
        with contextlib.suppress(TranscriptError):
            _use(path)


def _use(source: Path | bytes) -> None:
    """All that is done with a conversation once it is read."""
    if isinstance(source, Path):
        transcript = load_transcript(source)
    else:
        transcript = parse_transcript(parse_json(source, "fuzz"), "fuzz")
    list(replay(transcript))
    audit(transcript)
    write_mls_bench(transcript)
    write_atif(transcript, agent_name="a", agent_version="1")


def _mls_bench(random: random.Random) -> bytes:
    return as_json(mutated(_CONVERSATION, random), random)


def _atif(random: random.Random) -> bytes:
    transcript = parse_transcript(_CONVERSATION)
    return as_json(mutated(write_atif(transcript, agent_name="a", agent_version="1"), random), random)


def _session(random: random.Random) -> bytes:
    made = random.choice([claude, codex])("[Test #1] x\n### a (b)\nacc_a=1")
    return b"\n".join(as_json(mutated(line, random), random) for line in made)


def _read_session(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "session.jsonl")
        path.write_bytes(data)
        _use(path)


def _mini(random: random.Random) -> bytes:
    return as_json(mutated(mini("acc=1", tools=random.random() < 0.5), random), random)


def _run_folder(random: random.Random) -> tuple[bytes, bytes, bytes]:
    summary = as_json(mutated(json.loads((SAMPLE / "run.json").read_bytes()), random), random)
    review = {"schema": 1, "kind": "comment", "message": "m", "author": "a", "time": 1.0, "patch_sha256": "x"}
    lines = [as_json(mutated([review], random), random)[1:-1] for _ in range(2)]
    return summary, _event_log(random), b"\n".join(lines)


def _read_folder(files: tuple[bytes, bytes, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in zip(("run.json", "events.jsonl", "reviews.jsonl"), files, strict=True):
            Path(folder, name).write_bytes(data)
        run = RunDirectory(Path(folder))
        with contextlib.suppress(RunDamaged):
            _ = standing(run).exit_code
        with contextlib.suppress(RunDamaged):
            record = read_run(run)
            record.tasks("visible")
            record.curves("baseline", "x")


def _result(random: random.Random) -> bytes:
    path = random.choice(sorted((SAMPLE / "results").glob("*.json")))
    envelope = json.loads(path.read_bytes())
    envelope["result"] = mutated(envelope["result"], random)
    sorted_text = json.dumps(envelope["result"], sort_keys=True)
    envelope["sha256"] = hashlib.sha256(sorted_text.encode()).hexdigest()
    return as_json(envelope if random.random() < 0.8 else mutated(envelope, random), random)


def _read_result(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "key.json").write_bytes(data)
        assert ResultStore(Path(folder)).get("key") is None


def _read_toml(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.toml")
        path.write_bytes(text.encode(errors="surrogatepass"))
        load_config({}, toml=path, environ={})


def _read_script(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.json")
        path.write_bytes(text.encode(errors="surrogatepass"))
        read_script(str(path))


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def _weights(random: random.Random) -> bytes:
    data = save({name: parameter.detach() for name, parameter in _network().named_parameters()})
    length = int.from_bytes(data[:8], "little")
    if random.random() < 0.3:
        return bytes_mutated(data, random)
    header = as_json(mutated(json.loads(data[8 : 8 + length]), random), random)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _read_weights(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w.safetensors")
        path.write_bytes(data)
        load_initial_weights(path, _network())


def _answer(random: random.Random) -> str:
    return as_json(mutated(_ANSWER, random), random).decode(errors="surrogateescape")


def _read_answer(body: str) -> None:
    answer = parse_answer(body, sent_characters=10)
    json.dumps(answer.as_content(), ensure_ascii=False).encode()
    for wire in answer.calls:
        with contextlib.suppress(ArgumentError):
            _edit(tool_call(wire.name, wire.arguments).arguments)
    with contextlib.suppress(ArgumentError):
        calls_in_text(answer.text, code=True)


def _read_said(text: str) -> None:
    for code in (True, False):
        with contextlib.suppress(ArgumentError):
            for one in calls_in_text(text, code=code):
                _edit(one.arguments)


def _edit(arguments: Any) -> None:
    for dialect in Dialect:
        editor = Editor.of(scaffold().editable(), dialect=dialect, advise=advise)
        for reply in (
            editor.edit(arguments),
            editor.rewrite(arguments.get("content")),
            editor.undo(arguments.get("n")),
        ):
            reply.text.encode(errors="surrogatepass")


def _arguments(random: random.Random) -> dict[str, Any]:
    known = {
        "op": "replace",
        "filename": "sandbox/custom_init.py",
        "start_line": 29,
        "end_line": "30",
        "after_line": 30,
    }
    found = mutated({**known, "content": scaffold().region, "n": 1}, random)
    return found if isinstance(found, dict) else {}


def _read_region(text: str) -> None:
    check_region(text, first_line=3)
    code_flags(text)
    coloured(text)
    side_by_side(scaffold().region, text)
    with contextlib.suppress(RegionError):
        region_of(text)
    with contextlib.suppress(SyntaxError, ScaleCommentError):
        numbers = find_numbers(text)
        rescale(text, {name: value / 2 for name, value in current(numbers).items()})


def _read_init_cfg(text: str) -> None:
    region_from_init_cfg(parse_init_cfg(text))


TARGETS = (
    Target("event log", _event_log, _read_log),
    Target("run folder", _run_folder, _read_folder),
    Target("result", _result, _read_result),
    Target("MLS-Bench conversation", _mls_bench, _use, (TranscriptError,)),
    Target("ATIF trajectory", _atif, _use, (TranscriptError,)),
    Target("coding agent's session", _session, _read_session, (TranscriptError,)),
    Target("mini-swe-agent trajectory", _mini, _use, (TranscriptError,)),
    Target("configuration", lambda random: spliced(_TOML, random), _read_toml, (UsageError,)),
    Target(
        "script",
        lambda random: spliced('[{"tool": "test", "arguments": "{}"}]', random),
        _read_script,
        (UsageError, Rejected),
    ),
    Target("init_cfg", lambda random: spliced(_INIT_CFG, random), _read_init_cfg, (InitConfigError,)),
    Target("weights", _weights, _read_weights, (WeightsRejected,)),
    Target("answer", _answer, _read_answer, (BadBody,)),
    Target("portable form", lambda random: spliced(_SAID, random), _read_said),
    Target("edit", _arguments, _edit),
    Target("region", lambda random: spliced(scaffold().region, random), _read_region),
)
