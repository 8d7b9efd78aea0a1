"""`agent task`: writes a task file, and looks whether one can be used."""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import DataRootOption, JsonFlag, WorkersOption, app
from agent.cli.output import print_json, print_next
from agent.errors import UsageError

task_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""
Write or check a task file, for networks and data of your own.

\b
Examples:
  agent task new my.toml
  agent task check my.toml
  agent search --profile my.toml
""",
)
app.add_typer(task_app, name="task")


@task_app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The task file to write.")],
) -> None:
    """Write a commented task file.

    \b
    Examples:
      agent task new my.toml
    """
    from benchmark.task_schema import default_name
    from prompts import environment

    if file.suffix != ".toml":
        raise UsageError(f"{file}: a task file's name ends in .toml")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(environment().get_template("task_file.toml.j2").render(name=default_name(file.stem)))
    except FileExistsError:
        raise UsageError(f"{file}: it exists already; name another, or remove it") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from None
    print(file)
    print_next(f"edit network and data in {file}, then agent task check {shlex.quote(str(file))}")


@task_app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The task file.")],
    noise: Annotated[
        int, typer.Option(metavar="K", min=0, max=50, help="Also train the baseline K times, shortly: its SD.")
    ] = 0,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1, help="Longest training by a trainer of your own.")
    ] = 600,
    workers: WorkersOption = None,
    data_root: DataRootOption = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data sets.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Try each task of the file: load, build, train a few steps.

    \b
    Examples:
      agent task check my.toml
      agent task check my.toml --noise 5
      agent task check my.toml --json

    Also initialises the networks in isolation and evaluates them. Runs the code that the file names. The exit code is 2
    when something in the file cannot be used.
    """
    from agent.analysis.planning import duration
    from agent.cli.live_table import make_progress
    from agent.config import load_config
    from agent.profiles import resolve_profile
    from agent.studies.task_check import check_task_file
    from benchmark.tasks import is_task_file

    if not is_task_file(str(file)):
        raise UsageError(f"{file}: a task file's name ends in .toml")
    settings = {"profile": str(file), "workers": workers, "data_root": data_root, "download": download or None}
    config = load_config(settings)
    with closing(make_progress()) as progress:
        progress.message(f"loading the data and building the networks of {file}")
        profile, _ = resolve_profile(config.profile, data_root=config.data_root, download=config.download)
        checked = check_task_file(profile, config, progress, noise=noise, seconds=seconds)
    if as_json:
        print_json(checked.as_json())
        return
    print(f"{file}: task file {profile.name}, baseline {profile.baseline_name}")
    print("\n".join(checked.in_words()))
    if table := checked.noise_table():
        print("\n".join(["for the task file, at its end:", *table]))
    if profile.caveat:
        print(profile.caveat)
    per_test = duration(sum(checked.seconds(task) for task in profile.visible))
    print(f"a test takes about {per_test} of training, and a search with --budget 3 four times that")
    named = shlex.quote(str(file))
    print_next(f"agent search --profile {named} --budget 3, or agent plan --profile {named}")
