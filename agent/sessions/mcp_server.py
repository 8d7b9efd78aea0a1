"""The server of `agent mcp`: the tools of a session, the task and the file as resources, a prompt that begins the job.

What trains runs in a process of its own, which outlives this server and its client. A call that times out, is cancelled
or loses its client therefore stops nothing that was paid; the next call finds the reply in the log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from agent.errors import AgentError, RunBusy, in_one_sentence
from agent.sessions.mcp_arguments import wrong_arguments
from agent.sessions.mcp_session import SharedSession
from agent.sessions.replies import SessionReply, StillRunning
from agent.sessions.status import SessionStatus
from sandbox.region import SCAFFOLD_NAME

NAME = "initsearch"
TASK_URI = "initsearch://task"
FILE_URI = "initsearch://custom_init.py"
WAIT_SECONDS = 45.0
"""Clients commonly give up after 60 s."""
MOST_WAIT = 3600.0
_TICK = 1.0
_KIND = re.compile(r"(?<!^)(?=[A-Z])")
_BEGIN = (
    "Find a better weight initialisation. Read the task below, then use the tools edit, rewrite, undo, view, check, "
    "screen, test, wait, status and submit of this server. Train nothing by other means. End with submit.\n\n"
)


class ToolReply(BaseModel):
    """The structured content of every reply but that of `status`."""

    state: Literal["done", "running", "refused"]
    tool: str
    reply: str
    error: str | None = Field(default=None, description="Kind of the refusal, such as syntax or budget")
    test: int | None = Field(default=None, description="Number of the test that the reply is about")
    submitted: int | None = Field(default=None, description="Number of the submitted test, once there is one")


Reply = Annotated[CallToolResult, ToolReply]
Status = Annotated[CallToolResult, SessionStatus]
WaitSeconds = Annotated[float, Field(ge=0, le=MOST_WAIT, description="Seconds after which to answer in any case")]
Line = Annotated[int | None, Field(ge=0)]
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_ENDS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)


class _Server(MCPServer[Any]):
    """The SDK's server. Its own words on a wrong call are not for models, so each is told in ours."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError as error:
            from agent.engine.summary import OUR_FAILURES

            if not isinstance(error.__cause__, OUR_FAILURES):
                raise
            told = f"{in_one_sentence(error.__cause__)}; what was done is kept. Once that is mended, call {name} again"
            return _refused(name, AgentError(told))
        except ToolError as error:
            tools = {tool.name: tool.input_schema for tool in await self.list_tools()}
            if name not in tools:
                text = f"ERROR: Unknown tool '{name}'. Nothing was done. The tools are {', '.join(tools)}"
                return _reply("refused", name, text, error="unknown_tool")
            if not isinstance(error.__cause__, ValidationError):
                raise
            text = wrong_arguments(name, tools[name], error.__cause__)
            return _reply("refused", name, text, error="invalid_arguments")


def make_server(shared: SharedSession) -> MCPServer[Any]:
    """A server for one session, which any number of clients may share."""
    server = _Server(
        NAME,
        instructions=f"Search for a better weight initialisation. Read {TASK_URI} first, then edit, test and submit.",
        version=shared.version,
        log_level="WARNING",
    )
    tools = _Tools(shared)
    for function, notes in (
        (tools.view, _READS),
        (tools.edit, _WRITES),
        (tools.rewrite, _WRITES),
        (tools.undo, _WRITES),
        (tools.check, _READS),
        (tools.screen, _WRITES),
        (tools.test, _WRITES),
        (tools.wait, _READS),
        (tools.status, _READS),
        (tools.submit, _ENDS),
    ):
        server.add_tool(function, annotations=notes)

    @server.resource(TASK_URI, name="task", title="The task", mime_type="text/markdown")
    async def task() -> str:
        """What is asked, how it is judged, the baseline with its noise, the budget."""
        return await anyio.to_thread.run_sync(shared.task)

    @server.resource(FILE_URI, name="custom_init.py", title="The file", mime_type="text/x-python")
    async def file() -> str:
        """The file as it is now. Only the lines between its two markers can change, by edit and rewrite."""
        return await anyio.to_thread.run_sync(shared.file)

    @server.prompt(name="begin", title="Search for a better initialisation")
    async def begin() -> str:
        """The whole job: the task, and how to work on it with these tools."""
        return _BEGIN + await anyio.to_thread.run_sync(shared.task)

    return server


class _Tools:
    """The tools. Their docstrings are what a model reads."""

    def __init__(self, shared: SharedSession) -> None:
        self._shared = shared
        self._changing = anyio.Lock()

    async def view(self) -> Reply:
        """Show the editable range of custom_init.py with line numbers. Costs nothing."""
        async with self._changing:
            try:
                return _result(await anyio.to_thread.run_sync(self._shared.view))
            except AgentError as error:
                return _refused("view", error)

    async def edit(
        self,
        ctx: Context,
        op: Literal["replace", "insert", "create"],
        content: str,
        filename: str = SCAFFOLD_NAME,
        start_line: Line = None,
        end_line: Line = None,
        after_line: Line = None,
    ) -> Reply:
        """Change the editable range: op=replace puts content in place of start_line to end_line, both included and
        counted from 1; op=insert puts it after after_line. Costs nothing; the reply shows the range."""
        lines = {"start_line": start_line, "end_line": end_line, "after_line": after_line}
        given = {name: line for name, line in lines.items() if line is not None}
        return await self._when_free(
            "edit", ctx, lambda: self._shared.call("edit", op=op, filename=filename, content=content, **given)
        )

    async def rewrite(self, ctx: Context, content: str) -> Reply:
        """Replace the whole editable range by content: the complete function with its helpers. Costs nothing."""
        return await self._when_free("rewrite", ctx, lambda: self._shared.call("rewrite", content=content))

    async def undo(self, ctx: Context, n: Annotated[int, Field(ge=1)] = 1) -> Reply:
        """Take back the last n accepted edits. Costs nothing."""
        return await self._when_free("undo", ctx, lambda: self._shared.call("undo", n=n))

    async def check(self) -> Reply:
        """Say whether the present range is acceptable, with the reason. No training; costs nothing."""
        try:
            return _result(await anyio.to_thread.run_sync(self._shared.check))
        except AgentError as error:
            return _refused("check", error)

    async def screen(
        self, ctx: Context, candidates: list[str] | None = None, wait_s: WaitSeconds = WAIT_SECONDS
    ) -> Reply:
        """Look briefly at the present range, or at each candidate's text: a short training on a part of the training
        set, judged by its loss. Costs no test, but looks are limited. Refused where screening is off."""
        return await self._when_free("screen", ctx, lambda: self._shared.begin_screen(candidates), wait_s)

    async def test(self, ctx: Context, wait_s: WaitSeconds = WAIT_SECONDS) -> Reply:
        """Spend one test: train the visible tasks on the present range and report the scores. Answers "running"
        after wait_s seconds; then call wait. The same text again repeats its result and costs nothing."""
        return await self._when_free("test", ctx, self._shared.begin_test, wait_s)

    async def wait(self, ctx: Context, timeout_s: WaitSeconds = WAIT_SECONDS) -> Reply:
        """Wait for what is running, at most timeout_s seconds, and give its reply. Costs nothing."""
        return await self._until(ctx, "wait", time.monotonic() + timeout_s)

    async def status(self) -> Status:
        """Budget, tests with scores, baseline with noise, what may be done next. Costs nothing."""
        try:
            text, found = await anyio.to_thread.run_sync(self._shared.status)
        except AgentError as error:
            return _refused("status", error)
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=found)

    async def submit(self, ctx: Context, n: Annotated[int, Field(ge=1)], wait_s: WaitSeconds = WAIT_SECONDS) -> Reply:
        """Make test n final and end the search: the hidden task runs. Answers "running" after wait_s seconds."""
        return await self._when_free("submit", ctx, lambda: self._shared.begin_submit(n), wait_s)

    # -- how they are carried out ----------------------------------------------------------------------------------

    async def _when_free(
        self,
        tool: str,
        ctx: Context,
        work: Callable[[], SessionReply | StillRunning],
        wait_s: float = WAIT_SECONDS,
    ) -> CallToolResult:
        """Do the work once nothing else runs. If another process goes on with it, wait for its reply.

        All that takes at most `wait_s`; what trains nothing waits for the baseline at least.
        """
        begun = time.monotonic()
        deadline = begun + wait_s
        while True:
            try:
                running = await anyio.to_thread.run_sync(self._shared.running)
                if running is not None and running.tool == tool:
                    return await self._until(ctx, tool, deadline)
                if running is None:
                    async with self._changing:
                        found = await anyio.to_thread.run_sync(work)
                    return _result(found) if isinstance(found, SessionReply) else await self._until(ctx, tool, deadline)
            except RunBusy:
                running = None
            except AgentError as error:
                return _refused(tool, error)
            busy = running is not None and running.tool in ("test", "screen", "submit")
            if busy or time.monotonic() >= deadline:
                return _not_begun(tool, running)
            await ctx.report_progress(time.monotonic() - begun, None, f"waiting for {_what(running)}")
            await anyio.sleep(min(_TICK, max(0.0, deadline - time.monotonic())))

    async def _until(self, ctx: Context, tool: str, deadline: float) -> CallToolResult:
        """The reply of what runs, or "running" at the deadline; a notification of progress every second."""
        begun = time.monotonic()
        while True:
            left = deadline - time.monotonic()
            try:
                once = partial(self._shared.wait, max(0.0, min(_TICK, left)))
                found = await anyio.to_thread.run_sync(once, abandon_on_cancel=True)
            except AgentError as error:
                return _refused(tool, error)
            if isinstance(found, SessionReply):
                return _result(found)
            if found is None:
                return _reply("done", tool, "nothing is running, and nothing was tested yet")
            if left <= 0:
                return _running(tool, found)
            await ctx.report_progress(time.monotonic() - begun, None, f"{_what(found)} is running")


def _what(found: StillRunning | None) -> str:
    if found is None or found.tool == "another command":
        return "another call"
    return f"test #{found.test}" if found.tool == "test" and found.test is not None else found.tool


def _running(tool: str, found: StillRunning) -> CallToolResult:
    text = f"running: {_what(found)}, for {found.seconds:.0f} s; call wait to get its reply"
    return _reply("running", tool, text, test=found.test)


def _not_begun(tool: str, found: StillRunning | None) -> CallToolResult:
    """Nothing was done or spent: the run is locked by what runs."""
    text = f"ERROR: not carried out, because {_what(found)} is running: call wait, then {tool} again"
    return _reply("refused", tool, text, error="busy")


def _refused(tool: str, error: AgentError) -> CallToolResult:
    return _reply("refused", tool, f"ERROR: {error}", error=_KIND.sub("_", type(error).__name__).lower())


def _result(found: SessionReply) -> CallToolResult:
    paid = found.ok or found.error == "candidate_failed"
    return _reply(
        "done" if paid else "refused",
        found.tool,
        found.text,
        error=found.error,
        test=found.test,
        submitted=found.submitted,
    )


def _reply(state: Literal["done", "running", "refused"], tool: str, text: str, **facts: Any) -> CallToolResult:
    made = ToolReply(state=state, tool=tool, reply=text, **facts)
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=made.model_dump(mode="json"),
        is_error=state == "refused",
    )
