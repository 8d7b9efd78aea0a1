"""The free checks of a region with the settings of a run: rules, then isolation on its visible architectures."""

from __future__ import annotations

from agent.config import SearchConfig
from agent.errors import RunDamaged, UsageError, in_one_sentence
from agent.evaluation.batches import jobs_for
from agent.evaluation.check import CheckReport, check
from agent.runs.directory import RunDirectory
from benchmark.tasks import Profile
from sandbox.isolate import Isolation, IsolationUnavailable, Level
from sandbox.rules import check_region


def check_region_of(
    run: RunDirectory, profile: Profile, region: str, *, allow_unsandboxed: bool = False
) -> CheckReport:
    """Check `region` on the networks of the run's profile, as a test would. Trains nothing.

    Raises UsageError when the run works without isolation and `allow_unsandboxed` is not given again, RunDamaged.
    """
    if (rejection := check_region(region)) is not None:
        return CheckReport(False, rejection.kind, rejection.message)
    recorded = run.read_summary()
    try:
        config = SearchConfig.model_validate(recorded["config"])
    except (KeyError, ValueError) as error:
        raise RunDamaged(f"{run.summary}: {in_one_sentence(error)}") from None
    level: Level = config.isolation
    if (begun := recorded.get("isolation_level")) in ("bubblewrap", "landlock"):
        level = begun
    if config.allow_unsandboxed:
        if not allow_unsandboxed:
            raise UsageError(
                f"{run.path}: this session runs candidates without isolation, with all your rights; if you would run "
                "their code yourself, add --allow-unsandboxed"
            )
        level = "none"
    seed = config.evaluation_seeds[0]
    try:
        with Isolation(level=level, at_once=True) as isolation:
            return check(region, jobs_for(profile.visible, region, seed), isolation, side_by_side=True)
    except IsolationUnavailable as error:
        raise UsageError(str(error)) from None
