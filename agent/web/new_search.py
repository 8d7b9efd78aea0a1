"""The form that starts a search: the choices of `agent plan`, and nothing that runs a program or sends anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.errors import UsageError
from benchmark.tasks import PROFILES

PROPOSERS = ("optuna", "random", "null")


@dataclass(frozen=True)
class FormField:
    """One choice. With `options` it is one of these, else a number between `least` and `most`."""

    name: str
    label: str
    help: str
    default: str = ""
    options: tuple[str, ...] = ()
    least: int = 0
    most: int = 50
    step: str = "1"
    required: bool = False
    plan: bool = True
    """Whether `agent plan` has the flag too."""


FIELDS = (
    FormField("budget", "Tests", "How many candidates are trained in full.", "3", least=1, most=1000, required=True),
    FormField(
        "profile", "Profile", "Networks and data. auto: what suits this machine.", "auto", options=("auto", *PROFILES)
    ),
    FormField(
        "proposer",
        "Proposer",
        "Optuna, random draws, or null: an A/A search among copies of the baseline.",
        "optuna",
        options=PROPOSERS,
        plan=False,
    ),
    FormField("seeds", "Seeds", "Trainings of each task per candidate.", "1", least=1, required=True),
    FormField("baseline_seeds", "Seeds of the baseline", "Empty: as many as the candidates.", least=1),
    FormField("confirm", "Fresh seeds for the finalists", "The best tests are trained again before one is submitted."),
    FormField(
        "screen",
        "Screening",
        "What short trainings may cost before each test, as a share of a test.",
        most=10,
        step="0.05",
    ),
    FormField("seed", "First seed", "Other seeds give other noise.", "0", most=2**31 - 1, plan=False),
)


def defaults() -> dict[str, str | bool]:
    """The values of an untouched form."""
    return {field.name: field.default for field in FIELDS} | {"hold": True}


def values_of(form: Mapping[str, str]) -> dict[str, str | bool]:
    """What was filled in, for showing it again."""
    return {field.name: form.get(field.name, field.default)[:20] for field in FIELDS} | {
        "hold": form.get("hold") == "yes"
    }


def flags_of(form: Mapping[str, str], *, plan: bool) -> Sequence[str]:
    """The flags of `agent search`, or of `agent plan`. Raises UsageError for a value that the form does not offer."""
    flags: list[str] = []
    for field in FIELDS:
        value = form.get(field.name, field.default).strip()
        if (plan and not field.plan) or (not value and not field.required):
            continue
        number = r"[0-9]{1,10}" if field.step == "1" else r"[0-9]{1,3}(\.[0-9]{1,6})?"
        if field.options:
            if value not in field.options:
                raise UsageError(f"{field.label}: {value[:40]!r} is not offered here: {', '.join(field.options)}.")
        elif not re.fullmatch(number, value, re.ASCII) or not field.least <= float(value) <= field.most:
            raise UsageError(f"{field.label}: a number between {field.least} and {field.most} belongs there.")
        flags += [f"--{field.name.replace('_', '-')}", value]
    if not plan:
        flags.append("--no-submit" if form.get("hold") == "yes" else "--submit")
    return flags
