"""`report.html`: the results of a run on one page without scripts or network access."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import AgentError, Interrupted, UsageError, in_one_sentence
from agent.profiles import allowed_profile, names_programs
from agent.runs.directory import RunDirectory

if TYPE_CHECKING:
    from agent.report.findings import Findings
    from agent.runs.log_lines import Fields
    from agent.runs.record import RunRecord
    from benchmark.executors import Executor
    from benchmark.tasks import Profile
    from sandbox.isolate import Isolation

__all__ = ["measured_network", "report_at_end", "try_to_write_report", "write_report"]


def write_report(
    run: RunDirectory,
    *,
    isolation: Isolation | None = None,
    executor: Executor | None = None,
    measure: bool = True,
    output: Path | None = None,
    data_root: Path | None = None,
    held: bool | None = None,
    given: Profile | None = None,
) -> Path:
    """Write the page of a run in any state, and return its path.

    With `measure`, the networks are initialised again to show what the function does to them, unless that was measured
    before. This uses `isolation`, or starts one, and data from `data_root` or the usual places. The processes of
    `executor` measure, or this one. The code of a user's tasks runs only with their profile `given`. `held`: whether a
    process works on the run, if the caller knows. Raises RunDamaged without a run.json, OSError when the page cannot be
    written.
    """
    from agent.report.findings import find
    from agent.report.page import render
    from agent.runs.record import read_run
    from benchmark.files import write_atomically

    record = read_run(run)
    record = record if held is None else replace(record, held=held)
    findings = find(record)
    network, note = measured_network(
        record, findings, isolation=isolation, executor=executor, measure=measure, data_root=data_root, given=given
    )
    page = render(record, findings, network, note)
    path = output or run.path / "report.html"
    write_atomically(path, page.encode(errors="replace"))
    return path


@contextmanager
def report_at_end(
    run: RunDirectory,
    isolation: Isolation,
    say: Callable[[str], None],
    *,
    executor: Executor | None,
    page: bool = True,
    data_root: Path | None = None,
    given: Profile | None = None,
) -> Iterator[None]:
    """Write report.html when the block ends, also after an error, but not after a signal; see `try_to_write_report`.

    The seconds that a finished run's page took go into run.json as `page_seconds`. Without `page` nothing is written.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        if page:
            try_to_write_report(run, say, measure=False)
        raise
    if page:
        started = time.monotonic()
        if try_to_write_report(run, say, isolation=isolation, executor=executor, data_root=data_root, given=given):
            run.write_summary({**run.read_summary(), "page_seconds": round(time.monotonic() - started, 3)})


def try_to_write_report(
    run: RunDirectory,
    say: Callable[[str], None],
    *,
    isolation: Isolation | None = None,
    executor: Executor | None = None,
    measure: bool = True,
    data_root: Path | None = None,
    given: Profile | None = None,
) -> bool:
    """Call `write_report` and say when it begins and ends. If it fails, only say so: the page must not end the run.

    Returns whether the page was written.
    """
    started = time.monotonic()
    say("writing the page, report.html")
    try:
        # The caller holds the run and is at its end.
        page = write_report(
            run, isolation=isolation, executor=executor, measure=measure, data_root=data_root, held=False, given=given
        )
    except Interrupted:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of the page does not affect the results
        say(f"report.html could not be written ({in_one_sentence(error)}); agent report {run.path.name} tries again")
        return False
    say(f"page {page} written in {time.monotonic() - started:.1f} s")
    return True


def measured_network(
    record: RunRecord,
    findings: Findings,
    *,
    isolation: Isolation | None = None,
    executor: Executor | None = None,
    measure: bool = True,
    data_root: Path | None = None,
    given: Profile | None = None,
) -> tuple[Fields | None, str]:
    """The measurements of the networks, read from the run or made now; or None and the reason."""
    from agent.report.network import measure_network, read_network, save_network

    test = findings.subject
    if test is None or test not in record.regions:
        return None, "There is no tested code whose effect could be shown."
    if (kept := read_network(record, test)) is not None:
        return kept, ""
    try:
        profile = record.own_profile()
    except ValueError:  # of another version: the names in run.json have to do
        profile = None
    if profile is not None and any(task.trainer is not None for task in profile.tasks):
        return None, "The networks were not measured: only the task's own trainer knows their input."
    if not measure:
        return None, "The networks were not measured."
    if profile is not None and names_programs(profile):
        try:
            profile = allowed_profile(record.directory.path, profile, given)
        except UsageError as error:
            return None, f"The networks were not measured: {error}"
    measure_in = partial(measure_network, record, test, executor=executor, data_root=data_root, profile=profile)
    return _measure_now(record, isolation, measure_in, save_network)


def _measure_now(
    record: RunRecord,
    isolation: Isolation | None,
    measure: Callable[[Isolation], Fields],
    save: Callable[[RunDirectory, Fields], None],
) -> tuple[Fields | None, str]:
    from benchmark.executors import InfrastructureError
    from sandbox.isolate import Isolation, IsolationCrashed, IsolationUnavailable

    with ExitStack() as stack:
        try:
            measured = measure(isolation if isolation is not None else stack.enter_context(Isolation()))
            save(record.directory, measured)
        except Interrupted:  # an AgentError too, which would be taken for a fault of the measurement
            raise
        except InfrastructureError as error:  # its last line says what; those before it are a traceback
            return None, f"The networks could not be measured: {str(error).strip().splitlines()[-1]}"
        except (IsolationUnavailable, IsolationCrashed, AgentError, OSError) as error:
            return None, f"The networks could not be measured: {error}"
    return measured, ""
