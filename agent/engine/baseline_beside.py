"""The baseline, trained beside the first tests."""

from __future__ import annotations

from collections.abc import Sequence

from agent.evaluation.batches import Candidate, Evaluations, accuracies_of, require_baseline
from agent.profiles import baseline_region
from agent.protocol import Accuracies
from agent.runs.log import EventLog
from benchmark.store import LayeredStore
from benchmark.tasks import Profile


class BaselineBeside:
    """Begins to train the baseline, and keeps later events out of the log until `finish`.

    So what does not depend on the baseline is trained beside it, and the log has the order of a search that waits.
    """

    def __init__(
        self, evaluator: Evaluations, log: EventLog, profile: Profile, seeds: Sequence[int], results: LayeredStore
    ) -> None:
        self._evaluator, self._log = evaluator, log
        candidate = Candidate("baseline", baseline_region(profile))
        self._batch = evaluator.begin([candidate], profile.visible, seeds, results=results, first=True)
        log.hold()

    def finish(self) -> Accuracies:
        """Wait, and record the baseline before all that was begun since. Raises InfrastructureError if it failed."""
        later = self._log.release()
        outcomes = self._evaluator.finish(self._batch)
        require_baseline(outcomes, "baseline")
        for event in later:
            self._log.append(event)
        return accuracies_of(outcomes, "baseline")
