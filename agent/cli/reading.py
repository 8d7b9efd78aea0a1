"""Commands that look at what is there: runs, show, report, review, compare, export, replay, audit, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import JsonFlag, RunsOption, app


@app.command("runs")
def list_runs(
    runs: RunsOption = Path("runs"),
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Write an index page, RUNS/index.html.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the runs.

    \b
    Examples:
      agent runs
      agent runs --csv > runs.csv
      agent runs --html
    """
    from agent.cli.show import run_list

    run_list(runs, style="json" if as_json else "csv" if csv else "html" if html else "table")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")] = "latest",
    runs: RunsOption = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Show what a run found.

    \b
    Examples:
      agent show
      agent show 20260101-120000 --json
    """
    from agent.cli.show import run_show

    run_show(run, runs, as_json=as_json)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")] = "latest",
    runs: RunsOption = Path("runs"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the page here instead.")] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Do not run the function again to show what it does to the networks.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the page of a run: report.html, one file, no script, no network. Works for unfinished runs too.

    \b
    Examples:
      agent report
      agent report 20260101-120000 -o page.html
    """
    from agent.cli.report import run_report

    raise typer.Exit(run_report(run, runs, output, measure=not no_measure, as_json=as_json))


@app.command()
def review(
    run: Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")] = "latest",
    runs: RunsOption = Path("runs"),
    approve: Annotated[bool, typer.Option("--approve", help="Approve the patch as it is now.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Reject it; -m says why.")] = False,
    request_changes: Annotated[
        bool, typer.Option("--request-changes", help="Ask for something else; -m says what.")
    ] = False,
    comment: Annotated[
        str | None, typer.Option("--comment", metavar="FILE:LINE", help="Remark on a line; -m has the remark.")
    ] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", help="The reason or remark.")] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEYFILE", help="Sign the verdict with this ssh key.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Review what a run submitted: diff, numbers, flags; approve or reject it. Asks when on a terminal.

    \b
    Examples:
      agent review
      agent review latest --approve --sign ~/.ssh/id_ed25519
      agent review 20260101-120000 --reject -m "depends on the architecture's name"
      agent review latest --comment sandbox/custom_init.py:40 -m "why 0.3?"

    The exit code is 3 while a rejection or a request for changes is in force for the patch, else 0.
    """
    from agent.cli.review import run_review

    verdicts = {"approve": approve, "reject": reject, "request_changes": request_changes, "comment": comment or ""}
    raise typer.Exit(run_review(run, runs, verdicts, message, sign=sign, as_json=as_json))  # type: ignore[arg-type]


@app.command()
def compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUN RUN...", help="Two to six runs; the first is the measure.")
    ] = None,
    runs: RunsOption = Path("runs"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page (default RUNS/comparison.html).")
    ] = None,
    proposers: Annotated[
        str | None, typer.Option(help="Instead of runs: proposers, separated by commas, that search on equal terms.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Searches of each proposer, each from other seeds.")] = 3,
    fresh: Annotated[
        int, typer.Option(help="Measure winners and baseline again on so many seeds that no search used.")
    ] = 0,
    budget: Annotated[int | None, typer.Option(help="Tests of each search (default 3).")] = None,
    profile: Annotated[str | None, typer.Option(help="paper, pocket, mini, smoke or auto (default auto).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Training runs per task and candidate (default 1).")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed of the first repeat (default 0).")] = None,
    workers: Annotated[str | None, typer.Option(help="Evaluations side by side (default auto).")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the full data sets are.")] = None,
    model: Annotated[str | None, typer.Option(help="Language model, for llm and hybrid.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Its server.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any other setting of a search.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs: differences over shared seeds with intervals, and a page with overlaid learning curves.

    \b
    Examples:
      agent compare latest 20260101-120000
      agent compare A B C -o comparison.html
      agent compare --proposers random,optuna --repeats 12 --fresh 10 --runs contest

    With --proposers the same search is run by each of them, several times, and what they gain is compared. When it was
    stopped, the same command goes on with it.
    """
    if proposers is None:
        from agent.cli.compare import run_compare

        raise typer.Exit(run_compare(names or [], runs, output, as_json=as_json))
    from agent.cli.contest import run_contest
    from agent.errors import UsageError

    if names or output:
        raise UsageError("--proposers runs searches of its own: give neither runs nor --output with it")
    flags = {
        "runs": runs,
        "budget": budget,
        "profile": profile,
        "seeds": seeds,
        "seed": seed,
        "workers": workers,
        "data_root": data_root,
        "model": model,
        "base_url": base_url,
    }
    code = run_contest(flags, proposers=proposers, repeats=repeats, fresh=fresh, toml=config, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")] = "latest",
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
    """Write a run in a form that other programs read.

    \b
    Examples:
      agent export latest --format atif -o trajectory.json
      agent export latest --format patch | git am
      agent export latest --format tensorboard --out tb
      agent export latest --format mlflow --out mlflow.db
    """
    from agent.cli.export import run_export

    run_export(run, runs, form, output)


@app.command()
def replay(
    source: Annotated[str, typer.Argument(help="A recorded conversation (JSON), a run directory, or latest.")],
    runs: RunsOption = Path("runs"),
    execute: Annotated[
        bool, typer.Option("--execute", help="Train again: a run's tests, or a conversation's strategies.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="Where --execute trains a conversation's strategies: pocket, smoke … (auto).")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="On a terminal too: print it, do not step through.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Apply every recorded call again and compare our replies with the recorded ones.

    \b
    Examples:
      agent replay latest
      agent replay conversation.json --json
      agent replay latest --execute
      agent replay conversation.json --execute --profile pocket

    On a terminal, and with the extra `viewer` installed, step through it: n next, p previous, g jump, r reasoning,
    d diff, q quit.
    """
    from agent.cli.transcripts import run_replay

    raise typer.Exit(run_replay(source, runs, as_json=as_json, execute=execute, profile=profile, plain=plain))


@app.command()
def audit(
    source: Annotated[str, typer.Argument(help="A recorded conversation (JSON), a run directory, or latest.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Did anything hidden show before the submission?

    \b
    Examples:
      agent audit latest
      agent audit conversation.json --json
    """
    from agent.cli.transcripts import run_audit

    raise typer.Exit(run_audit(source, runs, as_json=as_json))


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="Path, name, part of a name, or latest.")] = "latest",
    runs: RunsOption = Path("runs"),
    execute: Annotated[bool, typer.Option("--execute", help="Train one recorded evaluation again.")] = False,
    allowed_signers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The ssh keys that may sign reviews: see man ssh-keygen.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Do log, git history, results, summary, patch, page and reviews of a run still fit each other?

    Exit code 3: something differs. What nothing can show is listed as not verifiable, and is no fault.

    \b
    Examples:
      agent verify latest
      agent verify latest --execute
      agent verify latest --allowed-signers reviewers.txt
    """
    from agent.cli.verify import run_verify

    raise typer.Exit(run_verify(run, runs, execute=execute, as_json=as_json, allowed_signers=allowed_signers))
