"""`agent baselines`: shows, measures or explains the recipe library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.app import DataRootOption, JsonFlag, ProfileOption, SeedOption, WorkersOption, app
from agent.cli.check import require_architecture
from agent.cli.output import print_json, print_next
from agent.errors import UsageError, unread

if TYPE_CHECKING:
    from agent.studies.recipes import Row
    from benchmark.tasks import Profile


@app.command()
def baselines(
    recipes: Annotated[str | None, typer.Option(help="Recipes to measure, separated by commas (default: all).")] = None,
    profile: ProfileOption = None,
    seeds: Annotated[int | None, typer.Option(help="Training runs per task and recipe (default 1).")] = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    data_root: DataRootOption = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also measure the hidden task, for calibration.")] = False,
    target: Annotated[
        float | None,
        typer.Option(help="Accuracy in percent, or score, to count epochs to (default: the baseline's mean)."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Only print the recipes, one per line.")] = False,
    show: Annotated[str | None, typer.Option(help="Only print the region text of a recipe.")] = None,
    explain: Annotated[str | None, typer.Option(help="Only show the effect of a recipe on a network.")] = None,
    from_config: Annotated[
        Path | None, typer.Option(help="Only print an init_cfg of MMEngine (JSON or Python) as a region text.")
    ] = None,
    arch: Annotated[str, typer.Option(help="The network for --explain.")] = "resnet56",
    as_json: JsonFlag = False,
) -> None:
    """Show, explain or measure recipes (known initialisations).

    \b
    Examples:
      agent baselines --recipes kaiming_normal,fixup --seeds 3
      agent baselines --list
      agent baselines --show fixup > my_init.py
      agent baselines --explain zero_last_gamma --arch resnet20
      agent baselines --from-config init_cfg.json > my_init.py
    """
    from benchmark.recipes import UnknownRecipeError

    try:
        if list_:
            print_list(as_json=as_json)
        elif from_config is not None:
            print_config(from_config, as_json=as_json)
        elif show is not None:
            _show(show, as_json=as_json)
        elif explain is not None:
            require_architecture(arch)
            _explain(explain, arch, as_json=as_json)
        else:
            flags = {"profile": profile, "seeds": seeds, "seed": seed, "workers": workers, "data_root": data_root}
            _measure(flags, recipes, hidden=hidden, target=target, as_json=as_json)
    except UnknownRecipeError as error:
        raise UsageError(str(error)) from None


def _show(name: str, *, as_json: bool) -> None:
    from benchmark.recipes import get_recipe

    recipe = get_recipe(name)
    if as_json:
        fields = ("name", "description", "source", "region")
        print_json({field: getattr(recipe, field) for field in fields})
        return
    print(recipe.region, end="")
    print_next(f"agent search --start {name}")


def print_list(*, as_json: bool) -> None:
    """Print every recipe with its description; with `as_json`, also its source."""
    from benchmark.recipes import RECIPES

    if as_json:
        print_json({name: {"description": it.description, "source": it.source} for name, it in RECIPES.items()})
        return
    for name, recipe in RECIPES.items():
        print(f"{name:24} {recipe.description}")
    print_next("agent baselines --show NAME, or --explain NAME")


def print_config(path: Path, *, as_json: bool) -> None:
    """Print the region text of an init_cfg. Raises UsageError when the file is no such config."""
    from benchmark.initializers import InitConfigError, parse_init_cfg, region_from_init_cfg

    try:
        init_cfg = parse_init_cfg(path.read_text(encoding="utf-8"))
        region = region_from_init_cfg(init_cfg)
    except FileNotFoundError:
        raise UsageError(f"--from-config {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from-config {path}: {unread(error)}") from None
    except InitConfigError as error:
        raise UsageError(f"--from-config {path}: {error}") from None
    if as_json:
        print_json({"init_cfg": init_cfg, "region": region})
        return
    print(region, end="")
    print_next("keep it in a file; agent check FILE, then agent search --proposer scripted:FILE")


def _measure(
    flags: Mapping[str, Any], recipes: str | None, *, hidden: bool, target: float | None, as_json: bool
) -> None:
    from agent.cli.live_table import make_progress
    from agent.config import load_config
    from agent.engine.auto_profile import choose_profile
    from agent.profiles import with_default_seeds
    from agent.studies.recipes import BASELINE, measure
    from benchmark.recipes import asks_for_blocks, get_recipe, recipe_names
    from benchmark.task import SEED_SD, common_metric

    asked = recipe_names() if recipes is None else (name.strip() for name in recipes.split(","))
    names = [name for name in dict.fromkeys(asked) if name]
    if not names:
        raise UsageError(f"--recipes: no name given; known: {', '.join(recipe_names())}")
    for name in names:
        get_recipe(name)
    config = load_config(flags)
    with closing(make_progress()) as progress:
        profile, reason = choose_profile(config, progress.message)
        config = with_default_seeds(config, profile)
        _check_target(target, profile)
        count = len({BASELINE, *names})
        progress.message(f"{count} recipes on {profile.name} ({reason}); stored results are not trained again")
        left_out = [name for name in names if asks_for_blocks(get_recipe(name).region)]
        if left_out and not all(task.strict for task in profile.tasks):
            progress.message(
                f"{', '.join(left_out)}: what these do to residual blocks is left out in your networks, because they "
                "know blocks by the classes of this project's own"
            )
        rows = measure(names, profile, config, progress, hidden=hidden, target=target)
    conditions = sorted(frozenset().union(*(row.conditions for row in rows)))
    if as_json:
        found = [row.as_json() for row in rows]
        print_json({"profile": profile.name, "caveat": profile.caveat, "conditions": conditions, "rows": found})
        return
    print(table(rows))
    print(f"\n{_TARGET_NOTE}\n\nTrained on {'; '.join(conditions) or 'nothing'}.\n\n{profile.caveat}")
    mixed = common_metric(row.metric for row in rows) == SEED_SD  # then gains count in units of each task's noise
    best = max(
        rows,
        key=lambda row: row.comparison.gain / (row.comparison.seed_sd if mixed else 1.0) if row.comparison else 0.0,
    ).recipe
    print_next(f"agent baselines --explain {best}, or agent search --start {best}")


def _check_target(target: float | None, profile: Profile) -> None:
    from benchmark.task import SEED_SD, common_metric

    metric = common_metric(task.metric for task in profile.tasks)
    if target is not None and metric == SEED_SD:
        raise UsageError("--target: the tasks have different metrics, so one target cannot serve them all")
    if target is not None and metric.is_accuracy and not 0 <= target <= 100:
        raise UsageError(f"--target {target:g}: an accuracy lies between 0 and 100 percent")


_TARGET_NOTE = (
    "The last columns: the number of runs that reached that score, and their mean number of epochs to it. An epoch "
    "costs the same with every recipe; --json has the measured seconds."
)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table per task: readable on a terminal and in the docs."""
    from agent.studies.recipes import BASELINE

    parts = []
    for task in dict.fromkeys(row.task for row in rows):
        target = next(row.target for row in rows if row.task == task)
        metric = next(row.metric for row in rows if row.task == task)
        better = "≥" if metric.sign > 0 else "≤"
        reached = "–" if target is None else f"{better} {metric.shown(target)}"
        mean = "mean %" if metric.is_accuracy else f"mean {metric.name}"
        lines = [
            f"### {task}",
            "",
            f"| recipe | {mean} | SD | n | against {BASELINE} | 95 % interval | verdict | {reached} | epochs |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_line(row) for row in rows if row.task == task]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(row: Row) -> str:
    shown = row.as_json()
    if not row.accuracies:
        return f"| {row.recipe} | failed | | 0 | | | {'; '.join(row.failed.values())[:80]} | | |"
    metric = row.metric
    sd = "" if shown["sd"] is None else metric.text(shown["sd"])
    if (comparison := row.comparison) is None:
        difference = interval = verdict = ""
    else:
        difference = metric.text(comparison.gain, sign=True)
        low, high = (metric.text(bound, sign=True) for bound in comparison.ci)
        interval = "" if comparison.known_ci is None else f"{low} … {high}"
        verdict = comparison.resolved
    reached = f"{shown['reached_target']} of {shown['n']}"
    epochs = f"{shown['epochs_to_target']:.1f}" if row.epochs_to_target else ""
    cells = [row.recipe, metric.text(shown["mean"]), sd, str(shown["n"]), difference, interval, verdict]
    return f"| {' | '.join([*cells, reached, epochs])} |"


def _explain(name: str, arch: str, *, as_json: bool) -> None:
    """Print the InitLog of a recipe, and the scales of the signal in its network."""
    import torch

    from benchmark.augment import Normalizer
    from benchmark.data import load_dataset
    from benchmark.initializers import log_function
    from benchmark.models import build_model, init_config
    from benchmark.recipes import get_recipe, load_region
    from benchmark.signal_stats import signal_statistics

    recipe = get_recipe(name)
    dataset = load_dataset("openclipart100")
    model = build_model(arch, dataset.num_classes)
    torch.manual_seed(0)
    function, config = load_region(recipe.region), init_config(model, arch, dataset.num_classes)
    log = log_function(model, lambda module: function(module, config), f"{name}: {recipe.description}")
    images = Normalizer(dataset.mean, dataset.std, torch.device("cpu"))(dataset.train_images[:256].contiguous())
    signal = signal_statistics(model, images, dataset.train_labels[:256])
    if as_json:
        print_json({"recipe": name, "arch": arch, "init_log": log.as_json(), "signal": signal.as_json()})
        return
    print(f"{name}: {recipe.description}\n\n{'parameter':32} {'shape':20} {'mean':>10} {'std':>10}")
    for parameter in log:
        values = f"{parameter.mean:10.3g} {parameter.std:10.3g}" if parameter.is_set else parameter.rule
        print(f"{parameter.name:32} {parameter.shape!s:20} {values}")
    print(f"\n{'layer':32} {'activation':>10} {'gradient':>10} {'gradient/weight':>15}")
    for layer in signal.layers:
        scales = (layer.activation_scale, layer.gradient_scale, layer.relative_gradient)
        print(f"{layer.name:32} {scales[0]:10.3g} {scales[1]:10.3g} {scales[2]:15.3g}")
    for branch in signal.branches:
        print(f"{branch.name:32} branch-to-skip ratio {branch.branch_to_skip:.3g}")
    print(f"logit scale {signal.logit_scale:.3g}, loss {signal.loss:.3f} (uniform {signal.uniform_loss:.3f})")
    print(f"dead ReLU channels {100 * signal.dead_relu_share:.1f} %; {'; '.join(signal.faults) or 'no faults'}")
    print_next(f"agent search --start {name}")
