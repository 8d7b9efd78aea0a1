"""What a search itself costs at 1,000 evaluations and more: `python docs/scale_simulated.py [--evaluations N ...]`.

Loop, toolbox, evaluator, git, log, store and page are the real ones. A training is made up and takes no time, so all
that is measured is the search's own work. 64 GPUs are simulated: as many tests are in flight as fill them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from agent.clock import Clock
from agent.config import SearchConfig
from agent.engine.loop import run_loop
from agent.engine.summary import RunSummary
from agent.engine.toolbox import Toolbox
from agent.evaluation.calls import EvaluationCall
from agent.evaluation.check import CheckReport
from agent.evaluation.evaluator import Evaluator, Settings
from agent.progress import Progress
from agent.proposers.scripted import ScriptedProposer
from agent.protocol import ToolCall
from agent.report import write_report
from agent.runs.directory import RunDirectory
from agent.runs.events import Launch
from agent.runs.log import EventLog, read_events
from benchmark.results import EpochMetrics, EvaluationResult, StepZero, region_sha256
from benchmark.store import LayeredStore, ResultStore
from benchmark.tasks import Profile, Task, get_profile
from sandbox.isolate import Isolation
from sandbox.region import scaffold
from sandbox.workspace import Workspace

GPUS, SEEDS, EPOCHS = 64, 8, 200


class MadeUp:
    """Trains nothing and answers at once with a curve of 200 epochs."""

    slots, remote = GPUS, False

    def submit(self, call: EvaluationCall, **ignored: Any) -> Future[Any]:
        best = 50 + int(call.key[:4], 16) / 65536
        epochs = tuple(
            EpochMetrics(epoch=n, train_loss=1, train_acc=best, test_loss=1, test_acc=best, lr=0.1, seconds=n)
            for n in range(1, EPOCHS + 1)
        )
        future: Future[Any] = Future()
        future.set_result(
            EvaluationResult(
                key=call.key,
                task=call.task.name,
                seed=call.seed,
                region_sha256=region_sha256(call.region),
                status="ok",
                best_test_acc=best,
                last_test_acc=best,
                test_loss=1,
                curve=epochs,
                step_zero=StepZero(accuracy=1, loss=4.6, p_value=0.5, suspicious=False),
                isolation_level="none",
                isolation_seconds=0,
                training_seconds=1,
                device="made up",
                precision="bf16",
                threads=1,
                versions={},
            )
        )
        return future

    def close(self) -> None:
        """Nothing runs."""


class Unchecked(Evaluator):
    """Accepts every region."""

    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        """Accept it."""
        return CheckReport(True)


def page_seconds(folder: Path, config: SearchConfig, profile: Profile) -> tuple[float, float]:
    """Seconds to write the page of a run, without measuring networks, and its megabytes."""
    run = RunDirectory(folder)
    RunSummary(run, config, profile, "simulated", Clock()).save(status="interrupted")
    started = time.monotonic()
    path = write_report(run, measure=False, output=folder / "page.html")
    return time.monotonic() - started, path.stat().st_size / 1e6


def simulate(evaluations: int) -> dict[str, float]:
    """Seconds of a search with so many evaluations, for each part, and memory."""
    tests = max(1, round(evaluations / SEEDS / 2))
    seeds = tuple(range(SEEDS if tests <= 1000 else math.ceil(evaluations / 2 / 1000)))
    tests = min(tests, 1000)
    profile = dataclasses.replace(get_profile("paper"))
    region = scaffold().region
    calls = [
        call
        for number in range(tests)
        for call in (ToolCall("rewrite", {"content": f"{region.rstrip()}\n# {number}\n"}), ToolCall("test"))
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = LayeredStore(ResultStore(folder / "results"))
        with EventLog(folder / "events.jsonl") as log, Workspace.create(folder / "workspace") as workspace:
            evaluator = Unchecked(
                Settings({"device": "made up"}), MadeUp(), cast(Isolation, None), Clock(), Progress(), log.append
            )
            tools = Toolbox(
                workspace=workspace,
                evaluator=evaluator,
                log=log,
                profile=profile,
                seeds=seeds,
                budget=tests,
                baseline={},
                results=results,
            )
            started, cpu = time.monotonic(), time.process_time()
            config = SearchConfig(budget=tests, seeds=min(50, len(seeds)), profile="paper")
            log.append(
                Launch(
                    config=config.model_dump(mode="json"),
                    profile="paper",
                    environment={"device": "made up"},
                    isolation_level="none",
                    scaffold=scaffold().text,
                )
            )
            tools.begin_baseline(seeds)
            parallel = max(1, GPUS // (2 * len(seeds)))
            run_loop(ScriptedProposer(calls), tools, Clock(), log, max_steps=10**6, parallel=parallel)
            wall, cpu = time.monotonic() - started, time.process_time() - cpu
            git = workspace.seconds
            events, megabytes = len(log.records), (folder / "events.jsonl").stat().st_size / 1e6
            log_seconds = log.seconds
        started = time.monotonic()
        read_events(folder / "events.jsonl")
        read = time.monotonic() - started
        page, page_size = page_seconds(folder, config, profile)
    count = (tests + 1) * 2 * len(seeds)
    return {
        "evaluations": count,
        "tests": tests,
        "events": events,
        "seconds": round(wall, 1),
        "ms_each": round(1000 * wall / count, 2),
        "cpu_ms_each": round(1000 * cpu / count, 2),
        "log_s": round(log_seconds, 1),
        "store_s": round(results.seconds, 1),
        "git_s": round(git, 1),
        "log_mb": round(megabytes, 1),
        "read_log_s": round(read, 2),
        "page_s": round(page, 1),
        "page_mb": round(page_size, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Print a line of JSON for each number of evaluations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1000, 2000, 4000])
    for evaluations in parser.parse_args().evaluations:
        print(json.dumps(simulate(evaluations)), flush=True)


if __name__ == "__main__":
    main()
