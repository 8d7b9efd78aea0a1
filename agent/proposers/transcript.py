"""A recorded conversation as proposer: its edits are made again in our scaffold, and its tests are run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.errors import UsageError
from agent.protocol import ToolCall
from agent.transcripts import TranscriptError, load_transcript, replay
from agent.transcripts.test_count import submission

_FUNCTION = "def initialize_weights("


def calls_of(path: str) -> list[ToolCall]:
    """The calls of the conversation's last segment, for our tools.

    An edit or an undo becomes a `rewrite` with the function's whole text, because line numbers differ in our scaffold.
    Raises UsageError for a file that is not a conversation or does not edit initialize_weights.
    """
    if not path:
        raise UsageError("--proposer transcript:FILE needs a recorded conversation")
    try:
        transcript = load_transcript(Path(path))
        verdicts = list(replay(transcript))
    except TranscriptError as error:
        raise UsageError(f"--proposer transcript:{error}") from None
    last = len(transcript.segments) - 1
    calls: list[ToolCall] = []
    current: str | None = None
    for verdict in verdicts:
        if verdict.segment != last:
            continue
        number = submission(verdict.call)
        if number is not None:
            calls.append(ToolCall("submit", {"n": number}))
        elif verdict.call.tool == "test":
            calls.append(ToolCall("test"))
        else:
            region = function_region(verdict.regions)
            if region is not None and region != current:
                calls.append(ToolCall("rewrite", {"content": region}))
                current = region
    if current is None:
        raise UsageError(f"--proposer transcript:{path}: no call in it edits an initialize_weights function")
    return calls


def function_region(regions: Iterable[str]) -> str | None:
    """The editable text that contains the function, if there is one."""
    return next((region for region in regions if _FUNCTION in region), None)
