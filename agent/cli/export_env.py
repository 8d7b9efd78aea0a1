"""`agent export-env`: writes the task as an environment in which others measure their agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import JsonFlag, ProfileOption, SeedsOption, app
from agent.cli.output import print_json, print_next
from agent.errors import UsageError

FORMATS = ("harbor",)


@app.command("export-env")
def export_env(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the environment.")],
    form: Annotated[str, typer.Option("--format", help="harbor: a task of the Harbor framework.")] = "harbor",
    profile: ProfileOption = None,
    budget: Annotated[int, typer.Option(min=1, max=1000, help="Tests that the agent may spend.")] = 3,
    seeds: SeedsOption = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Beside a task file, what its trainers read; repeat it. Both images hold it."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write this task as a folder in which others measure agents.

    \b
    Examples:
      agent export-env --format harbor task --profile pocket --budget 5
      agent export-env --format harbor task --profile smoke && harbor run -p task -a oracle
      agent export-env task --profile letters.toml --include text.txt
    """
    from agent.config import SearchConfig
    from agent.profiles import resolve_profile
    from agent.sessions.harbor import export_harbor
    from benchmark.suggestions import suggestion

    if form not in FORMATS:
        raise UsageError(f"--format {form}: unknown{suggestion(form, list(FORMATS))}")
    checked = SearchConfig.model_validate({"profile": profile or "pocket", "budget": budget, "seeds": seeds or 1})
    chosen, _ = resolve_profile(checked.profile)
    made = export_harbor(folder, chosen, budget=checked.budget, seeds=checked.seeds, include=include or ())
    if as_json:
        print_json({"event": "done", "environment": str(made), "format": form, "profile": chosen.name})
    else:
        print(made)
    print_next(f"harbor run -p {made} -a oracle")
