"""Renders the prompts from the templates in prompts/, with the task, file, networks, noise and budget of a search."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from agent.protocol import Accuracies, Situation
from benchmark.noise import noise_prior
from benchmark.tasks import Profile
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
    networks: bool = True,
    means: Means = "calls",
) -> str:
    """The task: the first user message of a language model, TASK.md of a session, a resource and a prompt of MCP.

    `means`: how the reader acts, by tool calls, by the tools of `agent mcp`, or by commands in a session's folder.
    `scaled`: the hybrid proposer also scales the numbers of each test. `screening`: there is a tool for looks between
    tests. `confirm`: number of fresh seeds for finalists. `networks`: include the networks' source, two fifths of the
    text.
    """
    first, last = situation.editable
    return _render(
        "task.j2",
        means=means,
        profile=profile,
        recipe=profile.visible[0].recipe,
        tasks=[task_facts(profile.name, task.name, situation.baseline, len(seeds)) for task in profile.visible],
        filename=situation.filename,
        first=first,
        last=last,
        listing=numbered(scaffold().with_region(situation.region).text),
        models=_source("benchmark.models") if networks else "",
        budget=budget,
        seeds=len(seeds),
        measured=bool(situation.baseline),
        scaled=scaled,
        screening=screening,
        confirm=confirm,
    )


def baseline_note(profile: Profile, baseline: Accuracies, seeds: tuple[int, ...]) -> str:
    """The baseline's accuracies, for a model that was asked before they were measured."""
    tasks = [task_facts(profile.name, task.name, baseline, len(seeds)) for task in profile.visible]
    return _render("llm_baseline.j2", tasks=tasks, seeds=len(seeds))


def note(kind: str, **values: Any) -> str:
    """A short message between replies; see prompts/llm_notes.j2 for the kinds."""
    return _render(
        "llm_notes.j2", **{"kind": kind, "count": 0, "left": 0, "detail": "", "form": "tools", **values}
    ).strip()


def trials_table(**values: Any) -> str:
    """The table of trials that scaled the numbers of one structure."""
    return _render("llm_trials.j2", **values).strip()


def tools(*, screening: bool = False, confirm: int = 0) -> list[dict[str, Any]]:
    """The tools in the format of Chat Completions; see `task_prompt` for the arguments."""
    described = json.loads(_render("llm_tools.j2", filename=SCAFFOLD_NAME, screening=screening, confirm=confirm))
    return [{"type": "function", "function": function} for function in described]


def task_facts(profile: str, task: str, baseline: Accuracies, seeds: int) -> dict[str, Any]:
    """Facts on one task: baseline accuracies, their mean, prior seed SD, two standard errors of a difference."""
    values = [value for value in baseline.get(task, {}).values() if value is not None]
    prior = noise_prior(profile, task)
    return {
        "name": task,
        "values": values,
        "mean": sum(values) / len(values) if values else None,
        "sd": prior.sd,
        "visible": 2 * prior.sd * (2 / max(1, seeds)) ** 0.5,
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
