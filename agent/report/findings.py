"""Computes a run's comparisons with intervals, test by test, and the verdict in one sentence.

All numbers are computed from the event log with the same statistics as the search, and compared with run.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.analysis import comparison
from agent.analysis.look_scores import look_scores
from agent.analysis.noise import Noise, in_words, noise_from, of_log
from agent.protocol import Accuracies
from agent.runs.log_lines import Fields
from agent.runs.record import RunRecord, mapping, number, text, whole
from agent.runs.status import RunStatus
from benchmark.comparison import places_for, signed
from benchmark.statistics import Comparison, Overall, StatisticsError, combine

Tone = Literal["good", "bad", "open"]
Comparisons = Mapping[str, Comparison | None]


@dataclass(frozen=True)
class TestRow:
    """One test of the search. `overall` is None when nothing can be compared."""

    __test__ = False

    number: int
    label: str
    """The proposer's name for it, untrusted; "" when it gave none."""
    parameters: Fields
    accuracies: Mapping[str, Mapping[int, float | None]]
    overall: Overall | None
    failures: tuple[str, ...]
    submitted: bool
    finished: bool

    @property
    def mean(self) -> float | None:
        """Mean visible accuracy over tasks of the means over seeds, percent; None when any is missing."""
        return mean_accuracy(self.accuracies)


@dataclass(frozen=True)
class LookRow:
    """A short training that the search used to choose what to test. It does not count as a test.

    `place` lies between the numbers of the tests before and after it. `loss` is measured on held-out pictures, in nats;
    None for a rejected candidate. `rejected` is the reason. `cost` is in tests.
    """

    place: float
    kept: bool
    loss: float | None
    rejected: str
    cost: float


@dataclass(frozen=True)
class Findings:
    """The numbers of a run. `subject` is the submitted test, or the best test so far if none was submitted."""

    visible: Comparisons
    hidden: Comparisons
    tests: tuple[TestRow, ...]
    looks: tuple[LookRow, ...]
    subject: int | None
    baseline: float | None
    """Mean visible accuracy of the baseline, percent."""
    verdict: str
    tone: Tone
    headline: str
    problems: tuple[str, ...]
    noise: tuple[str, ...] = ()
    """What the intervals rely on, one sentence for each kind of noise; () in a run of an older version."""


def recorded_noise(record: RunRecord) -> Noise | None:
    """The seed noise in the run's log; None in a run of an older version. Raises StatisticsError."""
    noise = noise_from(next(record.of_kind("launch"), {}).get("noise"))
    return None if noise is None else of_log(noise, record.own_profile())


def find(record: RunRecord) -> Findings:
    """Compare each test and the submission with the baseline."""
    problems: list[str] = []
    noise: Noise | None = None
    try:
        noise = recorded_noise(record)
    except ValueError as error:
        problems.append(f"{error}; the intervals are those of the profile's priors.")
    baseline = record.accuracies("baseline")
    numbers = [whole(event.get("number")) or 0 for event in record.of_kind("test_started")]
    ok = [whole(event.get("number")) or 0 for event in record.of_kind("test_finished") if event.get("status") == "ok"]
    ran = {number: record.accuracies(f"test/{number}") for number in dict.fromkeys(ok)}
    scores = _look_scores(record)
    tests = tuple(_test_row(record, n, baseline, ran, scores, noise) for n in dict.fromkeys(numbers))
    subject = record.submitted or _best(tests)
    visible = _compare_test(record, subject, baseline, ran, scores, noise) if subject else {}
    before, after = record.accuracies("hidden/baseline"), record.accuracies("hidden/submission")
    hidden = _compare(record.profile, before, after, noise=noise)
    for kind, comparisons in (("visible", visible), ("hidden", hidden)):
        problems += _contradictions(record, kind, comparisons)
    tone, headline, verdict = _verdict(record, visible, hidden, tests)
    return Findings(
        visible=visible,
        hidden=hidden,
        tests=tests,
        looks=tuple(_looks(record)),
        subject=subject,
        baseline=mean_accuracy(baseline),
        verdict=verdict,
        tone=tone,
        headline=headline,
        problems=tuple(problems),
        noise=tuple(in_words({name: one for name, one in (noise or {}).items() if name in {**visible, **hidden}})),
    )


def mean_accuracy(accuracies: Mapping[str, Mapping[int, float | None]]) -> float | None:
    """The mean over tasks of the means over seeds, percent; None when there is no task or any value is missing."""
    means = []
    for seeds in accuracies.values():
        known = [value for value in seeds.values() if value is not None]
        if not known or len(known) < len(seeds):
            return None
        means.append(sum(known) / len(known))
    return sum(means) / len(means) if means else None


def overall_of(comparisons: Comparisons) -> Overall | None:
    """The mean over the tasks; None without tasks."""
    return combine(comparisons) if comparisons else None


def _test_row(
    record: RunRecord,
    test: int,
    baseline: Accuracies,
    ran: Mapping[int, Accuracies],
    scores: Mapping[int, float],
    noise: Noise | None,
) -> TestRow:
    accuracies = record.accuracies(f"test/{test}")
    content = _proposal_before(record, test)
    failures = tuple(
        dict.fromkeys(
            f"{evaluation.task}, seed {evaluation.seed}: {evaluation.failure or 'no finite accuracy'}"
            for evaluation in record.evaluations
            if evaluation.role == f"test/{test}" and evaluation.accuracy is None
        )
    )
    return TestRow(
        number=test,
        label=text(content.get("strategy")),
        parameters=mapping(content.get("parameters")),
        accuracies=accuracies,
        overall=overall_of(_compare_test(record, test, baseline, ran, scores, noise)),
        failures=failures,
        submitted=record.submitted == test,
        finished=any(event.get("number") == test for event in record.of_kind("test_finished")),
    )


def _proposal_before(record: RunRecord, test: int) -> Fields:
    latest: Fields = {}
    for event in record.events:
        if event.get("kind") == "proposal" and "strategy" in mapping(event.get("content")):
            latest = mapping(event.get("content"))
        if event.get("kind") == "test_started" and event.get("number") == test:
            return latest
    return {}


def _looks(record: RunRecord) -> list[LookRow]:
    """The looks in order. Those between the same two tests are spread evenly."""
    between: dict[int, list[Fields]] = {}
    before = 0
    for event in record.events:
        if event.get("kind") == "test_started":
            before = whole(event.get("number")) or before
        elif event.get("kind") == "screened":
            between.setdefault(before, []).append(event)
    return [
        LookRow(
            place=test + (index + 1) / (len(events) + 1),
            kept=event.get("kept") is True,
            loss=number(event.get("loss")),
            rejected=text(event.get("rejected")),
            cost=number(event.get("cost")) or 0.0,
        )
        for test, events in between.items()
        for index, event in enumerate(events)
    ]


def _look_scores(record: RunRecord) -> dict[int, float]:
    """Test number → its candidate's score from screening."""
    looks = (
        (text(event.get("region_sha256")), whole(event.get("rung")) or 0, number(event.get("loss")))
        for event in record.of_kind("screened")
    )
    scores = look_scores(looks)
    tested = ((whole(e.get("number")) or 0, text(e.get("region_sha256"))) for e in record.of_kind("test_started"))
    return {test: scores[digest] for test, digest in tested if digest in scores}


def _compare_test(
    record: RunRecord,
    test: int,
    baseline: Accuracies,
    ran: Mapping[int, Accuracies],
    scores: Mapping[int, float],
    noise: Noise | None,
) -> Comparisons:
    """Compare a test as the search does: as the best of all tests that ran, with the noise of the other tests."""
    others = [accuracies for number, accuracies in ran.items() if number != test]
    candidate, look = record.accuracies(f"test/{test}"), scores.get(test)
    return _compare(record.profile, baseline, candidate, max(1, len(ran)), others, look, noise)


def _compare(
    profile: str,
    baseline: Accuracies,
    candidate: Accuracies,
    tried: int = 1,
    others: Sequence[Accuracies] = (),
    look: float | None = None,
    noise: Noise | None = None,
) -> Comparisons:
    """As `comparison.compare_tasks`; a task without a baseline or with impossible numbers counts as failed."""
    known = {task: seeds for task, seeds in candidate.items() if task in baseline}
    comparisons: dict[str, Comparison | None] = dict.fromkeys(candidate)
    for task, seeds in known.items():
        try:
            known_others = [other for other in others if task in other]
            comparisons |= comparison.compare_tasks(
                profile,
                {task: baseline[task]},
                {task: seeds},
                n_candidates=tried,
                others=known_others,
                look=look,
                noise=noise,
            )
        except StatisticsError:
            comparisons[task] = None
    return comparisons


def _best(tests: tuple[TestRow, ...]) -> int | None:
    """Number of the test that the search would choose."""
    scored = [(test.overall.score, -test.number) for test in tests if test.overall and not test.overall.failed]
    return -max(scored)[1] if scored else None


def _contradictions(record: RunRecord, kind: str, comparisons: Comparisons) -> list[str]:
    """Find differences between run.json and the log: one of them was edited, or the statistics have changed since."""
    found = []
    older = False
    for task, recorded in mapping(record.summary.get(kind)).items():
        computed, gain = comparisons.get(task), number(mapping(recorded).get("gain"))
        if gain is None or computed is None:
            continue
        if abs(gain - computed.gain) > 1e-6:
            found.append(f"run.json says {signed(gain, 2)} points on {task}, the log gives {signed(computed.gain, 2)}.")
        elif _rounded(computed.known_ci) != _rounded(mapping(recorded).get("ci")):
            older = True
    if older:
        found.append(f"The {kind} intervals in run.json come from other statistics; these are today's.")
    return found


def _rounded(ci: Any) -> list[float]:
    return [round(bound, 6) for bound in ci or []]


_WORDS = {
    "improvement": "beats the baseline by {gain} {unit} ({interval})",
    "worse": "is worse than the baseline by {gain} {unit} ({interval})",
    "not resolved": "shows no difference to the baseline ({gain} {unit}, {interval})",
}


def _verdict(
    record: RunRecord, visible: Comparisons, hidden: Comparisons, tests: tuple[TestRow, ...]
) -> tuple[Tone, str, str]:
    """(tone, two or three words, one sentence)."""
    if record.submitted is None:
        return "open", *_without_submission(record, tests)
    seen, unseen = overall_of(visible), overall_of(hidden)
    sentence = f"On the visible tasks test {record.submitted} {_judged(seen)}; on the hidden task it {_judged(unseen)}."
    state = record.state
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


def _visible_part(sentence: str) -> str:
    return f"{sentence.partition('; on the hidden task')[0]}."


def _judged(overall: Overall | None) -> str:
    if overall is None:
        return "was not run"
    if overall.failed:
        return f"failed ({', '.join(overall.failed)})"
    if overall.known_ci is None:
        gain = f"{signed(overall.gain, 2)} {overall.metric.points}"
        return f"shows no difference to the baseline ({gain}, and no noise is known)"
    places = places_for(overall)
    low, high = (signed(bound, places) for bound in overall.ci)
    gain = signed(overall.gain, places) if overall.resolved == "not resolved" else f"{abs(overall.gain):.{places}f}"
    interval = f"{overall.confidence * 100:g} % interval {low} … {high}"
    return _WORDS[overall.resolved].format(gain=gain, interval=interval, unit=overall.metric.points)


def _without_submission(record: RunRecord, tests: tuple[TestRow, ...]) -> tuple[str, str]:
    count = len(tests)
    done = "no test was run" if not count else f"{count} test{'s were' if count > 1 else ' was'} begun"
    status = RunStatus.of(record.summary)
    if record.state.running:
        return "Running", f"{record.state.words} So far {done}, and nothing is submitted."
    if status.resumable:
        return (
            "Unfinished",
            f"{record.state.words.rstrip('.')}: {done}, nothing was submitted, and the hidden task was not run.",
        )
    if count and all(test.failures for test in tests):
        return (
            "Nothing to submit",
            f"Every test failed ({count}), so nothing was submitted and the hidden task was not run.",
        )
    return "Nothing submitted", f"Nothing was submitted ({done}), and the hidden task was not run."
