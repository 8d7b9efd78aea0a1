"""Commands that train or try something: search, submit, check, plan, baselines, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import JsonFlag, RunsOption, app


@app.command()
def search(
    budget: Annotated[int | None, typer.Option(help="Tests that may be spent (default 3).")] = None,
    proposer: Annotated[
        str | None,
        typer.Option(
            help="optuna, random, llm, hybrid, scripted:demo, scripted:FILE or transcript:FILE (default optuna)."
        ),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", help="A/A: search among copies of the baseline; what would be claimed?")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="paper, pocket, mini, smoke, or auto: paper with a GPU and data, else pocket.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Training runs per task and candidate (default 1).")] = None,
    baseline_seeds: Annotated[
        int | None, typer.Option(help="Training runs per visible task of the baseline (default: as --seeds).")
    ] = None,
    screen: Annotated[
        float | None,
        typer.Option(help="Look at further candidates before each test, for this share of its cost (default 0)."),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(help="Before submitting, train the best tests and the baseline again on so many fresh seeds."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed (default 0).")] = None,
    workers: Annotated[str | None, typer.Option(help="Evaluations side by side (default auto: one a core).")] = None,
    start: Annotated[str | None, typer.Option(help="Recipe or file that the search starts from.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder for the run (default runs).")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the full data sets are.")] = None,
    download: Annotated[bool | None, typer.Option("--download", help="Fetch missing data sets.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, bf16 or fp32.")] = None,
    isolation: Annotated[str | None, typer.Option(help="auto, bubblewrap or landlock.")] = None,
    allow_unsandboxed: Annotated[
        bool | None,
        typer.Option("--allow-unsandboxed", help="Run candidates without isolation. Only for code you would run."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither use nor fill the store of results.")] = False,
    max_steps: Annotated[int | None, typer.Option(help="Tool calls after which the search ends.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="No step begins later; counted anew when resumed.")] = None,
    no_submit: Annotated[
        bool, typer.Option("--no-submit", help="Hold the hidden task back until agent submit, after a review.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Language model, for llm and hybrid. Its key: OPENAI_API_KEY.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Its server, if not OpenAI's: http://localhost:8080/v1, say.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens that the model may read and write in all.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Dollars that the model may cost; needs --price.")] = None,
    price: Annotated[str | None, typer.Option(help="IN/OUT, dollars for a million tokens, such as 0.28/0.42.")] = None,
    answer_tokens: Annotated[int | None, typer.Option(help="Tokens of one answer (default 16384).")] = None,
    context_tokens: Annotated[
        int | None, typer.Option(help="The model's context, if its server keeps it secret.")
    ] = None,
    request_seconds: Annotated[float | None, typer.Option(help="Seconds to wait for an answer (default 300).")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature (default: the server's).")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with an interrupted run.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with these settings.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Search for a better initialisation.

    \b
    Examples:
      agent search --budget 3
      agent search --budget 5 --seeds 3 --profile paper --data-root ~/data
      agent search --proposer scripted:my_init.py --json
      agent search --proposer scripted:demo --profile smoke
      agent search --budget 6 --screen 0.5 --confirm 5
      agent search --null --budget 5
      agent search --proposer llm --model NAME --base-url http://localhost:8080/v1
      agent search --resume latest
    """
    from agent.cli.search import null_proposer, run_search

    flags = {
        "budget": budget,
        "proposer": null_proposer(proposer) if null else proposer,
        "profile": profile,
        "seeds": seeds,
        "baseline_seeds": baseline_seeds,
        "screen": screen,
        "confirm": confirm,
        "seed": seed,
        "workers": workers,
        "start": start,
        "runs": runs,
        "data_root": data_root,
        "download": download,
        "precision": precision,
        "isolation": isolation,
        "allow_unsandboxed": allow_unsandboxed,
        "cache": False if no_cache else None,
        "max_steps": max_steps,
        "max_seconds": max_seconds,
        "submit": False if no_submit else None,
        "model": model,
        "base_url": base_url,
        "max_tokens": max_tokens,
        "max_cost": max_cost,
        "price": price,
        "answer_tokens": answer_tokens,
        "context_tokens": context_tokens,
        "request_seconds": request_seconds,
        "temperature": temperature,
    }
    raise typer.Exit(run_search(flags, toml=config, resume=resume, as_json=as_json))


@app.command()
def submit(
    run: Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")] = "latest",
    runs: RunsOption = Path("runs"),
    require_approval: Annotated[
        bool, typer.Option("--require-approval", help="Only if an approval of this very patch is in force.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run the hidden task of a search that was begun with --no-submit.

    \b
    Examples:
      agent search --no-submit
      agent review latest --approve
      agent submit latest --require-approval

    The exit code is 3 when an approval is required and there is none.
    """
    from agent.cli.submit import run_submit

    raise typer.Exit(run_submit(run, runs, require_approval=require_approval, as_json=as_json))


@app.command()
def ablate(
    run: Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")] = "latest",
    runs: RunsOption = Path("runs"),
    share: Annotated[
        float,
        typer.Option(min=0.0, help="Trainings it may cost, in shares of those that the search spent on visible tasks."),
    ] = 1.0,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=50, help="Fresh seeds per task and part (default: as many as the search).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Which part of a submission carries its gain? Takes back one hunk or number at a time and trains again.

    \b
    Examples:
      agent ablate
      agent ablate latest --share 2 --seeds 3
      agent ablate 20260101-120000 --json

    Trains on the visible tasks only, with seeds that the search did not use. The largest hunks come first; what the
    share does not pay for is left out and named. The result stays in RUN/ablation.json and on the run's page.
    """
    from agent.cli.ablate import run_ablate

    run_ablate(run, runs, share=share, seeds=seeds, as_json=as_json)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A region text (the function, with helpers) or a whole scaffold.")],
    arch: Annotated[
        list[str] | None, typer.Option(help="Architecture to try, repeatable (default: the visible ones of pocket).")
    ] = None,
    isolation: Annotated[str, typer.Option(help="auto, bubblewrap or landlock.")] = "auto",
    allow_unsandboxed: Annotated[bool, typer.Option("--allow-unsandboxed", help="Run it without isolation.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Is this function acceptable? Rules, isolation, determinism; no training.

    \b
    Examples:
      agent check my_init.py
      agent check my_init.py --arch mobilenetv2 --json
    """
    from agent.cli.check import run_check

    raise typer.Exit(run_check(file, arch or [], "none" if allow_unsandboxed else isolation, as_json=as_json))


@app.command()
def plan(
    budget: Annotated[int, typer.Option(min=1, max=1000, help="Tests.")] = 3,
    profile: Annotated[str, typer.Option(help="paper, pocket, mini, smoke or auto.")] = "auto",
    seeds: Annotated[int, typer.Option(min=1, max=50, help="Training runs per task and candidate.")] = 1,
    baseline_seeds: Annotated[
        int | None, typer.Option(help="Training runs per visible task of the baseline (default: as --seeds).")
    ] = None,
    confirm: Annotated[int | None, typer.Option(help="As for search: fresh seeds for the finalists.")] = None,
    screen: Annotated[float | None, typer.Option(help="As for search: what looks may cost, in tests.")] = None,
    workers: Annotated[str | None, typer.Option(help="Evaluations side by side (default auto).")] = None,
    effect: Annotated[
        float | None, typer.Option(help="Which designs see a mean gain of so many points over the visible tasks?")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the full data sets are.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What would a search cost here, and which effect could it see? Measures a few training steps.

    \b
    Examples:
      agent plan --budget 3
      agent plan --budget 3 --effect 2
      agent plan --budget 10 --confirm 5
      agent plan --profile paper --seeds 3 --json
    """
    from agent.cli.plan import run_plan

    run_plan(
        budget,
        profile,
        seeds,
        data_root,
        baseline_seeds=baseline_seeds,
        confirm=confirm,
        screen=screen,
        workers=workers,
        effect=effect,
        as_json=as_json,
    )


@app.command()
def baselines(
    recipes: Annotated[str | None, typer.Option(help="Recipes to measure, separated by commas (default: all).")] = None,
    profile: Annotated[str | None, typer.Option(help="paper, pocket, mini, smoke or auto (default auto).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Training runs per task and recipe (default 1).")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed (default 0).")] = None,
    workers: Annotated[str | None, typer.Option(help="Evaluations side by side (default auto).")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the full data sets are.")] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also the hidden task, for calibration.")] = False,
    target: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Accuracy in percent to count epochs to (default: the baseline's mean)."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the recipes with a line on each instead.")] = False,
    show: Annotated[str | None, typer.Option(help="Print a recipe's region text instead.")] = None,
    explain: Annotated[str | None, typer.Option(help="Say what a recipe does to a network instead.")] = None,
    from_config: Annotated[
        Path | None, typer.Option(help="Print an init_cfg of MMEngine (JSON or Python) as a region text instead.")
    ] = None,
    arch: Annotated[str, typer.Option(help="The network for --explain.")] = "resnet56",
    as_json: JsonFlag = False,
) -> None:
    """The recipe library: show, explain or measure known initialisations.

    \b
    Examples:
      agent baselines --recipes kaiming_normal,fixup --seeds 3
      agent baselines --list
      agent baselines --show fixup > my_init.py
      agent baselines --explain zero_last_gamma --arch resnet20
      agent baselines --from-config init_cfg.json > my_init.py
    """
    from agent.cli.baselines import print_config, print_list, run_baselines

    flags = {
        "profile": profile,
        "seeds": seeds,
        "seed": seed,
        "workers": workers,
        "data_root": data_root,
    }
    if list_:
        print_list(as_json=as_json)
        return
    if from_config is not None:
        print_config(from_config, as_json=as_json)
        return
    run_baselines(
        flags,
        recipes=recipes,
        show=show,
        explain=explain,
        arch=arch,
        hidden=hidden,
        target=target,
        as_json=as_json,
    )


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """What can this machine do, and what is missing?

    \b
    Examples:
      agent doctor
      agent doctor --json
    """
    from agent.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(as_json=as_json))
