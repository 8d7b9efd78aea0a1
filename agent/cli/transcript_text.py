"""Finds the conversation for `agent replay` and `agent audit`, and prints their results."""

from __future__ import annotations

import difflib
import json
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from agent.cli.output import print_next
from agent.runs.directory import RunDirectory
from agent.safe_text import spelt
from agent.transcripts.audit import Audit, audit
from agent.transcripts.loading import load_transcript
from agent.transcripts.replay import CallVerdict, Replay, replay
from benchmark.task import ACCURACY, Metric

EXIT_OK, EXIT_FOUND = 0, 3


class Executed(Protocol):
    """The results of training a conversation's strategies."""

    def as_json(self) -> dict[str, Any]:
        """The field `executed` of the last object."""
        ...

    def in_words(self) -> list[str]:
        """The same as lines for people."""
        ...


_DIFF_LINES = 24
_EXCERPT = 240


def find_conversation(source: str, runs: Path) -> Path:
    """The path of a conversation: an existing or .json file, else a run. Raises UsageError."""
    if Path(source).exists() or source.endswith((".json", ".jsonl")):
        return Path(source)
    return RunDirectory.find(source, runs).path


def run_replay(path: Path, *, as_json: bool, out: TextIO) -> int:
    """Replay the conversation at `path` and print every call. Returns the exit code: 3 when any call differs.

    Raises TranscriptError (a usage error, exit code 2) before anything is printed when it can't be read.
    """
    return print_replay(replay(load_transcript(path)), path, as_json=as_json, out=out)


def print_replay(run: Replay, path: Path, *, as_json: bool, out: TextIO, executed: Executed | None = None) -> int:
    """Print a replay while it is made. At the end print the results of `executed`."""
    reasons: Counter[str] = Counter()
    for verdict in run:
        if as_json:
            _json_line(verdict.as_event(), out)
        else:
            _print_call(verdict, out, run.metrics)
        out.flush()
        if verdict.verdict == "unverifiable":
            reasons[verdict.reason or ""] += 1
    if as_json:
        _json_line({**run.as_event(), **({} if executed is None else {"executed": executed.as_json()})}, out)
    else:
        if executed is not None:
            out.write("\n" + spelt("\n".join(executed.in_words())) + "\n")
        print_summary(run, reasons, path, out)
    return EXIT_FOUND if run.counts["differs"] else EXIT_OK


def run_audit(path: Path, *, as_json: bool, out: TextIO) -> int:
    """Audit the conversation at `path` and print the leaks. Returns the exit code: 3 when there are any.

    Raises TranscriptError (a usage error, exit code 2) before anything is printed when it can't be read.
    """
    found = audit(load_transcript(path))
    if as_json:
        _json_line(found.as_object(), out)
    else:
        _print_audit(found, path, out)
    return EXIT_FOUND if found.leaks else EXIT_OK


def _json_line(event: object, out: TextIO) -> None:
    # ASCII, because a recorded text may contain a lone surrogate, which no terminal or pipe can encode.
    out.write(json.dumps(event, separators=(",", ":")) + "\n")


def _print_call(verdict: CallVerdict, out: TextIO, metrics: Mapping[str, Metric]) -> None:
    reason = f"  ({verdict.reason})" if verdict.reason else ""
    where = f"segment {verdict.segment}, step {verdict.call.step}"
    out.write(spelt(f"{where:<22} {verdict.call.tool:<8} {verdict.verdict}{reason}\n"))
    if verdict.executed is not None:
        out.write(spelt(_trained(verdict.executed, metrics)))
    if verdict.verdict != "differs":
        return
    recorded, replayed = (verdict.call.recorded or "").split("\n"), verdict.replayed.split("\n")
    if verdict.call.recorded_cut:
        replayed = replayed[: len(recorded)]
    lines = list(difflib.unified_diff(recorded, replayed, "recorded", "replayed", lineterm="", n=1))
    for line in lines[:_DIFF_LINES]:
        out.write(spelt(f"    {line:.{_EXCERPT}}\n"))
    if len(lines) > _DIFF_LINES:
        out.write(f"    … {len(lines) - _DIFF_LINES} more lines; --json has all\n")


def _trained(executed: Mapping[str, Any], metrics: Mapping[str, Metric]) -> str:
    """The results of training again for one call, one line per task."""
    lines = [f"    {executed['strategy']}"] if "strategy" in executed else []
    if executed.get("refused"):
        lines.append(f"    not trained: {executed['refused']}")
    roles = executed.get("roles") or {"": executed.get("accuracies") or {}}
    for role, tasks in roles.items():
        for task, seeds in tasks.items():
            metric = metrics.get(task, ACCURACY)
            values = ", ".join(f"seed {seed} {_score(value, metric)}" for seed, value in seeds.items())
            lines.append(f"    {f'{role} ' if role else ''}{task}: {values}")
    return "".join(f"{line}\n" for line in lines)


def _score(value: Any, metric: Metric) -> str:
    if isinstance(value, Mapping):
        return f"recorded {_score(value['recorded'], metric)}, now {_score(value['executed'], metric)}"
    return "failed" if value is None else metric.shown(value)


def print_summary(run: Replay, reasons: Counter[str], path: Path, out: TextIO) -> None:
    """Print how many calls agree, and why others cannot be verified."""
    counts = run.counts
    if not any(counts.values()):
        out.write(f"no call in {_count(run.transcript.messages, 'message')}\n")
    agree = counts["exact"] + counts["prefix"]
    verifiable = agree + counts["differs"]
    share = f" ({100 * agree / verifiable:.1f} %)" if verifiable else ""
    out.write(
        f"\n{agree} of {verifiable} verifiable calls agree{share}: {counts['exact']} exact, "
        f"{counts['prefix']} as far as they were kept; {counts['differs']} differ.\n"
    )
    if reasons:
        out.write(f"{counts['unverifiable']} cannot be verified:\n")
        for reason, count in reasons.most_common():
            out.write(spelt(f"  {count:>4}  {reason}\n"))
    print_next(f"agent audit {shlex.quote(str(path))}")


def _print_audit(found: Audit, path: Path, out: TextIO) -> None:
    for leak in found.leaks:
        text = leak.text if len(leak.text) <= _EXCERPT else leak.text[:_EXCERPT] + " …"
        out.write(spelt(f"segment {leak.segment}, step {leak.step}: hidden task {leak.label} shows: {text}\n"))
    if not found.calls:
        out.write(f"no call in {_count(found.messages, 'message')}\n")
    looked = f"{_count(found.results, 'test result')} and {_count(found.calls, 'call')} before submission"
    texts = len({(leak.segment, leak.step) for leak in found.leaks})
    out.write(
        f"LEAK: {_count(texts, 'reply')} of {looked} showed something hidden.\n"
        if found.leaks
        else f"No leak: nothing hidden in {looked}.\n"
    )
    print_next(f"agent replay {shlex.quote(str(path))}")


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
