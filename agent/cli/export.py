"""`agent export`: writes a run in a format for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import RunArgument, RunsOption, app
from agent.cli.output import print_next, write_data
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.runs.directory import RunDirectory

_FILES = {"patch": "submission.patch", "module": "initialize_weights.py"}
_TRACKERS = ("tensorboard", "mlflow")
FORMATS = ("atif", "mls-bench", *_FILES, *_TRACKERS)


@app.command()
def export(
    run: RunArgument = "latest",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="atif, mls-bench (conversations), patch, module (what was submitted), tensorboard, mlflow (curves).",
        ),
    ] = "atif",
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", help="A file instead of stdout; for tensorboard a folder."),
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Write a run in a format for other programs.

    \b
    Examples:
      agent export latest --format atif -o trajectory.json
      agent export latest --format patch | git am
      agent export latest --format tensorboard --out tb
      agent export latest --format mlflow --out mlflow.db
    """
    from agent.runs.directory import RunDirectory
    from benchmark.suggestions import suggestion

    if form not in FORMATS:
        raise UsageError(f"--format {form}: unknown{suggestion(form, list(FORMATS))}")
    directory = RunDirectory.find(run, runs)
    if form in _TRACKERS:
        _track(directory, form, output)
        return
    text = render(directory, form)
    if output is None:
        write_data(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from None
    print(f"wrote {output}", file=sys.stderr)


def _track(run: RunDirectory, form: str, output: Path | None) -> None:
    from agent.report.tracker_export import write_mlflow, write_tensorboard

    if output is None:
        raise UsageError(f"--format {form} writes files: --out {'FILE.db' if form == 'mlflow' else 'FOLDER'}")
    try:
        count = write_mlflow(run, output) if form == "mlflow" else write_tensorboard(run, output)
    except OSError as error:
        raise UsageError(f"--out {output}: {error.strerror}") from None
    print(f"wrote {count} learning curves to {output}", file=sys.stderr)
    look = f"mlflow ui --backend-store-uri sqlite:///{output}" if form == "mlflow" else f"tensorboard --logdir {output}"
    print_next(look)


def render(run: RunDirectory, form: str) -> str:
    """The run in one of `FORMATS`, as text. Raises UsageError."""
    from agent.runs.files import read_text
    from agent.transcripts import load_transcript, write_mls_bench
    from agent.transcripts.trajectory import as_text, trajectory

    if form in _FILES:
        try:
            return read_text(run.path, _FILES[form])
        except FileNotFoundError:
            raise UsageError(f"{run.path}: nothing was submitted, so there is no {_FILES[form]}") from None
    return as_text(write_mls_bench(load_transcript(run.path))) if form == "mls-bench" else trajectory(run)
