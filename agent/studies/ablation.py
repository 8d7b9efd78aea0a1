"""Finds the part of a submission that carries its gain: takes back one part at a time, trains and compares.

All variants are trained with fresh seeds. The submission was picked because it did well on the old seeds, so there
every variant would look too bad. The hidden task is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from agent.analysis.against_baseline import compare_tasks
from agent.clock import Clock
from agent.config import for_rerun
from agent.errors import RunDamaged, UsageError, in_one_sentence
from agent.evaluation.batches import Candidate, accuracies_of
from agent.evaluation.evaluator import Evaluator
from agent.evaluation.workbench import open_workbench
from agent.profiles import allowed_profile
from agent.progress import Progress
from agent.report.ablation import POINTS, Ablation, Contribution, PartResult, Seeds
from agent.report.findings import find, recorded_noise
from agent.runs.directory import RunDirectory
from agent.runs.record import RunRecord, read_run
from agent.runs.recorded_noise import Noise
from agent.runs.untrusted import text
from agent.studies.parts import Part, find_parts
from benchmark.files import write_atomically
from benchmark.results import region_sha256
from benchmark.seeds import unused_seeds
from benchmark.statistics import Resolved, combine
from benchmark.store import LayeredStore, ResultStore, user_store
from benchmark.task import Metric, common_metric
from benchmark.tasks import Profile

DEFAULT_SHARE = 1.0
"""As much training as the search spent on the visible tasks."""
_SUBMISSION = "submission"
_SIDES: dict[Resolved, Literal["carries", "in the way", "not resolved"]] = {
    "improvement": "in the way",  # the variant is better than the submission
    "worse": "carries",
    "not resolved": "not resolved",
}


def ablate(
    run: RunDirectory,
    progress: Progress,
    *,
    share: float = DEFAULT_SHARE,
    seeds: int | None = None,
    allow_unsandboxed: bool = False,
    data_root: Path | None = None,
    given: Profile | None = None,
) -> Ablation:
    """Measure the parts of a run's submission (or of its best test so far), and write the result to ablation.json.

    `seeds` is the number of fresh seeds (default: as many as the search used). Parts that `agent check` refuses cost
    nothing. Parts that `share` does not pay for are left out. The result names both. Whatever the run says, its code is
    isolated unless `allow_unsandboxed`, and data are looked for in `data_root` and the usual places. A run of a task
    file needs that file's profile as `given`.
    Raises UsageError when there is no tested code or the share pays for no part, RunDamaged.
    """
    record = read_run(run)
    test = find(record).subject
    if test is None or test not in record.regions:
        raise UsageError(f"{run.path}: there is no tested code whose parts could be taken back")
    region = record.regions[test]
    try:
        config, profile = for_rerun(record.summary["config"], data_root), record.own_profile()
        noise = recorded_noise(record)
    except (KeyError, TypeError, ValueError) as error:
        raise RunDamaged(f"{run.summary}: {in_one_sentence(error)}") from None
    profile = allowed_profile(run.path, profile, given)
    config = config.model_copy(update={"allow_unsandboxed": allow_unsandboxed})
    parts = find_parts(_start(record), region)
    # Above all seeds of the search, also those of its confirmation.
    used = (evaluation.seed for evaluation in record.evaluations)
    fresh = tuple(unused_seeds(used, seeds or config.seeds, default=config.seed))
    each = len(profile.visible) * len(fresh)
    spent = sum(not evaluation.role.startswith("hidden/") for evaluation in record.evaluations)
    affordable = int(share * spent) // each - 1  # the submission itself needs the fresh seeds, too
    if parts and affordable < 1:
        least = math.ceil(200 * each / max(1, spent)) / 100
        raise UsageError(f"--share {share:g} pays for no part: one takes {2 * each} trainings, --share {least:g}")
    refused: dict[str, str] = {}
    accuracies: dict[str, dict[str, Seeds]] = {}
    if parts:
        progress.message(f"test {test} has {len(parts)} parts; --share {share:g} pays for {affordable}")
        with run.held(), open_workbench(config, Clock(), progress, log=run.path / "workers.log") as workbench:
            refused = _refusals(parts, profile, workbench.evaluator, affordable)
            candidates = [Candidate(part.label, part.region) for part in parts if part.label not in refused]
            if candidates:
                candidates.insert(0, Candidate(_SUBMISSION, region))
                progress.begin(each * len(candidates))
                outcomes = workbench.evaluator.evaluate(
                    candidates,
                    profile.visible,
                    fresh,
                    results=LayeredStore(ResultStore(run.path / "ablation"), user_store() if config.cache else None),
                )
                accuracies = {candidate.role: accuracies_of(outcomes, candidate.role) for candidate in candidates}
    submission = accuracies.pop(_SUBMISSION, {})
    contributions = _contributions(profile.name, submission, accuracies, noise, profile.metrics)
    unit = common_metric(task.metric for task in profile.visible).points
    results = tuple(
        PartResult(
            kind=part.kind,
            label=part.label,
            region_sha256=region_sha256(part.region),
            refused=refused.get(part.label),
            accuracies=accuracies.get(part.label, {}),
            contribution=contributions.get(part.label),
        )
        for part in parts
    )
    ablation = Ablation(
        test=test,
        region_sha256=region_sha256(region),
        profile=profile.name,
        seeds=fresh,
        share=share,
        trainings=each * (1 + len(accuracies)) if accuracies else 0,
        trainings_of_search=spent,
        accuracies=submission,
        parts=results,
        conclusion=_conclusion(results, unit),
        unit=unit,
    )
    write_atomically(run.path / "ablation.json", (ablation.model_dump_json(indent=1) + "\n").encode())
    return ablation


def _start(record: RunRecord) -> str:
    """The region that the search began with: the one that it wrote before its first step, else the baseline."""
    begun = next((step for step in record.steps if step.number == 0 and step.tool == "rewrite"), None)
    return record.baseline_region if begun is None else text(begun.arguments.get("content"))


def _refusals(parts: Sequence[Part], profile: Profile, evaluator: Evaluator, affordable: int) -> dict[str, str]:
    """Label of a part → why it is not trained."""
    refused: dict[str, str] = {}
    for number, part in enumerate(parts):
        if number - len(refused) == affordable:
            return refused | {rest.label: "left out: the share is spent" for rest in parts[number:]}
        report = evaluator.check(part.region, profile.visible, 0)
        if not report.accepted:
            message = report.message.splitlines()[0]
            refused[part.label] = f"cannot be taken back alone; agent check says {report.kind}: {message}"
    return refused


def _contributions(
    profile: str,
    submission: Mapping[str, Seeds],
    variants: Mapping[str, Mapping[str, Seeds]],
    noise: Noise | None = None,
    metrics: Mapping[str, Metric] = {},
) -> dict[str, Contribution]:
    """Label → submission minus variant. The intervals are Dunnett's: many variants against one submission."""
    found = {}
    for label, variant in variants.items():
        others = [other for name, other in variants.items() if name != label]
        overall = combine(
            compare_tasks(
                profile, submission, variant, n_candidates=len(variants), others=others, noise=noise, metrics=metrics
            )
        )
        low, high = overall.ci
        found[label] = (
            Contribution(resolved="needed", failed=overall.failed)
            if overall.failed
            else Contribution(
                gain=0.0 - overall.gain if math.isfinite(overall.gain) else None,
                ci=None if overall.known_ci is None else (-high, -low),
                smallest_visible_effect=None if overall.known_ci is None else overall.smallest_visible_effect,
                resolved=_SIDES[overall.resolved],
            )
        )
    return found


def _conclusion(parts: Sequence[PartResult], unit: str = POINTS) -> str:
    """One or two sentences that name the parts that carry the gain."""
    measured = [(f"{part.kind} {part.label}", part.contribution) for part in parts if part.contribution is not None]
    if not parts:
        return "There is nothing to take back alone: the change is one piece, or there is none."
    if not measured:
        return "No part can be taken back alone."
    by_verdict: dict[str, list[str]] = {}
    for name, one in measured:
        by_verdict.setdefault(one.resolved, []).append(name)
    words = [
        f"{what}: {', '.join(by_verdict[verdict])}."
        for verdict, what in (
            ("needed", "Cannot be trained without"),
            ("carries", "Carries the gain, resolved"),
            ("in the way", "Better without, resolved"),
        )
        if verdict in by_verdict
    ]
    if "not resolved" in by_verdict:
        effects = [one.smallest_visible_effect for _, one in measured if one.smallest_visible_effect is not None]
        smallest = "no noise is known"
        if effects:
            effect = f"{max(effects):.1f}" if unit == POINTS else f"{max(effects):.3g}"
            smallest = f"the smallest detectable effect is about {effect} {unit}"
        rest = "the other parts" if words else "any part"
        words.append(f"No difference shown for {rest}: {smallest}.")
    return " ".join(words)
