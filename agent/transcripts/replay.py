"""Re-apply every recorded call with the project's own editing machine and compare what it answers.

Nothing is trained: the reply to a test is compared as far as its budget line. After a difference, or a call of which
the record kept only a part, the workspace is taken from the next snapshot or view, so that one fault is counted once.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.transcripts.loading import load_transcript
from agent.transcripts.model import RecordedCall, Segment, Transcript
from agent.transcripts.resync import as_seen, content_in_part, learn_from_snapshots, restore_content
from agent.transcripts.test_count import first_line, is_budget_line, open_book, submission
from agent.transcripts.verdict import VERDICTS, Judgement, Verdict, compare
from agent.transcripts.views import Unseen, View, initial_files, parse_listings, parse_view
from benchmark.results import region_sha256
from benchmark.task import Metric
from sandbox.editing import Dialect, Editor, Reply, unknown_tool, unparseable_arguments
from sandbox.lines import EditableFile
from sandbox.rules import advise

CUT_CALL = "the call's own text was cut and no snapshot gives it"
NO_WORKSPACE = "the workspace can't be known: the prompt was cut before it lists this file"
TRAINING = "not checked: needs training (--execute); the budget line agrees"
TRAINING_NO_LINE = "not checked: needs training (--execute); this dialect prints no budget line"
FOREIGN = "a tool of another harness; a replay follows edit, undo, test and submit of this benchmark"
OTHER_RUN = "the segment opens with the end of another run, whose beginning is not recorded"
INTERLEAVED = "two runs are interleaved in this segment, and the record does not say which call belongs to which"
LOOKS = "not checked: needs training; a replay does not repeat looks"
CHECKED = "not checked: needs a run of the candidate, which tells whether the test was refused or known already"


@dataclass(frozen=True)
class CallVerdict:
    """What became of one call. `recorded` is the reply as far as it was kept, `replayed` is ours."""

    segment: int
    call: RecordedCall
    verdict: Verdict
    reason: str | None
    replayed: str
    regions: tuple[str, ...] = ()
    """The text of every editable range after the call, as far as it is known."""
    executed: Mapping[str, Any] | None = None
    """What training again gave, where it was asked for."""

    def as_event(self) -> dict[str, object]:
        """The JSON object of the contract; segments count from 0, a reply that was not kept is ""."""
        return {
            "event": "call",
            "segment": self.segment,
            "step": self.call.step,
            "tool": self.call.tool,
            "verdict": self.verdict,
            "reason": self.reason,
            "recorded": self.call.recorded or "",
            "replayed": self.replayed,
            **({} if self.executed is None else {"executed": self.executed}),
        }


class Machine(Protocol):
    """Applies the calls of one segment."""

    def judge(self, call: RecordedCall) -> Judgement:
        """Apply one call and compare the replies."""
        ...

    def regions(self) -> tuple[str, ...]:
        """The text of every editable range as it is now."""
        ...


@dataclass
class Replay:
    """The verdicts of a conversation, made while one iterates; `counts` says how many there were of each."""

    transcript: Transcript
    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    machine_for: Callable[[Segment, Transcript], Machine] | None = None
    """Who applies the calls of a segment; by default the editing machine alone, which trains nothing."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Task → what the scores in `executed` are; a task that is not in it has an accuracy."""

    def __iter__(self) -> Iterator[CallVerdict]:
        self.counts = dict.fromkeys(VERDICTS, 0)
        for index, segment in enumerate(self.transcript.segments):
            machine = (self.machine_for or SegmentReplay)(segment, self.transcript)
            for call in segment.calls:
                result = machine.judge(call)
                self.counts[result.verdict] += 1
                yield CallVerdict(
                    index, call, result.verdict, result.reason, result.replayed, machine.regions(), result.executed
                )

    def as_event(self) -> dict[str, object]:
        """The last JSON object of the contract."""
        return {"event": "done", **{str(verdict): count for verdict, count in self.counts.items()}}


def replay(source: Path | str | Transcript) -> Replay:
    """Replay a conversation, from its file or already loaded. Raises TranscriptError when it can't be read."""
    return Replay(source if isinstance(source, Transcript) else load_transcript(source))


class SegmentReplay:
    """One segment's workspace and counters. Trains nothing."""

    def __init__(self, segment: Segment, transcript: Transcript) -> None:
        self._snapshots = transcript.snapshots
        self._dialect = transcript.dialect
        steps = [call.step for call in segment.calls] if transcript.source == "mls-bench" else []
        self._of_other_run = next((n for n, step in enumerate(steps) if step < steps[0]), 0)
        self._steps = iter(_out_of_order(steps[self._of_other_run :]))
        self._interleaved = False
        self._unseen = Unseen()
        files = initial_files(segment, self._unseen)
        ours = transcript.dialect is Dialect.OURS
        self._editor = Editor.of(*files, dialect=transcript.dialect, advise=advise if ours else None)
        self._foreign = transcript.of_other_tools
        self._coding_agent = transcript.of_coding_agent
        self._no_files = not files
        self._all_files_listed = bool(parse_listings(segment.prompt)) and not segment.prompt_cut
        self._undone: Editor | None = None
        """The workspace before a call that has no recorded reply, until a later reply tells if it was carried out."""
        self._book = open_book(transcript, segment)
        self._prints_budget = any(
            is_budget_line(first_line(call.recorded)) for call in segment.calls if call.recorded is not None
        )

    def regions(self) -> tuple[str, ...]:
        """The text of every editable range as it is now."""
        files = self._editor.files.values()
        return tuple(file.range_text(index) for file in files for index in range(len(file.ranges)))

    def judge(self, call: RecordedCall) -> Judgement:
        """Apply one call and compare the replies."""
        if self._of_other_run:
            self._of_other_run -= 1
            return Judgement("unverifiable", OTHER_RUN, "")
        self._interleaved = next(self._steps, False) or self._interleaved
        result = self._judge_followed(call)
        if result.verdict == "differs" and self._interleaved:
            return Judgement("unverifiable", INTERLEAVED, result.replayed)
        return result

    def _judge_followed(self, call: RecordedCall) -> Judgement:
        for file in self._editor.files.values():
            file.lines = self._unseen.settle(file.lines)
        result = self._judge_in_doubt(call)
        if result.verdict in ("exact", "prefix") and call.region_sha256 is not None:
            regions = [file.range_text() for file in self._editor.files.values() if file.ranges]
            ours = region_sha256(regions[0] if regions else "")
            if ours != call.region_sha256:
                reason = f"the region's hash: recorded {call.region_sha256[:12]}…, ours {ours[:12]}…"
                return Judgement("differs", reason, result.replayed)
        return result

    def _judge_in_doubt(self, call: RecordedCall) -> Judgement:
        """Judge a call; after one without a recorded reply, which may or may not have been carried out, try both."""
        if call.tool not in ("edit", "undo"):
            return self._judge(call)
        undone, self._undone = self._undone, None
        if call.recorded is None:
            self._undone = undone or copy.deepcopy(self._editor)
            return self._judge(call)
        result = self._judge(call)
        if result.verdict != "differs" or undone is None:
            return result
        done, self._editor = self._editor, undone
        other = self._judge(call)
        if other.verdict != "differs":
            return other
        self._editor = done
        return result

    def _judge(self, call: RecordedCall) -> Judgement:
        if call.recorded is not None and self._foreign and self._is_foreign(call.tool, call.recorded):
            return Judgement("unverifiable", FOREIGN, "")
        if call.parse_error is not None:
            detail = call.parse_error.removeprefix("Failed to parse tool arguments: ")
            return compare(call, unparseable_arguments(detail).text, self._unseen)
        if call.tool == "edit":
            return self._edit(call)
        if call.tool in ("test", "submit"):
            return self._test_or_submit(call)
        if call.tool == "screen" and self._dialect is Dialect.OURS:
            return Judgement("unverifiable", LOOKS, "")
        reply: Reply
        if call.tool == "undo":
            reply = self._editor.undo(call.arguments.get("n", 1))
        elif call.tool == "view" and self._dialect is Dialect.OURS:
            reply = self._editor.view()
        elif call.tool == "rewrite" and self._dialect is Dialect.OURS:
            reply = self._editor.rewrite(call.arguments.get("content"))
        else:
            reply = unknown_tool(call.tool)
        return compare(call, reply.text, self._unseen)

    def _is_foreign(self, tool: str, recorded: str) -> bool:
        """Whether another harness answered: its tools may have our names, but not our words or our files."""
        if self._coding_agent:
            return True
        if tool in ("test", "submit"):
            return not recorded.startswith(("[", "ERROR", "\n##"))
        return not recorded.startswith("ERROR: Unknown tool") and (tool not in ("edit", "undo") or self._no_files)

    def _test_or_submit(self, call: RecordedCall) -> Judgement:
        recorded = call.recorded
        if self._dialect is Dialect.OURS and recorded is not None and _needs_the_candidate(recorded):
            return Judgement("unverifiable", CHECKED, "")
        if recorded is not None:
            self._book.settle(recorded)
        answer = self._book.answer(call)
        if recorded is None and not answer.whole:
            self._book.unanswered += 1
        if answer.whole or recorded is None:
            result = compare(call, answer.text, self._unseen)
        elif first_line(recorded) == answer.text or (call.recorded_cut and answer.text.startswith(recorded)):
            result = Judgement("unverifiable", TRAINING, answer.text)
        elif not self._prints_a_line(call) and not recorded.startswith(("ERROR", "[")):
            result = Judgement("unverifiable", TRAINING_NO_LINE, answer.text)
        else:
            reason = f"the first line: recorded {first_line(recorded)!r:.120}, ours {answer.text!r:.120}"
            result = Judgement("differs", reason, answer.text)
        if result.verdict == "differs":
            self._book.correct(recorded or "")
        return result

    def _prints_a_line(self, call: RecordedCall) -> bool:
        return self._prints_budget and not (self._book.by_test and submission(call) is not None)

    def _edit(self, call: RecordedCall) -> Judgement:
        view = parse_view(call.recorded, cut=call.recorded_cut) if call.recorded is not None else None
        name = call.arguments.get("filename")
        file = self._editor.files.get(name) if isinstance(name, str) else None
        if file is None and view is not None and view.name == name and not self._all_files_listed:
            self._adopt(call, view, None)
            return Judgement("unverifiable", NO_WORKSPACE, "")
        before = list(file.lines) if file is not None else []
        arguments, partly = dict(call.arguments), False
        if file is not None and call.content_cut:
            restored = restore_content(call, file, self._snapshots)
            partly = restored is None
            arguments["content"] = content_in_part(call, file, view, self._unseen) if partly else restored
        reply = self._editor.edit(arguments)
        if file is not None:
            learn_from_snapshots(call, file, self._snapshots, self._unseen)
        result = compare(call, self._unseen.settle_text(reply.text), self._unseen)
        if partly and reply.ok and call.recorded is not None and result.verdict != "differs":
            result = Judgement("unverifiable", CUT_CALL, result.replayed)
        if view is not None and (partly or result.verdict == "differs"):
            if reply.ok and _refused(call):
                self._editor.undo(1)
            elif not reply.ok and not _refused(call) and file is not None:
                self._editor.remember(file.name, before, file.ranges)
            self._adopt(call, view, self._editor.files.get(view.name))
        return result

    def _adopt(self, call: RecordedCall, view: View, file: EditableFile | None) -> None:
        seen = as_seen(call, view, file, self._snapshots, self._unseen)
        if seen is not None:
            self._editor.resynchronise(seen)


def _out_of_order(steps: list[int]) -> list[bool]:
    """For each call whether it repeats the first step or goes back: a second run has begun in the same segment.

    Where the second call repeats the step of the first, it is not known either which reply the first one got.
    """
    highest = list(itertools.accumulate(steps, max))
    both = steps[:1] == steps[1:2]
    return [both if n == 0 else step == steps[0] or step < highest[n] for n, step in enumerate(steps)]


def _refused(call: RecordedCall) -> bool:
    return call.recorded is not None and call.recorded.startswith("ERROR")


def _needs_the_candidate(recorded: str) -> bool:
    known = ("ERROR: Test refused", "ERROR: Test #", "This region is the one of test #", "ERROR: [confirm]")
    return recorded.startswith(known) or "\n[confirm] " in recorded
