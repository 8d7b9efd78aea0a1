"""The events of a search, as its log records them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from benchmark.noise import TaskNoise


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Launch(_Event):
    """The search began. Records its configuration and its environment."""

    kind: Literal["launch"] = "launch"
    config: dict[str, Any]
    profile: str
    environment: dict[str, str]
    isolation_level: str
    scaffold: str
    """The edited file before the first call. The log can be replayed without any other file."""
    start_region: str | None = None
    """The region that `--start` gave; None without one. A resumed search does not read the user's file again."""
    tasks: dict[str, Any] | None = None
    """A user's own profile; see `agent.profiles.as_recorded`. None for a built-in one, and not written then."""
    script: str | None = None
    """Content of scripted:FILE or transcript:FILE: a region text or a JSON list of tool calls; None without a file."""
    noise: dict[str, TaskNoise] | None = None
    """Task → its seed noise as known when the search began; None in older runs, which used the profile's priors."""

    @model_serializer(mode="wrap")
    def _without_tasks(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if value is not None or name != "tasks"}


class Evaluated(_Event):
    """One region was trained on one task with one seed, or its result was in the store (`cached`)."""

    kind: Literal["evaluated"] = "evaluated"
    role: str
    """`baseline`, `test/1` …, `screen/ROUND/LOOK/CANDIDATE`; once submitted `hidden/baseline`, `hidden/submission`."""
    task: str
    seed: int
    key: str
    accuracy: float | None
    """Best test accuracy in percent; None when the candidate failed."""
    failure: str | None = None
    cached: bool = False
    seconds: float = 0.0
    place: str | None = None
    """The machine that trained it; None for this machine. Only written when it is another one."""
    attempts: int = 1
    """How often it was begun: 2 when its first process or machine died. Only written when it is not 1."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = fields(self)
        usual = {"place": None, "attempts": 1}
        return {name: value for name, value in found.items() if name not in usual or value != usual[name]}


class Proposal(_Event):
    """A proposer's reason for its next call: an Optuna trial with parameters, a model's answer, or a note."""

    kind: Literal["proposal"] = "proposal"
    proposer: str
    content: dict[str, Any]


class ToolCalled(_Event):
    """A proposer called a tool. Written before the call is carried out."""

    kind: Literal["tool_called"] = "tool_called"
    step: int
    tool: str
    arguments: dict[str, Any]


class ToolReplied(_Event):
    """A tool replied. `region_sha256` is the region in the workspace after the call."""

    kind: Literal["tool_replied"] = "tool_replied"
    step: int
    ok: bool
    error: str | None
    reply: str
    region_sha256: str


class TestStarted(_Event):
    """A test began. This event spends one unit of the budget, before any training."""

    kind: Literal["test_started"] = "test_started"
    __test__ = False
    number: int
    region_sha256: str


class TestFinished(_Event):
    """A paid test ended. `status` is `failed` when the candidate failed in any task."""

    kind: Literal["test_finished"] = "test_finished"
    __test__ = False
    number: int
    status: Literal["ok", "failed"]
    accuracies: dict[str, dict[int, float | None]]


class Screened(_Event):
    """A candidate was screened. `loss` (held out, nats) is None when it was rejected."""

    kind: Literal["screened"] = "screened"
    round: int
    region_sha256: str
    kept: bool
    """Whether it was the best of its round."""
    rejected: str | None
    rung: int
    """Length of its longest look, as an index into the profile's fidelities."""
    loss: float | None
    cost: float
    """Cost of the whole round in tests, on the event of its first candidate; 0 on the others."""


class Confirmed(_Event):
    """The finalists and the baseline were evaluated on fresh seeds. `chosen` is the best test by all seeds, if any."""

    kind: Literal["confirmed"] = "confirmed"
    seeds: list[int]
    tests: list[int]
    chosen: int | None


class TimeUp(_Event):
    """The limit on wall time ended the proposer's work."""

    kind: Literal["time_up"] = "time_up"
    max_seconds: float


class Submitted(_Event):
    """Test `number` was submitted. No hidden result is computed before this event."""

    kind: Literal["submitted"] = "submitted"
    number: int
    region_sha256: str
    by: Literal["proposer", "harness"]
    """Who called submit. With confirmation, `number` may be another finalist than the one that was named."""


class Halted(_Event):
    """The search was stopped by a signal or by our own machinery. A resumed search skips this event."""

    kind: Literal["halted"] = "halted"
    reason: str


class Ended(_Event):
    """The search ended, with its status and a message."""

    kind: Literal["ended"] = "ended"
    status: str
    message: str


Event = Annotated[
    Launch
    | Evaluated
    | Proposal
    | ToolCalled
    | ToolReplied
    | TestStarted
    | TestFinished
    | Screened
    | Confirmed
    | TimeUp
    | Submitted
    | Halted
    | Ended,
    Field(discriminator="kind"),
]


def accuracies_by_role(events: Iterable[Event]) -> dict[str, dict[str, dict[int, float | None]]]:
    """Role → task → seed → accuracy in percent, None for a failure. Includes the seeds of a confirmation."""
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    for event in events:
        if isinstance(event, Evaluated):
            found.setdefault(event.role, {}).setdefault(event.task, {})[event.seed] = event.accuracy
    return found
