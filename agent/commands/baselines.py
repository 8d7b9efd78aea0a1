"""`agent baselines`: the recipe library, shown, measured or explained."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agent.baselines import BASELINE, Row, measure
from agent.cli import print_json
from agent.config import load_config
from agent.errors import UsageError
from agent.profiles import resolve_profile
from agent.progress import make_progress
from benchmark.recipes import UnknownRecipeError, get_recipe, recipe_names


def run_baselines(
    flags: Mapping[str, Any],
    *,
    recipes: str | None,
    show: str | None,
    explain: str | None,
    arch: str,
    hidden: bool,
    as_json: bool,
) -> None:
    """Print a recipe's text, explain what it does to a network, or train recipes and print the table."""
    try:
        if show is not None:
            _show(show, as_json=as_json)
        elif explain is not None:
            _explain(explain, arch, as_json=as_json)
        else:
            _measure(flags, recipes, hidden=hidden, as_json=as_json)
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


def _measure(flags: Mapping[str, Any], recipes: str | None, *, hidden: bool, as_json: bool) -> None:
    names = list(recipe_names()) if recipes is None else [name.strip() for name in recipes.split(",") if name.strip()]
    for name in names:
        get_recipe(name)
    config = load_config(flags)
    profile, reason = resolve_profile(config.profile, data_root=config.data_root)
    progress = make_progress()
    try:
        progress.message(f"{len(names)} recipes on {profile.name} ({reason}); what the store has is not trained again")
        rows = measure(names, profile, config, progress, hidden=hidden)
    finally:
        progress.close()
    if as_json:
        print_json({"profile": profile.name, "caveat": profile.caveat, "rows": [row.as_json() for row in rows]})
        return
    print(table(rows))
    print(f"\n{profile.caveat}")
    best = names[0] if names[0] != BASELINE or len(names) == 1 else names[1]
    print(f"next: agent baselines --explain {best}, or agent search --start {best}", file=sys.stderr)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table per task: readable on a terminal and in the docs."""
    parts = []
    for task in dict.fromkeys(row.task for row in rows):
        lines = [
            f"### {task}",
            "",
            f"| recipe | mean % | SD | n | against {BASELINE} | 95 % interval | verdict | reaches its mean after |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_line(row) for row in rows if row.task == task]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(row: Row) -> str:
    shown = row.as_json()
    if not row.accuracies:
        return f"| {row.recipe} | failed | | 0 | | | {'; '.join(row.failed.values())[:80]} | |"
    sd = "" if shown["sd"] is None else f"{shown['sd']:.2f}"
    if (comparison := row.comparison) is None:
        difference = interval = verdict = ""
    else:
        difference = f"{comparison.gain:+.2f}"
        interval = f"{comparison.ci[0]:+.2f} … {comparison.ci[1]:+.2f}"
        verdict = comparison.resolved
    reached = f"{shown['reached_target']}/{shown['n']} runs"
    if shown["epochs_to_target"] is not None:
        reached += f", {shown['epochs_to_target']:.1f} epochs, {shown['seconds_to_target']:.0f} s"
    mean = f"{shown['mean']:.2f}"
    return f"| {row.recipe} | {mean} | {sd} | {shown['n']} | {difference} | {interval} | {verdict} | {reached} |"


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
    print(log)
    print(f"\n{'layer':32} {'activation':>10} {'gradient':>10} {'gradient/weight':>15}")
    for layer in signal.layers:
        scales = (layer.activation_scale, layer.gradient_scale, layer.relative_gradient)
        print(f"{layer.name:32} {scales[0]:10.3g} {scales[1]:10.3g} {scales[2]:15.3g}")
    for branch in signal.branches:
        print(f"{branch.name:32} branch-to-skip ratio {branch.branch_to_skip:.3g}")
    print(f"logit scale {signal.logit_scale:.3g}, loss {signal.loss:.3f} (uniform {signal.uniform_loss:.3f})")
    print(f"dead ReLU channels {100 * signal.dead_relu_share:.1f} %; {'; '.join(signal.faults) or 'no faults'}")
    print(f"next: agent search --start {name}", file=sys.stderr)
