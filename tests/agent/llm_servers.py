"""A small bad server that speaks Chat Completions over real HTTP, and a bench without training to search on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, cast

from agent.clock import Clock
from agent.engine.loop import End, run_loop
from agent.engine.toolbox import Toolbox
from agent.evaluation.batches import Evaluations
from agent.llm.client import ChatClient, Model
from agent.llm.settings import ModelSettings, SpendingLimits
from agent.proposers.llm import Brief, LLMProposer
from agent.protocol import Observation, Proposer, TestOutcome, ToolCall
from agent.runs.events import Proposal, ToolReplied
from agent.runs.log import EventLog, read_events
from benchmark.results import region_sha256
from benchmark.store import LayeredStore, ResultStore
from benchmark.tasks import get_profile
from sandbox.workspace import Workspace

KEY = "sk-test-0123456789abcdefSECRET"
TASK = "resnet20-tiny"

GOOD = """def initialize_weights(model, config):
    gain = {gain}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, 0.1 * gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
"""


@dataclass
class Reply:
    """What the server does with one request. `drip`: seconds between bytes; `cut`: promise more than is sent."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    cut: bool = False
    hang_up: bool = False


SAID: dict[str, Any] = {
    "role": "assistant",
    "content": "so",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "view", "arguments": "{}"}}],
    "reasoning": "thought",
    "reasoning_field": "reasoning_content",
}
"""An answer with thoughts and a call, as it stands in a conversation."""


def completion(text: str | None = None, *calls: tuple[str, Any], **message: Any) -> Reply:
    """A proper answer; arguments may be anything: a string goes out as it is."""
    finish = message.pop("finish_reason", "tool_calls" if calls else "stop")
    usage = message.pop("usage", {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110})
    body = {"role": "assistant", "content": text, **message}
    if calls:
        body["tool_calls"] = [
            {
                "id": f"c{number}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for number, (name, arguments) in enumerate(calls)
        ]
    choice = {"index": 0, "message": body, "finish_reason": finish}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]}
    return Reply(json.dumps({**answer, "usage": usage}).encode())


def error(status: int, message: str, *, code: str | None = None, **headers: str) -> Reply:
    """An error in the usual shape."""
    body = {"error": {"message": message, "type": "x", "param": None, "code": code}}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(json.dumps(body).encode(), status, sent)


class BadServer:
    """Plays its replies one after the other, the last one for ever; remembers what it was asked."""

    def __init__(
        self,
        *replies: Reply | Callable[[dict[str, Any]], Reply],
        models: Reply | None = None,
        empty: Reply | None = None,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._replies = list(replies)
        self._models = models or Reply(b'{"object": "list", "data": []}')
        self._empty = empty or error(400, "messages must not be empty")  # to the free question of first contact
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> BadServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def list_for(self, path: str) -> Reply:
        """The answer to a question for the list of models."""
        return self._models

    def reply_to(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)
        reply = self._replies[0] if len(self._replies) == 1 else self._replies.pop(0)
        return reply(request) if callable(reply) else reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.keys.append(self.headers.get("Authorization", ""))
                self._send(server.list_for(self.path))

            def do_POST(self) -> None:
                server.keys.append(self.headers.get("Authorization", ""))
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(server.reply_to(request) if request["messages"] else server._empty)

            def _send(self, reply: Reply) -> None:
                time.sleep(reply.delay)
                if reply.hang_up:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply.body) + (10 if reply.cut else 0)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    if reply.drip:
                        for byte in reply.body:
                            self.wfile.write(bytes([byte]))
                            self.wfile.flush()
                            time.sleep(reply.drip)
                    else:
                        self.wfile.write(reply.body)
                except OSError:
                    pass  # the client gave up, which is what some tests are about
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def settings(url: str, **changes: Any) -> ModelSettings:
    """Settings for a server of these tests."""
    return ModelSettings(**{"model": "tiny", "base_url": url, "request_seconds": 5.0, **changes})


def client(url: str, *, key: str = KEY, said: list[str] | None = None, **changes: Any) -> ChatClient:
    """A client that waits hundredths of a second between attempts."""
    say = (lambda text: None) if said is None else said.append
    return ChatClient(settings(url, **changes), {"OPENAI_API_KEY": key}, say=say, first_wait=0.002)


class Bench(Toolbox):
    """The toolbox of a search without its training: a real workspace, a real budget, made-up accuracies.

    A region that holds `fail` fails its test; otherwise test n gets 10 + n percent, or what `score` makes of it.
    """

    def __init__(self, folder: Path, budget: int, score: Callable[[int, str], float] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            workspace=Workspace.create(folder / "workspace"),
            evaluator=cast(Evaluations, None),
            log=EventLog(folder / "events.jsonl"),
            profile=get_profile("smoke"),
            seeds=(0,),
            budget=budget,
            baseline={TASK: {0: 10.0}},
            results=LayeredStore(ResultStore(folder / "results")),
        )
        self.by = ""
        self._score = score or (lambda number, region: 10.0 + number)

    def submit(self, number: object, *, by: Literal["proposer", "harness"]) -> Observation:
        self.by = by
        return super().submit(number, by=by)

    def _begin_test(self, step: int, call: ToolCall) -> Observation:
        return self._test()

    def _test(self) -> Observation:
        region = self.workspace.region
        digest = region_sha256(region)
        for earlier in self.tests:
            if earlier.region_sha256 == digest:
                return Observation(f"This region is the one of test #{earlier.number}.", test=earlier)
        if len(self.tests) >= self.budget:
            return Observation("ERROR: Test budget exhausted. You MUST call submit(n=N).", ok=False, error="budget")
        number = len(self.tests) + 1
        value = None if "fail" in region else self._score(number, region)
        outcome = TestOutcome(number, {TASK: {0: value}}, digest)
        self.tests.append(outcome)
        self.regions[number] = region
        self.workspace.tag(f"test/{number}")
        left = self.budget - number
        self._reports[number] = f"[Test #{number}] ({left} tests remaining)\n\ntest_acc_{TASK}={value}"
        return Observation(
            self._reports[number],
            ok=not outcome.failed,
            error="candidate_failed" if outcome.failed else None,
            test=outcome,
        )


def brief(budget: int = 3, **changes: Any) -> Brief:
    """What a prompt on the smoke profile says."""
    given = {"profile": get_profile("smoke"), "budget": budget, "seeds": (0,), "model": "tiny", **changes}
    return Brief(**given)


@contextmanager
def bench(folder: Path, budget: int = 3, score: Callable[[int, str], float] | None = None) -> Iterator[Bench]:
    """A bench in a folder; opening it again on the same folder's log resumes it."""
    if (folder / "workspace").exists():
        (folder / "workspace").rename(folder / f"old{time.monotonic_ns()}")
    made = Bench(folder, budget, score)
    try:
        yield made
    finally:
        made.workspace.close()
        made.log.close()


def run(proposer: Proposer, on: Bench, max_steps: int = 200, max_seconds: float | None = None) -> End:
    """The project's own loop."""
    return run_loop(proposer, on, Clock(), on.log, max_steps=max_steps, max_seconds=max_seconds)


def search_with(
    folder: Path, model: Model, /, *, budget: int = 3, said: list[str] | None = None, **changes: Any
) -> tuple[End, Bench]:
    """A search by `model` on a bench, from start or from the folder's log."""
    limits = changes.pop("limits", SpendingLimits())
    with bench(folder, budget) as on:
        say = (lambda text: None) if said is None else said.append
        return run(LLMProposer(brief(budget, limits=limits, **changes), model, on.log, say=say), on), on


def proposals(folder: Path) -> list[dict[str, Any]]:
    """The contents of all recorded proposals."""
    events = [record.event for record in read_events(folder / "events.jsonl")]
    return [event.content for event in events if isinstance(event, Proposal)]


def replies(folder: Path) -> list[str]:
    """What the tools answered."""
    events = [record.event for record in read_events(folder / "events.jsonl")]
    return [event.reply for event in events if isinstance(event, ToolReplied)]
