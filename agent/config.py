"""What a search was asked to do. Precedence: flag > INITSEARCH_* variable > TOML file > default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from agent.errors import UsageError, in_one_sentence
from benchmark.files import read_toml
from benchmark.hardware import cpu_count
from benchmark.seeds import MOST, confirmation_seeds, evaluation_seeds
from benchmark.suggestions import suggestion
from benchmark.tasks import FROM_PYTHON, NAMES, is_task_file

ENV_PREFIX = "INITSEARCH_"
_RAY_ADDRESS = re.compile(r"auto|local|[A-Za-z0-9_.-]{1,290}:([0-9]{1,5})")
DEFAULT_TOML = Path("initsearch.toml")
_MAX_TOML_BYTES = 2**20


class SearchConfig(BaseModel):
    """Every choice of a search. Frozen: what `run.json` shows is what ran."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int = Field(default=3, ge=1, le=1000)
    """Tests the proposer may spend; each trains every visible task once per seed."""
    proposer: str = "optuna"
    profile: str = "auto"
    """auto, the name of a built-in profile, or the path of a task file."""
    seeds: int = Field(default=1, ge=1, le=MOST)
    """Training runs per task and candidate; the seeds are seed, seed + 1, …"""
    baseline_seeds: int | None = Field(default=None, ge=1, le=MOST)
    """Training runs per visible task of the baseline, on which every candidate leans; None: as many as `seeds`."""
    screen: float = Field(default=0.0, ge=0, le=10)
    """What may be spent before each test on looking at further candidates, as a share of a test's cost; 0: nothing."""
    confirm: int = Field(default=0, ge=0, le=MOST)
    """Fresh seeds with which the best tests and the baseline are trained again before one is submitted; 0: none."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    workers: Literal["auto"] | int = "auto"
    """Evaluations that run side by side: processes on a CPU, lanes on a GPU."""
    parallel: int = Field(default=1, ge=1, le=1000)
    """Tests that may be in flight. A candidate is asked for after exactly the tests that came so many before it."""
    executor: Literal["local", "ray", "slurm", "auto"] = "local"
    """What carries out evaluations: this machine, a Ray cluster, or a Slurm cluster."""
    ray_address: str | None = None
    """The Ray cluster: `auto` (the one that runs here), `local` (a new one on this machine) or HOST:PORT."""
    slurm: str | None = Field(default=None, max_length=1000)
    """Options of Slurm jobs, such as partition=gpu,gpus_per_node=1,time=120."""
    start: str | None = None
    """A recipe's name or a file: the strategy that the search starts from."""
    model: str | None = None
    """The language model's name, as its server knows it."""
    base_url: str | None = None
    """An OpenAI-compatible server, such as http://localhost:8080/v1; without it OPENAI_BASE_URL, then OpenAI's own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the model may read and write in the whole search."""
    max_cost: float | None = Field(default=None, gt=0)
    """Dollars that the model may cost; needs `price`."""
    price: str | None = None
    """IN/OUT: dollars for a million tokens read and written."""
    answer_tokens: int = Field(default=16384, ge=16)
    """Tokens that one answer may have, reasoning included."""
    context_tokens: int | None = Field(default=None, ge=1024)
    """The model's context; without it the conversation is shortened when the server refuses it."""
    request_seconds: float = Field(default=300.0, gt=0, le=86400)
    """Seconds after which one attempt at an answer is given up."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    runs: Path = Path("runs")
    data_root: Path | None = None
    download: bool = False
    cache: bool = True
    """Take visible results of equal code from the user's cache, and leave new ones there."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    kernels: Literal["auto", "eager", "graph", "inductor", "triton"] = "auto"
    """How a GPU carries out a training step; see `benchmark.steps`. Results belong to one way."""
    isolation: Literal["auto", "bubblewrap", "landlock"] = "auto"
    allow_unsandboxed: bool = False
    max_steps: int = Field(default=1000, ge=1)
    """Tool calls after which the loop ends, whatever the proposer wants."""
    max_seconds: float | None = Field(default=None, gt=0)
    submit: bool = True
    """Run the hidden task at once; without it the run waits for `agent submit`."""

    @field_validator("profile")
    @classmethod
    def _profile_is_known(cls, value: str) -> str:
        known = ("auto", *NAMES)
        if value not in (*known, FROM_PYTHON) and not is_task_file(value):
            raise ValueError(f"must be one of {', '.join(known)}, or a task file, such as my.toml")
        return value

    @field_validator("workers")
    @classmethod
    def _workers_in_range(cls, value: str | int) -> str | int:
        if isinstance(value, int) and not 1 <= value <= 256:
            raise ValueError("must be 'auto' or between 1 and 256")
        return value

    @field_validator("baseline_seeds")
    @classmethod
    def _baseline_is_not_weaker(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < info.data.get("seeds", 0):
            raise ValueError(f"must be at least seeds, {info.data['seeds']}")
        return value

    @field_validator("allow_unsandboxed")
    @classmethod
    def _isolation_is_not_asked_for_too(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("isolation", "auto") != "auto":
            raise ValueError(f"contradicts isolation {info.data['isolation']}: choose one")
        if value and info.data.get("executor", "local") != "local":
            raise ValueError(
                f"contradicts executor {info.data['executor']}: what is made without isolation stays on this machine"
            )
        return value

    @field_validator("ray_address")
    @classmethod
    def _address_can_be_one(cls, value: str | None) -> str | None:
        found = _RAY_ADDRESS.fullmatch(value or "auto")
        if value == "" or found is None or not 0 < int(found[1] or 1) < 2**16:
            raise ValueError("must be auto, local or HOST:PORT as `ray start --head` prints it, such as 10.0.0.5:6379")
        return value

    @field_validator("ray_address", "slurm")
    @classmethod
    def _engine_is_chosen(cls, value: str | None, info: ValidationInfo) -> str | None:
        wanted = "ray" if info.field_name == "ray_address" else "slurm"
        if value is not None and info.data.get("executor") not in (wanted, None):
            raise ValueError(f"needs --executor {wanted}")
        return value

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the settings of engines where they say nothing, so that a run's record is what it was."""
        found: dict[str, Any] = fields(self)
        return {name: value for name, value in found.items() if name not in _ENGINE or value != _ENGINE[name]}

    @property
    def null(self) -> bool:
        """Whether this is an A/A search, among copies of the baseline."""
        return self.proposer == "null"

    @property
    def evaluation_seeds(self) -> tuple[int, ...]:
        """The seeds of each evaluation. Baseline and candidates share them."""
        return tuple(evaluation_seeds(self.seed, self.seeds))

    @property
    def baseline_evaluation_seeds(self) -> tuple[int, ...]:
        """The baseline's seeds on the visible tasks: the candidates' and perhaps more."""
        return tuple(evaluation_seeds(self.seed, self.baseline_seeds or self.seeds))

    @property
    def confirmation_seeds(self) -> tuple[int, ...]:
        """Fresh seeds for the finalists: neither tests nor looks use them."""
        return tuple(confirmation_seeds(self.seed, self.confirm))


COMMAND_LINE_ONLY = frozenset({"allow_unsandboxed", "executor", "ray_address", "slurm"})
"""What runs a program unconfined or on another machine counts only where it is typed: not from a file, a variable or a
run directory."""
_ENGINE: Mapping[str, Any] = {"parallel": 1, "executor": "local", "ray_address": None, "slurm": None}
_FALSE = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True)
class Loaded:
    """A configuration, and of each setting that is no default, where it came from."""

    config: SearchConfig
    origin: Mapping[str, str]
    """Setting → its source in words, such as `--seed` or `initsearch.toml: seed`."""
    found_here: frozenset[str]
    """Settings from a file in the working directory, which may be somebody else's folder."""


def load_config(
    flags: Mapping[str, Any],
    *,
    toml: Path | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Mapping[str, str] = {},
) -> SearchConfig:
    """The config of `read_config`, for whoever sends nothing to its `base_url`."""
    return read_config(flags, toml=toml, environ=environ, settings=settings).config


def read_config(
    flags: Mapping[str, Any],
    *,
    toml: Path | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Mapping[str, str] = {},
) -> Loaded:
    """Merge the sources into one config. A flag of None means "not given"; `settings` come from `--set KEY=VALUE`.

    Raises UsageError that names the source and, for an unknown key, the nearest known one.
    """
    environ = os.environ if environ is None else environ
    known = SearchConfig.model_fields
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    file = toml or DEFAULT_TOML
    in_file = _read_toml(toml)
    for name, value in in_file.items():
        if name not in known:
            raise UsageError(f"{file}: unknown setting {name!r}{suggestion(name, list(known))}")
        merged[name], origin[name] = value, f"{file}: {name}"
    for variable, text in environ.items():
        name = variable.removeprefix(ENV_PREFIX).lower()
        if variable.startswith(ENV_PREFIX) and name in known:
            merged[name], origin[name] = text, f"{ENV_PREFIX}{name.upper()}"
    for name in COMMAND_LINE_ONLY & merged.keys():
        harmless = {"local"} if name == "executor" else _FALSE
        if str(merged[name]).lower() not in harmless:
            why = (
                "it decides how safe a search is"
                if name == "allow_unsandboxed"
                else "it starts programs on other machines"
            )
            raise UsageError(f"{origin[name]} counts only from the command line, because {why}: give {flag_name(name)}")
    if "profile" in merged and is_task_file(str(merged["profile"])):
        raise UsageError(
            f"{origin['profile']} names a task file, which counts only from the command line, because it names "
            f"programs: give --profile {merged['profile']}"
        )
    for name, value in flags.items():
        if name not in known:
            raise UsageError(f"flag: unknown setting {name!r}{suggestion(name, list(known))}")
        if value is None:
            continue
        if name in settings:
            raise UsageError(f"--set {name} and {flag_name(name, value)} set the same thing: give one")
        merged[name], origin[name] = value, flag_name(name, value)
    for name, text in settings.items():
        merged[name], origin[name] = text, f"--set {name}"
    try:
        config = SearchConfig.model_validate(merged)
    except ValidationError as error:
        raise UsageError(in_one_sentence(error, origin)) from None
    from_file = frozenset(name for name in in_file if origin[name] == f"{file}: {name}")
    return Loaded(config, origin, from_file if _is_here(file) else frozenset())


def _is_here(file: Path) -> bool:
    """Whether a file lies in or below the working directory, by its name or by where a link leads."""
    here = Path.cwd().resolve()
    return any(path.is_relative_to(here) for path in (here / os.path.normpath(file), file.resolve()))


def for_rerun(recorded: Mapping[str, Any], data_root: Path | None = None) -> SearchConfig:
    """A recorded configuration for carrying its code out again: isolated, on this machine, on the user's own
    data, and with no more processes than cores.

    Whoever wrote the record decides none of these. Raises ValidationError.
    """
    own = {"isolation": "auto", "allow_unsandboxed": False, "data_root": data_root, "download": False}
    here = {"executor": "local", "ray_address": None, "slurm": None}
    config = SearchConfig.model_validate({**recorded, **own, **here, "base_url": None})
    many = isinstance(config.workers, int) and config.workers > cpu_count()
    return config.model_copy(update={"workers": "auto"}) if many else config


def parse_settings(texts: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` texts as names and values; of a key that is given twice the last counts. Raises UsageError."""
    known = list(SearchConfig.model_fields)
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not separator:
            raise UsageError(f"--set {text}: expected KEY=VALUE, such as --set budget=5")
        if name not in known:
            raise UsageError(f"--set {key}: unknown setting {name!r}{suggestion(name, known)}")
        found[name] = value.strip()
    return found


def flag_name(name: str, value: object = None) -> str:
    """The flag of a setting, such as --max-steps; of one that is False, such as --no-cache."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        if not DEFAULT_TOML.is_file():
            return {}
        path = DEFAULT_TOML
    try:
        return read_toml(path, limit=_MAX_TOML_BYTES)
    except FileNotFoundError:
        raise UsageError(f"--config {path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: {error}") from None
