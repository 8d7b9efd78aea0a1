"""Computes a run's comparisons with intervals, test by test.

All numbers are computed from the event log with the same statistics as the search, and compared with run.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.analysis.against_baseline import compare_tasks, mean_scores, scores_in_words
from agent.analysis.known_noise import in_words
from agent.analysis.look_scores import look_scores
from agent.protocol import Accuracies
from agent.report.verdicts import Comparisons, Tone, judge, overall_of
from agent.runs.log_lines import Fields
from agent.runs.record import RunRecord
from agent.runs.recorded_noise import Noise, noise_from, of_log
from agent.runs.untrusted import mapping, number, text, whole
from benchmark.comparison import as_text
from benchmark.statistics import Comparison, Overall, StatisticsError
from benchmark.task import Metric


@dataclass(frozen=True)
class TestRow:
    """One test of the search. `overall` is None when nothing can be compared."""

    __test__ = False

    number: int
    label: str
    """The proposer's name for it, untrusted; "" when it gave none."""
    parameters: Fields
    scores: Mapping[Metric, float] | None
    """Metric → the mean over its tasks of the means over seeds; None when any is missing."""
    overall: Overall | None
    failures: tuple[str, ...]
    submitted: bool
    finished: bool

    @property
    def mean(self) -> float | None:
        """The mean score over the visible tasks; None when any is missing, or where the tasks' metrics differ."""
        return only(self.scores)

    @property
    def words(self) -> str:
        """The mean score with its unit, one for each metric; `failed` when any is missing."""
        return scores_in_words(self.scores)


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
    """The numbers of a run. `subject` is the submitted test, else the best finished one, else one in training."""

    visible: Comparisons
    hidden: Comparisons
    tests: tuple[TestRow, ...]
    looks: tuple[LookRow, ...]
    subject: int | None
    baseline_scores: Mapping[Metric, float] | None
    """Metric → mean visible score of the baseline; None when any is missing."""
    verdict: str
    tone: Tone
    headline: str
    problems: tuple[str, ...]
    noise: tuple[str, ...] = ()
    """What the intervals rely on, one sentence for each kind of noise; () in a run of an older version."""

    @property
    def baseline(self) -> float | None:
        """Mean visible score of the baseline; None when any is missing, or where the tasks' metrics differ."""
        return only(self.baseline_scores)

    @property
    def baseline_words(self) -> str:
        """The baseline's mean visible score with its unit, one for each metric."""
        return scores_in_words(self.baseline_scores)

    @property
    def metrics(self) -> frozenset[Metric]:
        """The metrics of the tasks that have scores."""
        compared = (one.metric for one in (*self.visible.values(), *self.hidden.values()) if one is not None)
        return frozenset((*compared, *(self.baseline_scores or {})))


def recorded_noise(record: RunRecord) -> Noise | None:
    """The seed noise in the run's log; None in a run of an older version. Raises StatisticsError."""
    noise = noise_from(record.launch.get("noise"))
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
    beside = _Tests(record, baseline, ran, _look_scores(record), noise)
    tests = tuple(beside.row(n) for n in dict.fromkeys(numbers))
    # A test in training has some of its seeds only, so its mean is compared with no other.
    subject = record.submitted or _best([test for test in tests if test.finished]) or _best(tests)
    visible = beside.comparisons(subject) if subject else {}
    before, after = record.accuracies("hidden/baseline"), record.accuracies("hidden/submission")
    hidden = _compare(record, before, after, noise=noise)
    for kind, comparisons in (("visible", visible), ("hidden", hidden)):
        problems += _contradictions(record, kind, comparisons)
    tone, headline, verdict = judge(record, visible, hidden, [bool(test.failures) for test in tests])
    return Findings(
        visible=visible,
        hidden=hidden,
        tests=tests,
        looks=tuple(_looks(record)),
        subject=subject,
        baseline_scores=mean_scores(record.metrics, baseline),
        verdict=verdict,
        tone=tone,
        headline=headline,
        problems=tuple(problems),
        noise=tuple(in_words({name: one for name, one in (noise or {}).items() if name in {**visible, **hidden}})),
    )


def only(scores: Mapping[Metric, float] | None) -> float | None:
    """The score if there is one metric, else None: unlike metrics have no mean."""
    return next(iter(scores.values())) if scores is not None and len(scores) == 1 else None


@dataclass(frozen=True)
class _Tests:
    """The tests of a run beside each other."""

    record: RunRecord
    baseline: Accuracies
    ran: Mapping[int, Accuracies]
    """Number → accuracies, of the tests that succeeded when they were run."""
    scores: Mapping[int, float]
    """Number → score from screening."""
    noise: Noise | None

    def comparisons(self, test: int) -> Comparisons:
        """Compare a test as the search does: as the best of all tests that ran, with the noise of the other tests."""
        others = [accuracies for number, accuracies in self.ran.items() if number != test]
        candidate, look = self.record.accuracies(f"test/{test}"), self.scores.get(test)
        return _compare(self.record, self.baseline, candidate, max(1, len(self.ran)), others, look, self.noise)

    def row(self, test: int) -> TestRow:
        """All that the table says of a test."""
        record = self.record
        accuracies = record.accuracies(f"test/{test}")
        content = _proposal_before(record, test)
        failures = tuple(
            dict.fromkeys(
                f"{evaluation.task}, seed {evaluation.seed}: {evaluation.failure or 'no finite score'}"
                for evaluation in record.evaluations
                if evaluation.role == f"test/{test}" and evaluation.accuracy is None
            )
        )
        return TestRow(
            number=test,
            label=text(content.get("strategy")),
            parameters=mapping(content.get("parameters")),
            scores=mean_scores(record.metrics, accuracies),
            overall=overall_of(self.comparisons(test)),
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


def _compare(
    record: RunRecord,
    baseline: Accuracies,
    candidate: Accuracies,
    tried: int = 1,
    others: Sequence[Accuracies] = (),
    look: float | None = None,
    noise: Noise | None = None,
) -> Comparisons:
    """As `compare_tasks`; a task without a baseline or with impossible numbers counts as failed."""
    known = {task: seeds for task, seeds in candidate.items() if task in baseline}
    comparisons: dict[str, Comparison | None] = dict.fromkeys(candidate)
    for task, seeds in known.items():
        try:
            known_others = [other for other in others if task in other]
            comparisons |= compare_tasks(
                record.profile,
                {task: baseline[task]},
                {task: seeds},
                n_candidates=tried,
                others=known_others,
                look=look,
                noise=noise,
                metrics=record.metrics,
            )
        except StatisticsError:
            comparisons[task] = None
    return comparisons


def _best(tests: Sequence[TestRow]) -> int | None:
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
            said, is_now = (f"{as_text(value, computed)} {computed.metric.points}" for value in (gain, computed.gain))
            found.append(f"run.json says {said} on {task}, the log gives {is_now}.")
        elif _rounded(computed.known_ci) != _rounded(mapping(recorded).get("ci")):
            older = True
    if older:
        found.append(f"The {kind} intervals in run.json come from other statistics; these are today's.")
    return found


def _rounded(ci: object) -> list[float | None]:
    """The bounds of an interval; None for one that run.json does not have as a number."""
    bounds = [number(bound) for bound in ci] if isinstance(ci, list | tuple) else []
    return [bound if bound is None else round(bound, 6) for bound in bounds]
