"""`report.html`: what a run found, on one page that needs neither script nor network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import AgentError, Interrupted
from agent.runs.directory import RunDirectory

if TYPE_CHECKING:
    from agent.report.findings import Findings
    from agent.runs.lines import Fields
    from agent.runs.record import RunRecord
    from benchmark.executor import Executor
    from sandbox.isolate import Isolation

__all__ = ["measured_network", "report_at_end", "try_to_write_report", "write_report"]


def write_report(
    run: RunDirectory,
    *,
    isolation: Isolation | None = None,
    executor: Executor | None = None,
    measure: bool = True,
    output: Path | None = None,
) -> Path:
    """Write the page of a run, whatever state the run is in, and return its path.

    With `measure`, the networks are initialised once more to show what the function does to them, unless that was
    done before; in `isolation`, or in one that is started for it. The processes of `executor` measure, or this one.
    Raises RunDamaged without a run.json, OSError when the page cannot be written.
    """
    from agent.report.findings import find
    from agent.report.flags import raise_flags
    from agent.report.network_view import network_views
    from agent.report.page import render
    from agent.runs.record import read_run
    from benchmark.files import write_atomically

    record = read_run(run)
    findings = find(record)
    network, note = measured_network(record, findings, isolation=isolation, executor=executor, measure=measure)
    views = network_views(network, f"test {findings.subject}") if network is not None else []
    page = render(record, findings, raise_flags(record, findings, network), views, note)
    path = output or run.path / "report.html"
    write_atomically(path, page.encode(errors="replace"))
    return path


@contextmanager
def report_at_end(
    run: RunDirectory, isolation: Isolation, say: Callable[[str], None], *, executor: Executor
) -> Iterator[None]:
    """Write report.html when the block ends, in whatever way but by a signal; see `try_to_write_report`."""
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        try_to_write_report(run, say, measure=False)
        raise
    try_to_write_report(run, say, isolation=isolation, executor=executor)


def try_to_write_report(
    run: RunDirectory,
    say: Callable[[str], None],
    *,
    isolation: Isolation | None = None,
    executor: Executor | None = None,
    measure: bool = True,
) -> None:
    """`write_report`, and one line to a person when it does not work: a run is never lost to its page."""
    try:
        write_report(run, isolation=isolation, executor=executor, measure=measure)
    except Interrupted:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the page, the results stand
        say(f"report.html could not be written ({error}); agent report {run.path.name} tries again")


def measured_network(
    record: RunRecord,
    findings: Findings,
    *,
    isolation: Isolation | None = None,
    executor: Executor | None = None,
    measure: bool = True,
) -> tuple[Fields | None, str]:
    """The measurements of the networks, stored or made now; or None and the reason."""
    from agent.report.network import measure_network, read_network, save_network

    test = findings.subject
    if test is None or test not in record.regions:
        return None, "There is no tested code whose effect could be shown."
    if (kept := read_network(record, test)) is not None:
        return kept, ""
    if not measure:
        return None, "The networks were not measured."
    return _measure_now(record, isolation, lambda place: measure_network(record, test, place, executor), save_network)


def _measure_now(
    record: RunRecord,
    isolation: Isolation | None,
    measure: Callable[[Isolation], Fields],
    save: Callable[[RunDirectory, Fields], None],
) -> tuple[Fields | None, str]:
    from benchmark.executor import InfrastructureError
    from sandbox.isolate import Isolation, IsolationCrashed, IsolationUnavailable

    with ExitStack() as stack:
        try:
            measured = measure(isolation if isolation is not None else stack.enter_context(Isolation()))
            save(record.directory, measured)
        except InfrastructureError as error:  # its last line says what; those before it are a traceback
            return None, f"The networks could not be measured: {str(error).strip().splitlines()[-1]}"
        except (IsolationUnavailable, IsolationCrashed, AgentError, OSError) as error:
            return None, f"The networks could not be measured: {error}"
    return measured, ""
