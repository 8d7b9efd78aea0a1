"""`agent baselines`: the recipe library, shown, measured or explained."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.cli.output import print_json
from agent.config import load_config
from agent.errors import UsageError
from agent.profiles import resolve_profile
from agent.progress import make_progress
from agent.studies.recipes import BASELINE, Row, measure
from benchmark.recipes import RECIPES, UnknownRecipeError, get_recipe, recipe_names


def run_baselines(
    flags: Mapping[str, Any],
    *,
    recipes: str | None,
    show: str | None,
    explain: str | None,
    arch: str,
    hidden: bool,
    target: float | None,
    as_json: bool,
) -> None:
    """Print a recipe's text, explain what it does to a network, or train recipes and print the table."""
    try:
        if show is not None:
            _show(show, as_json=as_json)
        elif explain is not None:
            _explain(explain, arch, as_json=as_json)
        else:
            _measure(flags, recipes, hidden=hidden, target=target, as_json=as_json)
    except UnknownRecipeError as error:
        raise UsageError(str(error)) from None


def _show(name: str, *, as_json: bool) -> None:
    recipe = get_recipe(name)
    if as_json:
        fields = ("name", "description", "source", "region")
        print_json({field: getattr(recipe, field) for field in fields})
        return
    print(recipe.region, end="")
    print(f"next: agent search --start {name}", file=sys.stderr)


def print_list(*, as_json: bool) -> None:
    """Print every recipe with its description; with `as_json`, also its source."""
    if as_json:
        print_json({name: {"description": it.description, "source": it.source} for name, it in RECIPES.items()})
        return
    for name, recipe in RECIPES.items():
        print(f"{name:24} {recipe.description}")
    print("next: agent baselines --show NAME, or --explain NAME", file=sys.stderr)


def print_config(path: Path, *, as_json: bool) -> None:
    """Print the region text that an init_cfg stands for. Raises UsageError for a file that is no such config."""
    from benchmark.initializers import InitConfigError, parse_init_cfg, region_from_init_cfg

    try:
        init_cfg = parse_init_cfg(path.read_text(encoding="utf-8"))
        region = region_from_init_cfg(init_cfg)
    except FileNotFoundError:
        raise UsageError(f"--from-config {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from-config {path}: cannot be read: {error}") from None
    except InitConfigError as error:
        raise UsageError(f"--from-config {path}: {error}") from None
    if as_json:
        print_json({"init_cfg": init_cfg, "region": region})
        return
    print(region, end="")
    print("next: keep it in a file; agent check FILE, then agent search --proposer scripted:FILE", file=sys.stderr)


def _measure(
    flags: Mapping[str, Any], recipes: str | None, *, hidden: bool, target: float | None, as_json: bool
) -> None:
    asked = recipe_names() if recipes is None else (name.strip() for name in recipes.split(","))
    names = [name for name in dict.fromkeys(asked) if name]
    if not names:
        raise UsageError(f"--recipes: no name given; known: {', '.join(recipe_names())}")
    for name in names:
        get_recipe(name)
    config = load_config(flags)
    profile, reason = resolve_profile(config.profile, data_root=config.data_root)
    progress = make_progress()
    try:
        count = len({BASELINE, *names})
        progress.message(f"{count} recipes on {profile.name} ({reason}); what the store has is not trained again")
        rows = measure(names, profile, config, progress, hidden=hidden, target=target)
    finally:
        progress.close()
    conditions = sorted(frozenset().union(*(row.conditions for row in rows)))
    if as_json:
        found = [row.as_json() for row in rows]
        print_json({"profile": profile.name, "caveat": profile.caveat, "conditions": conditions, "rows": found})
        return
    print(table(rows))
    print(f"\n{_TARGET_NOTE}\n\nTrained on {'; '.join(conditions) or 'nothing'}.\n\n{profile.caveat}")
    best = max(rows, key=lambda row: row.comparison.gain if row.comparison else 0.0).recipe
    print(f"next: agent baselines --explain {best}, or agent search --start {best}", file=sys.stderr)


_TARGET_NOTE = (
    "The last columns: how many runs reached that accuracy, and after how many epochs, on average over those. An epoch "
    "costs the same whatever the recipe; the seconds, as measured then, are in --json."
)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table per task: readable on a terminal and in the docs."""
    parts = []
    for task in dict.fromkeys(row.task for row in rows):
        target = next(row.target for row in rows if row.task == task)
        reached = "–" if target is None else f"≥ {target:.2f} %"
        lines = [
            f"### {task}",
            "",
            f"| recipe | mean % | SD | n | against {BASELINE} | 95 % interval | verdict | {reached} | epochs |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_line(row) for row in rows if row.task == task]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(row: Row) -> str:
    shown = row.as_json()
    if not row.accuracies:
        return f"| {row.recipe} | failed | | 0 | | | {'; '.join(row.failed.values())[:80]} | | |"
    sd = "" if shown["sd"] is None else f"{shown['sd']:.2f}"
    if (comparison := row.comparison) is None:
        difference = interval = verdict = ""
    else:
        difference = f"{comparison.gain:+.2f}"
        interval = f"{comparison.ci[0]:+.2f} … {comparison.ci[1]:+.2f}"
        verdict = comparison.resolved
    reached = f"{shown['reached_target']} of {shown['n']}"
    epochs = f"{shown['epochs_to_target']:.1f}" if row.epochs_to_target else ""
    cells = [row.recipe, f"{shown['mean']:.2f}", sd, str(shown["n"]), difference, interval, verdict]
    return f"| {' | '.join([*cells, reached, epochs])} |"


def _explain(name: str, arch: str, *, as_json: bool) -> None:
    """The InitLog of a recipe and how a signal travels through the network it made."""
    import torch

    from benchmark.augment import Normalizer
    from benchmark.data import load_dataset
    from benchmark.initializers import log_function
    from benchmark.models import ARCHITECTURES, build_model, init_config
    from benchmark.recipes import load_region
    from benchmark.signal_stats import signal_statistics

    if arch not in ARCHITECTURES:
        raise UsageError(f"--arch {arch}: unknown; known: {', '.join(sorted(ARCHITECTURES))}")
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
    print(f"next: agent search --start {name}", file=sys.stderr)
