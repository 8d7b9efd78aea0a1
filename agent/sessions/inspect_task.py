"""The task for Inspect AI: each sample is a closed session; its tools are ours, its scores are those of the run.

Inspect replays nothing of ours: the run directory has the whole record, and the sample's metadata says where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from anyio.to_thread import run_sync
from inspect_ai import Task
from inspect_ai.agent import AgentPrompt, AgentState, AgentSubmit, as_solver, react
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, ChatMessageTool
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolDef, ToolError, ToolParams
from inspect_ai.util import store

from agent.config import SearchConfig, read_config
from agent.engine.loop import End
from agent.engine.resuming import Allowed
from agent.engine.search import Search
from agent.errors import AgentError
from agent.llm import prompting
from agent.progress import Progress
from agent.runs.directory import RunDirectory
from agent.runs.metrics import named_gains, task_metrics
from agent.runs.status import RunStatus
from agent.sessions.live import live_session
from agent.sessions.mcp_session import SharedSession
from agent.sessions.replies import SessionReply, StillRunning
from agent.sessions.session import CLOSED, Session
from agent.sessions.status import session_status
from agent.transcripts import Audit, Note, RecordedCall, Segment, Transcript, audit
from sandbox.editing import Dialect
from sandbox.region import SCAFFOLD_NAME

RUN = "initsearch:run"
"""Key of a sample's store: the path of its run."""
MESSAGES = 400
SILENT = 3
"""After so many answers in a row without a call of a tool the search ends."""
_POLL_SECONDS = 1.0
_WORDS = {
    "op": "replace puts content in place of lines, insert adds it between two",
    "content": "The complete new text of the range",
    "start_line": "First line to replace, counted from 1",
    "end_line": "Last line to replace, included",
    "after_line": "Line after which to insert",
    "n": "Number of the test",
}


def build(*, runs: str | None, **settings: Any) -> Task:
    """The task of `initsearch/init_search`. Raises UsageError for a setting that is wrong."""
    config = read_config({**settings, "runs": runs, "proposer": CLOSED}).config
    shared = SharedSession(config)
    profile = shared.profile
    allowed = Allowed.of(config, profile if profile.is_own else None)
    tools = {tool.name: tool for tool in _tools(config, allowed, prompting.scores_word(profile))}
    submit = AgentSubmit(tool=tools.pop("submit"), answer_only=True, keep_in_messages=True)
    agent = react(
        prompt=AgentPrompt(
            instructions=prompting.system_prompt(), assistant_prompt=None, handoff_prompt=None, submit_prompt=None
        ),
        tools=list(tools.values()),
        submit=submit,
        on_continue=_goes_on,
    )
    return Task(
        dataset=[
            Sample(id=profile.name if profile.is_own else config.profile, input=_first_message(config, shared.task()))
        ],
        setup=begin_session(config),
        solver=as_solver(agent),
        scorer=gains(allowed),
        message_limit=MESSAGES,
        metadata={"initsearch": shared.version},
    )


@solver
def begin_session(config: SearchConfig) -> Solver:
    """Make the sample's run and measure the baseline, which the task's text then names."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        session = await run_sync(partial(Session.start, None, config))
        store().set(RUN, str(session.run.path))
        state.user_prompt.text = _first_message(config, await run_sync(SharedSession(session=session).task))
        return state

    return solve


def _first_message(config: SearchConfig, task: str) -> str:
    return f"{task}\n{prompting.form_prompt('tools', screening=config.screen > 0, confirm=config.confirm)}"


# -- tools -----------------------------------------------------------------------------------------------------------


def _tools(config: SearchConfig, allowed: Allowed, scores: str) -> list[ToolDef]:
    """The tools of every language model, with the same descriptions. `scores`: what a test reports."""
    reply = partial(_reply, allowed)

    async def edit(
        op: Literal["replace", "insert"],
        content: str,
        filename: str = SCAFFOLD_NAME,
        start_line: int | None = None,
        end_line: int | None = None,
        after_line: int | None = None,
    ) -> str:
        lines = {"start_line": start_line, "end_line": end_line, "after_line": after_line}
        given = {name: line for name, line in lines.items() if line is not None}
        return await reply(lambda shared: shared.call("edit", op=op, filename=filename, content=content, **given))

    async def rewrite(content: str) -> str:
        return await reply(lambda shared: shared.call("rewrite", content=content))

    async def undo(n: int = 1) -> str:
        return await reply(lambda shared: shared.call("undo", n=n))

    async def view() -> str:
        return await reply(lambda shared: shared.view())

    async def screen() -> str:
        return await reply(lambda shared: shared.begin_screen(None))

    async def test() -> str:
        return await reply(lambda shared: shared.begin_test())

    async def submit(n: int) -> str:
        return await reply(lambda shared: shared.begin_submit(n))

    known: dict[str, Callable[..., Any]] = {
        function.__name__: function for function in (edit, rewrite, undo, view, screen, test, submit)
    }
    return [
        ToolDef(
            known[described["function"]["name"]],
            name=described["function"]["name"],
            description=described["function"]["description"],
            parameters=_described(described["function"]["parameters"]),
            max_output=0,
        )
        for described in prompting.tools(screening=config.screen > 0, confirm=config.confirm, scores=scores)
    ]


def _described(parameters: dict[str, Any]) -> ToolParams:
    """The parameters, each with a description, which Inspect demands."""
    for name, schema in parameters["properties"].items():
        schema.setdefault("description", _WORDS.get(name, name))
    return ToolParams.model_validate(parameters)


async def _reply(allowed: Allowed, work: Callable[[SharedSession], SessionReply | StillRunning]) -> str:
    """The reply of a call, once it is there. A refusal is an error of the tool: so a refused submit ends nothing."""
    shared = SharedSession(session=_session(allowed))
    try:
        found: SessionReply | StillRunning | None = await run_sync(partial(work, shared))
        while isinstance(found, StillRunning):
            found = await run_sync(partial(shared.wait, _POLL_SECONDS))
    except AgentError as error:
        raise ToolError(f"ERROR: {error}") from None
    if found is None or not (found.ok or found.error == "candidate_failed"):
        raise ToolError(found.text if found is not None else "ERROR: no reply")
    return found.text


async def _goes_on(state: AgentState) -> bool:
    """Whether to ask a model again that has stopped to call tools."""
    answers = [message for message in state.messages if message.role == "assistant"][-SILENT:]
    return len(answers) < SILENT or any(answer.tool_calls for answer in answers)


def _session(allowed: Allowed) -> Session:
    """The session of the sample that this task of the event loop works on."""
    path = store().get(RUN)
    if not path:
        raise ToolError("ERROR: the session of this sample was not started")
    return Session(RunDirectory(Path(path)), None, allowed)


def _end(session: Session) -> None:
    """End a session whose model stopped without a submission: the best test is submitted."""
    with live_session(Search.resume(session.run, allowed=session.allowed), Progress()) as live:
        if live.outcome is None:
            live.end_without_submission(End("tests_exhausted", "The model stopped without a submission."))


# -- scores ----------------------------------------------------------------------------------------------------------


@scorer(metrics={"*": [mean(), stderr()]})
def gains(allowed: Allowed) -> Scorer:
    """Gains in points as `agent show` prints them, the mean over tasks where there are several; leaks; submission.

    Gains in another metric have its name behind theirs, and are positive when better, too. Without a submission the
    best test is submitted first, as in every search. If no test succeeded the baseline stands, so the gains are 0 and
    `submitted` is 0.
    """

    async def score(state: TaskState, target: Target) -> Score:
        session = _session(allowed)
        if not RunStatus.of(session.run.read_summary()).over:
            await run_sync(partial(_end, session))
        summary = session.run.read_summary()
        kinds = {kind: summary.get(kind) or {} for kind in ("visible", "hidden")}
        if not isinstance(summary.get("submitted_test"), int):
            kinds = {"visible": {}, "hidden": {}}
        leaks = _leaks(state.messages, session.run)
        value = named_gains({**summary, **kinds})
        metrics = {task: metric.as_json() for task, metric in task_metrics(summary).items() if not metric.is_accuracy}
        return Score(
            value={**value, "submitted": float(bool(kinds["visible"])), "leaks": float(len(leaks))},
            answer=None if summary.get("submitted_test") is None else f"test #{summary['submitted_test']}",
            explanation="\n".join(summary.get("words") or ["No test succeeded, so nothing was submitted."]),
            metadata={
                "run": str(session.run.path),
                **kinds,
                **({"metrics": metrics} if metrics else {}),
                "tests_used": session_status(session).tests_used,
                "leaks": leaks,
            },
        )

    return score


def _leaks(messages: list[ChatMessage], run: RunDirectory) -> list[dict[str, object]]:
    """What the audit finds in our record, and in the conversation as Inspect kept it."""
    hidden = frozenset(task["name"] for task in run.read_summary()["tasks"]["hidden"])
    found: list[Audit] = [audit(run.path), audit(conversation(messages, hidden))]
    return [leak.as_object() for one in found for leak in one.leaks]


def conversation(messages: list[ChatMessage], hidden: frozenset[str]) -> Transcript:
    """The messages of a sample as a transcript, in which the names of hidden tasks may not show before a submission."""
    results = {message.tool_call_id: message for message in messages if isinstance(message, ChatMessageTool)}
    entries: list[Note | RecordedCall] = []
    prompt: list[str] = []
    for step, message in enumerate(messages, start=1):
        if message.role == "assistant":
            entries.append(Note("assistant", message.text, step))
            for call in message.tool_calls or []:
                result = results.get(call.id)
                text = None if result is None else result.error.message if result.error else result.text
                entries.append(RecordedCall(step, call.function, call.arguments, recorded=text))
        elif message.role != "tool":
            if entries:
                entries.append(Note("user", message.text, step))
            else:
                prompt.append(message.text)
    segment = Segment("\n".join(prompt), entries=tuple(entries))
    return Transcript("inspect", segments=(segment,), hidden_labels=hidden, dialect=Dialect.OURS)
