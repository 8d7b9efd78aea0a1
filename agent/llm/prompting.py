"""Renders the prompts from the templates in prompts/, with the task, file, networks, noise and budget of a search."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from agent.protocol import Situation
from agent.runs.recorded_noise import noticeable, seed_sd, unmeasured
from benchmark.networks import Role
from benchmark.tasks import Profile, Task
from prompts import environment
from sandbox.region import SCAFFOLD_NAME, scaffold

Means = Literal["calls", "mcp", "folder"]


def system_prompt() -> str:
    """The system message, which describes the model's role."""
    return _render("llm_system.j2")


def form_prompt(form: str, *, screening: bool = False, confirm: int = 0) -> str:
    """The instructions on how to answer, for the form `tools` or `portable`; see `task_prompt` for the arguments."""
    return _render("llm_form.j2", form=form, screening=screening, confirm=confirm)


def task_prompt(
    profile: Profile,
    situation: Situation,
    *,
    budget: int,
    seeds: tuple[int, ...],
    scaled: bool = False,
    screening: bool = False,
    confirm: int = 0,
    parallel: int = 1,
    networks: bool = True,
    means: Means = "calls",
    again: str | None = None,
) -> str:
    """The task: the first user message of a language model, TASK.md of a session, a resource and a prompt of MCP.

    `means`: how the reader acts, by tool calls, by the tools of `agent mcp`, or by commands in a session's folder.
    `scaled`: the hybrid proposer also scales the numbers of each test. `screening`: there is a tool for looks between
    tests. `confirm`: number of fresh seeds for finalists. `parallel`: tests of one answer that are trained side by
    side. `networks`: include the networks' source, two fifths of the text. `again`: what a session's commands need to
    be given each time, because they run the code of a task file.
    """
    first, last = situation.editable
    return _render(
        "task.j2",
        means=means,
        profile=profile,
        recipe=profile.visible[0].recipe,
        tasks=[task_facts(profile, task, situation, len(seeds)) for task in profile.visible],
        accuracy=all(task.metric.is_accuracy for task in profile.visible),
        filename=situation.filename,
        first=first,
        last=last,
        listing=numbered(scaffold().with_region(situation.region).text),
        models=_networks(profile) if networks else "",
        own=own_tasks(profile) if profile.is_own else [],
        idle=ideas_without_effect(profile),
        may_keep=any(not task.strict for task in profile.visible),
        budget=budget,
        seeds=len(seeds),
        measured=bool(situation.baseline),
        scaled=scaled,
        screening=screening,
        confirm=confirm,
        parallel=parallel,
        again=again,
    )


def _networks(profile: Profile) -> str:
    """The source of the visible networks: of our module, and of a user's files."""
    sources = dict.fromkeys(source for task in profile.visible if task.network for source in task.network.sources)
    texts = [f"# {source.file}\n{source.text}" for source in sources]
    if any(task.strict for task in profile.visible):
        texts.append(_source("benchmark.models"))
    return "\n\n".join(texts)


_IDEAS: dict[Role, str] = {
    "conv": "gains of convolutions",
    "norm": "biases of normalisations",
    "branch": "scales of the ends of residual branches",
    "gain": "last gammas of residual branches",
    "skip_conv": "layers on skips",
    "depthwise": "depthwise convolutions",
    "hidden": "Linear layers before the head",
    "head": "a scale of the head",
}


def ideas_without_effect(profile: Profile) -> list[str] | None:
    """What no visible network has; None unless all are a user's, and their roles are known."""
    networks = [task.network for task in profile.visible if task.network is not None and not task.strict]
    found = [network.found for network in networks if network.found is not None]
    if len(found) < len(profile.visible):
        return None
    roles = {role for one in found for role in one.roles}
    return [words for role, words in _IDEAS.items() if role not in roles]


def own_tasks(profile: Profile) -> list[str]:
    """One line about each visible task of a user's profile: network, data, training, and what its score is."""
    lines = []
    for task in profile.visible:
        network = task.network.spec if task.network else task.arch
        if task.network and task.network.found:
            network = f"{network} ({task.network.found.words})"
        if task.trainer is not None:
            score = f"the score is {task.metric.name}, {task.metric.better} is better"
            lines.append(f"{task.name}: {network}, a trainer of its own; {score}")
            continue
        recipe = task.recipe
        channels, height, width = task.picture
        lines.append(
            f"{task.name}: {network}, {task.num_classes} classes, {task.sizes[0]} pictures of "
            f"{channels}×{height}×{width}; {recipe.optimizer}, learning rate {recipe.lr}, {recipe.schedule}, "
            f"{recipe.epochs} epoch(s), batch {recipe.batch_size}; the score is the best test accuracy in percent"
        )
    return lines


def baseline_note(profile: Profile, situation: Situation, seeds: tuple[int, ...]) -> str:
    """The baseline's scores, for a model that was asked before they were measured."""
    tasks = [task_facts(profile, task, situation, len(seeds)) for task in profile.visible]
    return _render("llm_baseline.j2", tasks=tasks, seeds=len(seeds))


def note(kind: str, **values: Any) -> str:
    """A short message between replies; see prompts/llm_notes.j2 for the kinds."""
    return _render(
        "llm_notes.j2", **{"kind": kind, "count": 0, "left": 0, "detail": "", "form": "tools", **values}
    ).strip()


def trials_table(**values: Any) -> str:
    """The table of trials that scaled the numbers of one structure."""
    return _render("llm_trials.j2", **values).strip()


def scores_word(profile: Profile) -> str:
    """What a test of these tasks reports: `accuracies` or `scores`."""
    return "accuracies" if all(task.metric.is_accuracy for task in profile.visible) else "scores"


def tools(*, screening: bool = False, confirm: int = 0, scores: str = "accuracies") -> list[dict[str, Any]]:
    """The tools in the format of Chat Completions; see `task_prompt`. `scores`: what a test reports."""
    known = {"filename": SCAFFOLD_NAME, "screening": screening, "confirm": confirm, "scores": scores}
    described = json.loads(_render("llm_tools.j2", **known))
    return [{"type": "function", "function": function} for function in described]


def task_facts(profile: Profile, task: Task, situation: Situation, seeds: int) -> dict[str, Any]:
    """Facts on one task: the baseline's scores and their mean, the seed SD and two standard errors of a difference.

    The SD is the one that the run's comparisons rely on. All numbers are text, the mean and the two with their unit;
    None stands for what is not known.
    """
    known = {seed: value for seed, value in situation.baseline.get(task.name, {}).items() if value is not None}
    noise = situation.noise
    if noise is None and profile.is_own:  # before the run has recorded it
        noise = unmeasured(profile)
    measured = known if noise is not None else {}  # a run of an older version resumes only with the same text
    sd, metric = seed_sd(profile.name, noise, task.name, measured), task.metric
    least = None if sd is None else noticeable(sd, len(measured) or seeds, seeds)
    return {
        "name": task.name,
        "what": "accuracy" if metric.is_accuracy else metric.name,
        "values": [metric.text(value) for value in known.values()],
        "mean": metric.shown(sum(known.values()) / len(known)) if known else None,
        "sd": None if sd is None else f"{sd:.2g} {metric.points}",
        "visible": None if least is None else f"{least:.2g} {metric.points}",
    }


def numbered(text: str) -> str:
    """The text with right-aligned line numbers, counted from 1."""
    return "\n".join(f"{number:>4}: {line}" for number, line in enumerate(text.splitlines(), start=1))


def _source(module: str) -> str:
    """The text of a module, which is not imported: torch takes seconds."""
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_text(encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(values)
