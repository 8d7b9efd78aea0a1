"""A recorded conversation, whatever file it came from: segments of calls with the replies that were recorded.

Readers (`mlsbench`, `atif`) build these objects, writers turn them back into files; replay and audit see nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.errors import UsageError
from sandbox.editing import Dialect
from sandbox.lines import EditableFile, Range

CUT_MARK = "\n... (truncated)"
"""What the public record puts at the end of a text that it has cut."""

Role = Literal["system", "user", "assistant"]


class TranscriptError(UsageError):
    """A transcript that cannot be read as one: the message says which file, what is wrong and what would work."""


@dataclass(frozen=True)
class RecordedCall:
    """One tool call and the reply that was recorded for it."""

    step: int
    tool: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    parse_error: str | None = None
    """Why the model's arguments were no JSON object; `arguments` is empty then."""
    recorded: str | None = None
    """The reply as far as it was kept, without the mark of a cut; None when none was kept."""
    recorded_cut: bool = False
    thinking: str = ""
    said: str = ""
    """Text that the model wrote beside the call."""
    model_called: bool = True
    """False for a step that a program dispatched without asking a language model."""
    region_sha256: str | None = None
    """Hash of the region after the call, where the record has one."""

    @property
    def content_cut(self) -> bool:
        """Whether the record kept only the beginning of what the call wrote."""
        content = self.arguments.get("content")
        return isinstance(content, str) and content.endswith(CUT_MARK)


@dataclass(frozen=True)
class Note:
    """A message that is no call: a word from the user in the middle, or the model talking without calling a tool."""

    role: Role
    text: str
    step: int = 0
    thinking: str = ""
    model_called: bool = True


@dataclass(frozen=True)
class Segment:
    """One attempt at the task: its prompt, then everything that followed. Workspace and counters begin afresh."""

    prompt: str = ""
    prompt_cut: bool = False
    entries: Sequence[RecordedCall | Note] = ()
    workspace: Sequence[EditableFile] | None = None
    """The files before the first call, where the record states them; otherwise the prompt's listing has to do."""

    @property
    def calls(self) -> Iterator[RecordedCall]:
        """The tool calls, in order."""
        return (entry for entry in self.entries if isinstance(entry, RecordedCall))


@dataclass(frozen=True)
class Snapshot:
    """A whole file after the edit of some step; the record does not say of which segment."""

    step: int
    filename: str
    original_name: str
    content: str

    def is_of(self, name: str) -> bool:
        """Whether this may show file `name`: the record writes "_" for "/" or "/" for "_" in its names."""
        flat = name.replace("/", "_")
        named = self.original_name.removeprefix(f"step_{self.step}_")
        return flat in (named, self.filename.replace("/", "_"))


@dataclass(frozen=True)
class Transcript:
    """A recorded conversation."""

    source: str
    """`mls-bench`, `atif`, `run`, or the coding agent: `claude-code`, `codex`, `mini-swe-agent`."""
    task: str = ""
    model: str = ""
    segments: Sequence[Segment] = ()
    snapshots: Sequence[Snapshot] = ()
    dialect: Dialect = Dialect.RECORDED
    budget: int | None = None
    """How many tests were allowed; None when the record does not say so outside its replies."""
    hidden_labels: frozenset[str] = frozenset()
    """Tasks that the record itself declares hidden."""

    @property
    def of_other_tools(self) -> bool:
        """Whether another harness' tools may have answered: neither a run of ours nor the benchmark's own record."""
        return self.source not in ("mls-bench", "run") and self.dialect is Dialect.RECORDED

    @property
    def of_coding_agent(self) -> bool:
        """Whether a coding agent's own tools answered each call."""
        return self.source in ("claude-code", "codex", "mini-swe-agent")

    @property
    def messages(self) -> int:
        """Prompts, calls and notes."""
        return sum(1 + len(segment.entries) for segment in self.segments)

    @property
    def calls(self) -> Iterator[tuple[int, RecordedCall]]:
        """Every tool call with the index of its segment, counted from 0."""
        return ((index, call) for index, segment in enumerate(self.segments) for call in segment.calls)


def extras_to_json(transcript: Transcript) -> dict[str, Any]:
    """What no public format has a place for; writers put it under a key of their own."""
    extras: dict[str, Any] = {"dialect": transcript.dialect.value}
    if transcript.budget is not None:
        extras["budget"] = transcript.budget
    if transcript.hidden_labels:
        extras["hidden_labels"] = sorted(transcript.hidden_labels)
    return extras


def extras_from_json(given: object, where: str) -> dict[str, Any]:
    """The same as arguments of Transcript. Raises TranscriptError where it is damaged."""
    if not isinstance(given, Mapping):
        return {}
    try:
        budget = given.get("budget")
        return {
            "dialect": Dialect(given.get("dialect", Dialect.RECORDED.value)),
            "budget": None if budget is None else int(budget),
            "hidden_labels": frozenset(map(str, given.get("hidden_labels", ()))),
        }
    except (TypeError, ValueError) as error:
        raise TranscriptError(f"{where}: what `agent export` added is damaged: {error}") from None


def workspace_to_json(files: Sequence[EditableFile]) -> list[dict[str, Any]]:
    """The files before a segment's first call, for writers."""
    return [
        {"name": file.name, "lines": list(file.lines), "ranges": [[r.start, r.end] for r in file.ranges]}
        for file in files
    ]


def workspace_from_json(given: object, where: str) -> list[EditableFile] | None:
    """The same back; None where there is none. Raises TranscriptError where it is damaged."""
    if given is None:
        return None
    try:
        if not isinstance(given, list):
            raise TypeError("not a list")
        return [
            EditableFile(
                str(item["name"]), [str(line) for line in item["lines"]], [Range(*pair) for pair in item["ranges"]]
            )
            for item in given
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise TranscriptError(f"{where}: the workspace that `agent export` added is damaged: {error}") from None
