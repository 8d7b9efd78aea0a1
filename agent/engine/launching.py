"""What a run's launch recorded, and that a resumed run has the same inputs and environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.analysis.known_noise import noise_here
from agent.config import SearchConfig
from agent.errors import RunDamaged, UsageError, in_one_sentence
from agent.evaluation.workbench import Workbench
from agent.profiles import as_recorded, scaffold_of
from agent.proposers import proposer_kind
from agent.runs.events import Event, Launch
from agent.runs.log import MAX_LOG_BYTES, EventLog, Record
from agent.runs.log_lines import read_lines
from agent.runs.recorded_noise import Noise, as_logged, of_log
from agent.spaces.start import starting_region
from benchmark.files import NotPlain, read_plain
from benchmark.recipes import get_recipe, recipe_names
from benchmark.tasks import Profile


@dataclass(frozen=True)
class FilesGiven:
    """--proposer and --start as given when a search is resumed. A file that only the run names is not read."""

    proposer: str | None = None
    start: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Contents of the user's files. `Launch` records them, so a resumed search does not read the files again."""

    start_region: str | None
    """The region that `--start` gave."""
    script: str | None
    """See `ProposerKind.script`."""

    @classmethod
    def recorded(cls, launch: Launch | None, config: SearchConfig, given: FilesGiven) -> Inputs:
        """The inputs in the log. What an old or missing launch event lacks is read from files that were given again.

        Raises UsageError that names a file which the run's configuration names and nobody gave this time.
        """
        start = launch.start_region if launch else None
        if start is None and config.start is not None and config.start in recipe_names():
            start = get_recipe(config.start).region
        elif start is None and config.start is not None:
            _require_given("--start", config.start, given.start)
            start = starting_region(config.start)
        kind = proposer_kind(config)
        script = launch.script if launch else None
        if script is None and kind.argument:
            _require_given("--proposer", config.proposer, given.proposer)
            script = kind.script(config)
        return cls(start, script)


def first_launch(log: Path) -> Launch | None:
    """The first event of a log, if it is a launch. None where there is no log or it holds no whole line yet.

    Raises RunDamaged where the line cannot be read.
    """
    try:
        data = read_plain(log.parent, log.name, limit=MAX_LOG_BYTES)
    except FileNotFoundError:
        return None
    except NotPlain as error:
        raise RunDamaged(str(error)) from None
    line = next(read_lines(data), None)
    if line is None:
        return None
    try:
        event = Record.parse(line.fields).event
    except ValueError as error:
        raise RunDamaged(f"{log}: line 1 is not an event of this version: {in_one_sentence(error)}") from None
    return event if isinstance(event, Launch) else None


def record_launch(
    log: EventLog,
    config: SearchConfig,
    profile: Profile,
    environment: dict[str, str],
    isolation_level: str,
    inputs: Inputs | None,
    given: FilesGiven,
) -> tuple[Inputs, Noise | None]:
    """Log configuration, environment and seed noise. A resumed search compares them with its log.

    Returns the inputs, which a resumed search reads from its log or from files that were `given` again, and the noise,
    which it reads from its log, since the user's store may have more results by now. Raises UsageError when the
    environment differs or a file was not given again, RunDamaged when anything else differs.
    """
    recorded = log.recorded("launch")
    launch = recorded if isinstance(recorded, Launch) else None
    if launch is not None:
        _require_same_environment(log.path, launch.environment, environment)
    inputs = inputs or Inputs.recorded(launch, config, given)
    noise = (
        of_log(launch.noise, profile) if launch is not None else noise_here(profile, environment, cache=config.cache)
    )
    log.append(
        Launch(
            config=config.model_dump(mode="json"),
            profile=profile.name,
            environment=environment,
            isolation_level=isolation_level,
            scaffold=scaffold_of(profile).text,
            tasks=as_recorded(profile),
            start_region=inputs.start_region,
            script=inputs.script,
            noise=None if noise is None else as_logged(noise, profile),
        )
    )
    return inputs, noise


def require_as_launched(log: Path, launch: Event, workbench: Workbench) -> None:
    """Raise UsageError unless environment and isolation are those in which the run began."""
    if isinstance(launch, Launch):
        was = {**launch.environment, "isolation": launch.isolation_level}
        _require_same_environment(log, was, {**workbench.environment, "isolation": workbench.isolation.level})


def _require_same_environment(log: Path, was: Mapping[str, str], now: Mapping[str, str]) -> None:
    unequal = [
        f"{name} was {was.get(name, 'not recorded')} and is now {now.get(name, 'absent')}"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]
    if unequal:
        raise UsageError(
            f"{log.parent}: the search began in another environment ({'; '.join(unequal)}), and results of two "
            "environments cannot be compared; resume it there, or begin a new search"
        )


def _require_given(flag: str, named: str, given: str | None) -> None:
    if named != given:
        raise UsageError(
            f"the run names a file, {flag} {named}, and its log does not hold what was in it; if that is your file, "
            f"give {flag} {named} again"
        )
