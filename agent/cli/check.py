"""`agent check`: checks a function by rules, isolation and determinism. It trains nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.app import JsonFlag, app
from agent.cli.output import print_json, print_next
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.evaluation.check import CheckReport
    from benchmark.task import Task


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A region text (the function, with helpers) or a whole scaffold.")],
    arch: Annotated[
        list[str] | None, typer.Option(help="Architecture to try, repeatable (default: the visible ones of pocket).")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help="Try the networks of this profile or task file.")
    ] = None,
    isolation: Annotated[str, typer.Option(help="auto, bubblewrap or landlock.")] = "auto",
    allow_unsandboxed: Annotated[bool, typer.Option("--allow-unsandboxed", help="Run it without isolation.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check a function: rules, isolation, determinism. Trains nothing.

    \b
    Examples:
      agent check my_init.py
      agent check my_init.py --arch mobilenetv2 --json
      agent check my_init.py --profile my.toml
    """
    level = "none" if allow_unsandboxed else isolation
    raise typer.Exit(run_check(file, arch or [], level, as_json=as_json, profile=profile))


def run_check(
    file: Path, archs: Sequence[str], isolation_level: str, *, as_json: bool, profile: str | None = None
) -> int:
    """Check a file on the given architectures. Exit code: 0 accepted, 3 rejected. Raises UsageError."""
    if profile is not None and archs:
        raise UsageError("--profile names networks already, so it contradicts --arch")
    for arch in archs:
        require_architecture(arch)

    from benchmark.data import NUM_CLASSES
    from benchmark.tasks import PROFILES

    chosen = {task.arch: NUM_CLASSES[task.dataset] for task in PROFILES["pocket"].visible}
    if archs:
        chosen = {arch: chosen.get(arch, 100) for arch in archs}
    tasks: Sequence[Task] = ()
    if profile is not None:
        from agent.profiles import resolve_profile

        tasks = resolve_profile(profile)[0].visible
    report = _check_file(file, chosen, isolation_level, tasks)
    if as_json:
        print_json(report.as_json())
    else:
        _print(file, report, profile)
    return 0 if report.accepted else 3


def require_architecture(name: str) -> None:
    """Raise UsageError with the known names for an unknown architecture, before torch is imported."""
    from benchmark.tasks import PROFILES

    known = sorted({task.arch for profile in PROFILES.values() for task in profile.tasks})
    if name not in known:
        raise UsageError(f"--arch {name}: unknown architecture; known: {', '.join(known)}")


def _check_file(file: Path, archs: dict[str, int], isolation_level: str, tasks: Sequence[Task] = ()) -> CheckReport:
    from agent.evaluation.batches import jobs_for
    from agent.evaluation.check import CheckReport, check
    from sandbox.isolate import Isolation, IsolationUnavailable
    from sandbox.region import RegionError, region_of

    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        return CheckReport(False, "syntax", f"not text: byte {error.start} is no UTF-8")
    try:
        region = region_of(text)
    except RegionError as error:
        return CheckReport(False, "outside_region", str(error))
    try:
        with Isolation(level=isolation_level) as isolation:  # type: ignore[arg-type]
            return check(region, jobs_for(tasks, region, 0) if tasks else archs, isolation, describe=True)
    except IsolationUnavailable as error:
        raise UsageError(str(error)) from None


def _print(file: Path, report: CheckReport, profile: str | None) -> None:
    if not report.accepted:
        print(f"{file}: rejected ({report.kind}): {report.message}")
        print_next("correct it and run agent check again")
        return
    for arch, made in report.archs.items():
        print(f"{arch}: {len(made['parameters'])} parameters in {made['seconds'] * 1000:.0f} ms")
        for parameter in _notable(made["parameters"]):
            print(f"  {parameter}")
        if not made["seeded"]:
            print("  note: another seed gives the same tensors (a deterministic strategy)")
    print(f"{file}: accepted (isolation: {report.isolation_level})")
    also = f" --profile {shlex.quote(profile)}" if profile is not None else ""
    print_next(f"agent search --proposer {shlex.quote(f'scripted:{file}')}{also}")


def _notable(parameters: Sequence[dict[str, Any]]) -> list[str]:
    """The first and the last weights, to show their scales. `--json` has all of them."""
    weights = [parameter for parameter in parameters if len(parameter["shape"]) > 1]
    from benchmark.task import with_sign

    shown = weights if len(weights) <= 6 else [*weights[:3], *weights[-3:]]
    return [
        f"{p['name']} {tuple(p['shape'])}: mean {with_sign(p['mean'], '.4f')}, std {p['std']:.4f} ({p['init']})"
        for p in shown
    ]
