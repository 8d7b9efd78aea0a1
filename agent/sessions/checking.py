"""The free checks of a region with the settings of a run: rules, then isolation on its visible architectures."""

from __future__ import annotations

from agent.config import SearchConfig
from agent.errors import RunDamaged, UsageError, in_one_sentence
from agent.evaluation.check import CheckReport, check
from agent.profiles import resolve_profile
from agent.runs.directory import RunDirectory
from benchmark.data import NUM_CLASSES
from sandbox.isolate import Isolation, IsolationUnavailable, Level
from sandbox.rules import check_region


def check_region_of(run: RunDirectory, region: str, *, allow_unsandboxed: bool = False) -> CheckReport:
    """Check `region` as a test of this run would. Trains nothing.

    Raises UsageError when the run works without isolation and `allow_unsandboxed` is not given again, RunDamaged.
    """
    if (rejection := check_region(region)) is not None:
        return CheckReport(False, rejection.kind, rejection.message)
    recorded = run.read_summary()
    try:
        config = SearchConfig.model_validate(recorded["config"])
        profile, _ = resolve_profile(recorded["profile"])
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
    archs = {task.arch: NUM_CLASSES[task.dataset] for task in profile.visible}
    try:
        with Isolation(level=level, at_once=True) as isolation:
            return check(region, archs, isolation, seed=config.evaluation_seeds[0], side_by_side=True)
    except IsolationUnavailable as error:
        raise UsageError(str(error)) from None
