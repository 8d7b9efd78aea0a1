"""The Typer application, and the arguments and options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agent.cli.courtesy import require_allowed


class _InOrderOfADay(TyperGroup):
    """Lists groups of commands, which Typer puts last, behind the commands that act and before those that look."""

    def __init__(self, *, commands: dict[str, Any] | None = None, **settings: Any) -> None:
        commands = dict(commands or {})
        groups = [name for name, command in commands.items() if isinstance(command, TyperGroup)]
        names = [name for name in commands if name not in groups]
        names[_ACTING:_ACTING] = groups
        super().__init__(commands={name: commands[name] for name in names}, **settings)


_ACTING = 4
"""How many commands are listed before the groups."""

app = typer.Typer(
    name="agent",
    cls=_InOrderOfADay,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""
\b
Examples:
  agent search --budget 3          search with the built-in proposer, three tests
  agent check my_init.py           is this function acceptable? no training
  agent show latest                what the newest run found
  agent doctor                     what this machine can do

Searches for a better `initialize_weights` for convolutional networks. It edits one function, tests it by training,
submits the best test to a hidden task, and reports gains with their uncertainty.
""",
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout, for programs.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of the runs.", envvar="INITSEARCH_RUNS")]
RunArgument = Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="paper, pocket, pocket_small, mini, smoke, FILE.toml (agent task new writes one), or auto: paper with a "
        "GPU and data, else a pocket one."
    ),
]
TaskFileOption = Annotated[
    str | None, typer.Option("--profile", metavar="FILE.toml", help="The run's task file again: its code runs here.")
]
SeedsOption = Annotated[int | None, typer.Option(help="Training runs per task and candidate (default 1; paper: 3).")]
SeedOption = Annotated[int | None, typer.Option(help="The first seed (default 0).")]
WorkersOption = Annotated[
    str | None, typer.Option(help="Evaluations side by side: processes, or lanes on a GPU (default auto).")
]
ParallelOption = Annotated[
    int | None, typer.Option(help="Tests in flight (default 1). Those are chosen without each other's results.")
]
ExecutorOption = Annotated[
    str | None, typer.Option(help="What trains: local, ray, slurm, or auto (default local, this machine).")
]
RayAddressOption = Annotated[
    str | None, typer.Option(help="With --executor ray: auto, local or HOST:PORT (default auto).")
]
SlurmOption = Annotated[
    str | None,
    typer.Option(help="With --executor slurm: job options, such as partition=gpu,gpus_per_node=1,time=120."),
]
DataRootOption = Annotated[Path | None, typer.Option(help="Folder of the full data sets.")]
UnsandboxedOption = Annotated[
    bool, typer.Option("--allow-unsandboxed", help="Run the run's code without isolation, if you would run it anyway.")
]
SendKeyOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST", help="Yes: send conversation and key to this host, which a run or a file found here names."
    ),
]
TrackOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Send the numbers while they come: wandb, trackio, mlflow, tensorboard; several with commas.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of a search, by its name in a TOML file; repeatable.",
    ),
]


def settings_given(ctx: typer.Context) -> dict[str, Any]:
    """The parameters of this command that are settings of a search (fields of SearchConfig) and were given."""
    from agent.config import SearchConfig

    return {name: it for name, it in ctx.params.items() if name in SearchConfig.model_fields and it is not None}


def _print_version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version
    from platform import python_version

    found = {"initsearch": "from a checkout", "torch": "not installed"}
    for name in found:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    print(f"initsearch {found['initsearch']} (Python {python_version()}, torch {found['torch']})")
    raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    """The options of `agent` itself."""
    command = ctx.invoked_subcommand
    words = sys.argv[1:]
    require_allowed(command, words[words.index(command) + 1 :] if command in words else [])
