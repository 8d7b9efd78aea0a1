"""The verdict on a run in one sentence, with a headline and a tone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from agent.runs.record import RunRecord
from agent.runs.status import RunStatus
from benchmark.comparison import places_for, signed
from benchmark.statistics import Comparison, Overall, combine

Tone = Literal["good", "bad", "open"]
Comparisons = Mapping[str, Comparison | None]


def overall_of(comparisons: Comparisons) -> Overall | None:
    """The mean over the tasks; None without tasks."""
    return combine(comparisons) if comparisons else None


def with_mean(comparisons: Comparisons) -> list[tuple[str, Comparison | Overall | None]]:
    """The rows of a table of gains: each task, and `mean` where there are several and none failed."""
    overall = overall_of(comparisons)
    several = overall is not None and len(comparisons) > 1 and not overall.failed
    return [*comparisons.items(), *([("mean", overall)] if several else [])]


_WORDS = {
    "improvement": "beats the baseline by {gain} {unit} ({interval})",
    "worse": "is worse than the baseline by {gain} {unit} ({interval})",
    "not resolved": "shows no difference to the baseline ({gain} {unit}, {interval})",
}


def judge(
    record: RunRecord, visible: Comparisons, hidden: Comparisons, failed: Sequence[bool]
) -> tuple[Tone, str, str]:
    """(tone, two or three words, one sentence). `failed`: for each test that was begun, whether it failed."""
    if record.submitted is None:
        return "open", *_without_submission(record, failed)
    seen, unseen = overall_of(visible), overall_of(hidden)
    sentence = f"On the visible tasks test {record.submitted} {_judged(seen)}; on the hidden task it {_judged(unseen)}."
    state = record.state
    if not record.hides and not state.status.resumable:
        return *_on_visible(seen), f"{_visible_part(sentence).rstrip('.')}; there is no hidden task."
    if unseen is None and state.status.resumable:
        return "open", "Running" if state.running else "Unfinished", f"{_visible_part(sentence)} {state.words}"
    if unseen is None and state.status.waiting:
        return "open", "Waits for a review", f"{_visible_part(sentence)} The hidden task waits for `agent submit`."
    if unseen is None:
        return "open", "Hidden task not run", sentence
    if (seen is not None and seen.failed) or unseen.failed:
        return "bad", "Failed", sentence
    return (
        {
            "improvement": ("good", "Carries over", sentence),
            "worse": ("bad", "Does not carry over", sentence),
            "not resolved": ("open", "No difference shown", sentence),
        }[unseen.resolved]  # type: ignore[return-value]
        if seen is None or seen.resolved != "worse"
        else ("bad", "Worse than the baseline", sentence)
    )


def _on_visible(seen: Overall | None) -> tuple[Tone, str]:
    """Tone and headline where no hidden task can confirm anything."""
    if seen is None or seen.failed:
        return "bad", "Failed"
    return {
        "improvement": ("good", "Better on the visible tasks"),
        "worse": ("bad", "Worse than the baseline"),
        "not resolved": ("open", "No difference shown"),
    }[seen.resolved]  # type: ignore[return-value]


def _visible_part(sentence: str) -> str:
    return f"{sentence.partition('; on the hidden task')[0]}."


def _judged(overall: Overall | None) -> str:
    if overall is None:
        return "was not run"
    if overall.failed:
        return f"failed ({', '.join(overall.failed)})"
    if math.isnan(overall.gain):
        return "shows no difference to the baseline (metrics differ, and the noise of one is not known)"
    if overall.known_ci is None:
        gain = f"{signed(overall.gain, 2)} {overall.metric.points}"
        return f"shows no difference to the baseline ({gain}, and no noise is known)"
    places = places_for(overall)
    low, high = (signed(bound, places) for bound in overall.ci)
    gain = signed(overall.gain, places) if overall.resolved == "not resolved" else f"{abs(overall.gain):.{places}f}"
    interval = f"{overall.confidence * 100:g} % interval {low} … {high}"
    return _WORDS[overall.resolved].format(gain=gain, interval=interval, unit=overall.metric.points)


def _without_submission(record: RunRecord, failed: Sequence[bool]) -> tuple[str, str]:
    count = len(failed)
    done = "no test was run" if not count else f"{count} test{'s were' if count > 1 else ' was'} begun"
    status = RunStatus.of(record.summary)
    unseen = ", and the hidden task was not run" if record.hides else ""
    if record.state.running:
        return "Running", f"{record.state.words} So far {done}, and nothing is submitted."
    if status.resumable:
        return (
            "Unfinished",
            f"{record.state.words.rstrip('.')}: {done}, nothing was submitted{unseen}.",
        )
    if count and all(failed):
        return (
            "Nothing to submit",
            f"Every test failed ({count}), so nothing was submitted{unseen.replace(',', '')}.",
        )
    return "Nothing submitted", f"Nothing was submitted ({done}){unseen}."
