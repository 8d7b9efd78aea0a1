"""The executor of the processes that harm_server.py forks: equal trainings and measurements happen once for all."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.protocol import CandidateFailure
from benchmark.files import write_atomically
from sandbox.isolate import Level


class Here:
    """An executor that runs each call at once, where it is, unless an equal one has run."""

    remote = False
    level: Level = "auto"
    trained: Path

    def __init__(self, slots: int, **ignored: Any) -> None:
        self.slots = slots

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def close(self) -> None:
        """Has nothing to close."""

    def submit(self, call: Any, *, on_report: Any = None, on_ask: Any = None, **ignored: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(self._once(call, SimpleNamespace(report=on_report, ask=on_ask)))
        return future

    def _once(self, call: Any, parent: Any) -> Any:
        """What the call returns, with its reports. Only results of our own networks are kept, and no failures."""
        from agent.evaluation.calls import EvaluationCall, SignalCall
        from agent.report.network import MeasureCall

        if not isinstance(call, EvaluationCall | SignalCall | MeasureCall):
            return call(parent)
        if call.task is not None and (call.task.network or call.task.trainer):
            return call(parent)
        # All levels but "none" are the server's isolation: "auto", and what a search found and resumes with.
        isolated = self.level != "none"
        words = (type(call).__name__, isolated, call.region, repr(call.task), call.seed, call.data_root)
        settings: tuple[Any, ...] = ()
        if isinstance(call, EvaluationCall):
            settings = (call.environment, call.precision)
        elif isinstance(call, MeasureCall):
            settings = (call.arch, call.dataset)
        kept = self.trained / hashlib.sha256(repr((words, settings)).encode()).hexdigest()
        if kept.exists():
            reports, result = pickle.loads(kept.read_bytes())
            for metrics in reports:
                parent.report(metrics)
            return result
        reports = []

        def report(metrics: Any) -> None:
            reports.append(metrics)
            parent.report(metrics)

        result = call(SimpleNamespace(report=report, ask=parent.ask))
        if not isinstance(result, CandidateFailure) and not (isinstance(result, dict) and "error" in result):
            with contextlib.suppress(OSError):  # a test's full disk
                write_atomically(kept, pickle.dumps((reports, result)), durable=False)
        return result
