"""Find whether a reply showed anything of a hidden task before the submission.

A test reports each visible task under a heading `### LABEL (script)`. A label is hidden in a segment when no such
heading names it before the submission, or when the task's own text (or the record) declares it hidden. A leak is a
reply to a test, before the submission, that carries a value under a hidden label. The usual place is the line
`[Leaderboard] Results saved: {…}`, where the public harness prints every task. Elapsed times count: they show that the
hidden task was run. The result of a submission is not a leak, nor is the last test's where it is submitted by itself.
Our own records declare their hidden tasks: there the bare name, in anything that the proposer was told, is a leak too.
In sessions of coding agents, and beside tools of another harness, every text that a tool or the user gave is looked
into as if it were a test's reply, and a number beside the name of one of our hidden tasks is a leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.transcripts.loading import load_transcript
from agent.transcripts.model import Note, RecordedCall, Segment, Transcript, TranscriptError
from agent.transcripts.test_count import submission
from benchmark.tasks import PROFILES

_SECTION = re.compile(r"^### (\S+)(?: \(|$)", re.MULTILINE)
_SCRIPT_LABEL = re.compile(r"label: `([^`\n]+)`")
_LEADERBOARD = re.compile(r"^\[Leaderboard\][^\n{]*(\{[^\n]*)", re.MULTILINE)
_ENTRY = re.compile(r"""(['"])(?P<key>(?:(?!\1).)+)\1: (?P<value>[^,}]+)""")
_FIELD = re.compile(r"(?<![\w.-])(?P<key>\w[\w.-]*)=(?P<value>-?(?:\d|nan|inf)[\w.+-]*)", re.IGNORECASE)
_DECLARES = re.compile(
    r"\(hidden\)|[—–:-] ?hidden\b(?! ?(?:layer|unit|size|dim))|\bhidden:"
    r"|\bhidden\b[^.]*\b(?:submission|evaluated|until)\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^\s*\d+:")
_AUTO_SUBMIT = "[auto-submit]"
_AUTO_SUBMITTED = "(0 tests remaining; auto-submitted as final)"
_SUBMITTED = re.compile(
    r"""^(?:\{"event": "reply", "tool": "submit", [^\n]{1,200}"reply": ")?\[submit\] Submitting result from test #\d"""
    r"""|submitted test #\d+; now the hidden""",
    re.MULTILINE,
)
"""The reply of a submission, also with --json, or its progress: a shell with a time limit shows it before the reply."""
_QUOTE = r"""\\?["']"""
_BETWEEN = (
    r"""(?:["'\s:=|({\[*`]{1,12}| seed [^\n]{1,80} accuracy """
    rf"""|{_QUOTE}\s{{0,9}}:\s{{0,9}}\{{\s{{0,99}}{_QUOTE}\w{{1,30}}{_QUOTE}\s{{0,9}}:\s{{0,9}}"""
    rf"""|{_QUOTE}[^{{}}]{{0,600}}?{_QUOTE}(?:accuracy|best_test_acc){_QUOTE}\s{{0,9}}:\s{{0,9}})"""
)
"""What stands between the name of a hidden task and a number of it: in words and tables, and in the JSON of `agent
search --json` ({NAME: {"baseline": …), of a result and of a log ({…, "task": NAME, …, "accuracy": …)."""
_RESULT = re.compile(r"^\[Test #\d+\]|^### \S+ \(|^\[Leaderboard\]", re.MULTILINE)
_LAST_TEST = re.compile(r"^\[Test #\d+\] \(0 tests remaining\)")
_LONG_LINE = 2_000
_LONG_NAME = 300
_MOST_LABELS = 500
_SUMMARY = {"all", "avg", "mean", "overall", "std", "total"}


@dataclass(frozen=True)
class Leak:
    """One hidden label that one reply shows; `text` is what stands there."""

    segment: int
    step: int
    label: str
    text: str

    def as_object(self) -> dict[str, object]:
        """The JSON object of the contract."""
        return {"segment": self.segment, "step": self.step, "label": self.label, "text": self.text}


@dataclass(frozen=True)
class Audit:
    """What an audit found, how many calls it looked at, and how many of them were tests that printed a result."""

    leaks: tuple[Leak, ...]
    calls: int
    results: int
    messages: int = 0
    """Prompts, calls and notes of the conversation."""

    def as_object(self) -> dict[str, object]:
        """The JSON object of the contract."""
        return {"leaks": [leak.as_object() for leak in self.leaks], "calls": self.calls}


def audit(source: Path | str | Transcript) -> Audit:
    """Look for hidden labels and values before the submission. Raises TranscriptError when it can't be read."""
    transcript = source if isinstance(source, Transcript) else load_transcript(source)
    leaks: list[Leak] = []
    results = 0
    for index, segment in enumerate(transcript.segments):
        before, after = _split(segment, everything=transcript.of_other_tools)
        results += sum(call.tool == "test" or bool(_RESULT.search(call.recorded or "")) for call in before)
        ours = _our_hidden() if transcript.of_other_tools else frozenset[str]()
        found = list(_leaks(index, segment, before, after, transcript.hidden_labels | ours, ours))
        known = {(leak.step, leak.label) for leak in found}
        named = _named(index, segment, after[0] if after else None, transcript.hidden_labels)
        leaks += found + [leak for leak in named if (leak.step, leak.label) not in known]
    return Audit(tuple(leaks), sum(1 for _ in transcript.calls), results, transcript.messages)


def _our_hidden() -> frozenset[str]:
    """Tasks that are hidden in some profile and visible in none."""
    visible = {task.name for profile in PROFILES.values() for task in profile.visible}
    return frozenset(task.name for profile in PROFILES.values() for task in profile.hidden) - visible


def _split(segment: Segment, *, everything: bool) -> tuple[list[RecordedCall], list[RecordedCall]]:
    """A segment's replies with results: of tests before the submission, and of the submission and what follows.

    With `everything`, each reply and each word of the user counts like the reply to a test.
    """
    calls = [call for call in segment.calls if call.tool in ("test", "submit")]
    if everything:
        calls = [
            RecordedCall(entry.step, "", recorded=entry.text) if isinstance(entry, Note) else entry
            for entry in segment.entries
            if isinstance(entry, RecordedCall) or entry.role != "assistant"
        ]
    before: list[RecordedCall] = []
    last_chosen = max((position for position, call in enumerate(calls) if _submits(call)), default=-1)
    for position, call in enumerate(calls):
        if call.recorded is None or call.recorded.startswith("ERROR"):
            continue
        if _submits(call) or _submits_itself(call, chosen_later=last_chosen > position):
            return before, [later for later in calls[position:] if later.recorded is not None]
        before.append(call)
    return before, []


def _submits(call: RecordedCall) -> bool:
    """Whether the call submits, or, where other tools answer, its reply says so."""
    if call.tool in ("test", "submit"):
        return submission(call) is not None
    return _SUBMITTED.search(call.recorded or "") is not None


def _submits_itself(call: RecordedCall, *, chosen_later: bool) -> bool:
    """Whether the last test's result is final; where its end was cut off, because nothing else was submitted."""
    text = call.recorded or ""
    if _AUTO_SUBMIT in text or _AUTO_SUBMITTED in text.split("\n", 1)[0]:
        return True
    return call.recorded_cut and bool(_LAST_TEST.match(text)) and not chosen_later


def _leaks(
    index: int,
    segment: Segment,
    before: Sequence[RecordedCall],
    after: Sequence[RecordedCall],
    declared: frozenset[str],
    beside: frozenset[str],
) -> Iterator[Leak]:
    """`beside`: labels of which a number right after the bare name counts, too, or an accuracy after a seed."""
    shown = _sections(before)
    labels = shown | _sections(after) | set(_SCRIPT_LABEL.findall(segment.prompt)) | declared
    if len(labels) > _MOST_LABELS:
        raise TranscriptError(f"{len(labels):,} tasks are named in one segment; at most {_MOST_LABELS} can be audited")
    lines = _sentences(segment.prompt)
    hidden = declared | {label for label in labels if _declared_hidden(label, lines)}
    visible = shown - hidden
    for call in before:
        text = call.recorded or ""
        found: dict[str, list[str]] = {}
        for label in _SECTION.findall(text):
            if label in hidden:
                found.setdefault(label, []).append(f"### {label}")
        for excerpt, known in _values(text, labels):
            if known is not None and known not in visible:
                found.setdefault(known, []).append(excerpt)
        for label in beside:
            for number in re.finditer(rf"{re.escape(label)}{_BETWEEN}\d[\w.\"':= ]{{0,40}}", text):
                found.setdefault(label, []).append(number[0])
        for label, excerpts in found.items():
            yield Leak(index, call.step, label, ", ".join(dict.fromkeys(excerpts)))


def _named(index: int, segment: Segment, final: RecordedCall | None, declared: frozenset[str]) -> Iterator[Leak]:
    """Where a task that the record itself declares hidden is named before the submission, by whomever but the model.

    A model may write any name into its code, and reads it again in each view of the file.
    """
    own: set[str] = set()
    for label in sorted(label for label in declared if label in segment.prompt):
        yield Leak(index, 0, label, _line_with(label, segment.prompt))
    for entry in segment.entries:
        if entry is final:
            return
        if isinstance(entry, RecordedCall):
            written = f"{dict(entry.arguments)}{entry.said}{entry.thinking}"
            own |= {label for label in declared if label in written}
            text = entry.recorded or ""
        elif entry.role == "assistant":
            written = entry.text + entry.thinking
            own |= {label for label in declared if label in written}
            continue
        else:
            text = entry.text
        for label in sorted(label for label in declared if label in text and label not in own):
            yield Leak(index, entry.step, label, _line_with(label, text))


def _line_with(label: str, text: str) -> str:
    return next((line for line in text.split("\n") if label in line), label)


def _sections(calls: Sequence[RecordedCall]) -> set[str]:
    return {label for call in calls for label in _SECTION.findall(call.recorded or "")}


def _values(text: str, labels: set[str]) -> Iterator[tuple[str, str | None]]:
    """Every value of the leaderboard and every `key=value`: how it is written, and the label that it belongs to."""
    entries = [entry for line in _LEADERBOARD.findall(text) for entry in _ENTRY.finditer(line)]
    endings = _endings(labels)
    keys = {entry["key"]: _label_of(entry["key"], endings) for entry in entries}
    metrics = {
        key[: -len(label) - 1].rstrip("_-")
        for key, label in keys.items()
        if label and _plain(key).endswith(_plain(label))
    }
    for entry in entries:
        yield entry[0], keys[entry["key"]] or _label_beside(entry["key"], metrics)
    distinctive = _endings({label for label in labels if re.search(r"[^A-Za-z]", label)})
    for entry in _FIELD.finditer(text):
        yield entry[0], _label_of(entry["key"], distinctive)


def _endings(labels: set[str]) -> dict[str, str]:
    """How a metric's name ends → the label; where labels differ by punctuation only, the longest."""
    return {_plain(label): label for label in sorted(labels, key=len)}


def _label_of(key: str, endings: Mapping[str, str]) -> str | None:
    """The task that a metric's name ends in, such as `csi100` in `ic_csi100` or `ic_csi100_std`; the longest counts."""
    name = f"_{_plain(key[-_LONG_NAME:])}"
    found = [name[position + 1 :] for position, char in enumerate(name) if char == "_"]
    found += [ending.removesuffix("_std") for ending in found if ending.endswith("_std")]
    return max((endings[ending] for ending in found if ending in endings), key=len, default=None)


def _label_beside(key: str, metrics: set[str]) -> str | None:
    """A task that nothing else names: beside `ic_csi100`, the entry `ic_other` belongs to task `other`."""
    key = key[:_LONG_NAME]
    ends = (end for end in range(len(key) - 1, 0, -1) if key[end] == "_" and key[:end] in metrics)
    end = next(ends, None)
    label = "" if end is None else key[end + 1 :].removesuffix("_std")
    return label if label and label not in _SUMMARY else None


def _plain(name: str) -> str:
    """Labels lose their punctuation where they become part of a metric's name."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower())


def _sentences(prompt: str) -> list[tuple[str, bool]]:
    """The lines of a task without punctuation, and whether each says "hidden"; no code."""
    lines = (line for line in prompt.split("\n") if len(line) <= _LONG_LINE and not _NUMBERED.match(line))
    return [(re.sub(r"[^0-9a-z]+", "", line.lower()), bool(_DECLARES.search(line))) for line in lines]


def _declared_hidden(label: str, lines: Sequence[tuple[str, bool]]) -> bool:
    """Whether a line of the task that says "hidden" names more of this label's parts than any other line does."""
    parts = [part for part in re.split(r"[^0-9A-Za-z]+", label.lower()) if part]
    best = {True: 0, False: 0}
    for squashed, says in lines:
        best[says] = max(best[says], sum(part in squashed for part in parts))
    return best[True] > best[False]
