"""Replay and audit of the public conversations beside the repository; skipped where that folder is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.transcripts import audit, replay

FOLDER = Path(__file__).resolve().parents[3] / "../shared/transcripts"
SISTERS = sorted((FOLDER / "mls-bench").glob("*.json"))
OWN = FOLDER / "dl-weight-initialization__deepseek-reasoner.json"

pytestmark = pytest.mark.skipif(
    not SISTERS or not OWN.exists(), reason="the recorded conversations (../shared/transcripts) are absent"
)

UNVERIFIABLE = ("no result was recorded", "the call's own text was cut", "not checked: needs training")


@pytest.mark.parametrize("path", [*SISTERS, OWN], ids=lambda path: path.stem)
def test_nothing_differs(path: Path) -> None:
    """No call of these conversations differs, and what is not verified has one of the allowed reasons."""
    run = replay(path)
    for result in run:
        assert result.verdict != "differs", (result.segment, result.call.step, result.reason)
        if result.verdict == "unverifiable":
            assert result.reason is not None
            assert result.reason.startswith(UNVERIFIABLE)


def test_at_least_95_percent_of_the_verifiable_calls_agree() -> None:
    """Over the twelve sister tasks, and the bulk of the edits is verifiable at all."""
    totals = {"exact": 0, "prefix": 0, "differs": 0, "unverifiable": 0}
    edits = verified = 0
    for path in SISTERS:
        run = replay(path)
        for result in run:
            edits += result.call.tool == "edit"
            verified += result.call.tool == "edit" and result.verdict != "unverifiable"
        for verdict, count in run.counts.items():
            totals[verdict] += count
    agree = totals["exact"] + totals["prefix"]
    assert agree >= 0.95 * (agree + totals["differs"])
    assert agree >= 83
    assert verified >= 0.9 * edits


def test_every_verifiable_call_of_our_own_task_agrees() -> None:
    """Five strategies and two undos: all verified, although the prompt ends in the listing's tenth line."""
    run = replay(OWN)
    verdicts = [(result.call.tool, result.verdict) for result in run]
    assert [verdict for tool, verdict in verdicts if tool == "edit"] == ["prefix"] * 5
    assert [verdict for tool, verdict in verdicts if tool == "undo"] == ["exact"] * 2


def test_leaks_of_the_public_harness() -> None:
    """Read by eye: five of the thirteen conversations show a hidden task in ten replies."""
    found = {
        path.stem: [(leak.segment, leak.step, leak.label) for leak in audit(path).leaks] for path in [*SISTERS, OWN]
    }
    assert {name: leaks for name, leaks in found.items() if leaks} == {
        "causal-treatment-effect__gpt-5.4-pro": [(1, 2, "acic"), (1, 4, "acic"), (2, 2, "acic"), (2, 5, "acic")],
        "quant-graph-stock__gpt-5.4-pro": [(4, 4, "csi300_recent"), (4, 6, "csi300_recent")],
        "quant-portfolio-opt__google--gemini-3.1-pro-preview": [(0, 11, "csi300_recent")],
        "rl-offline-adroit__google--gemini-3.1-pro-preview": [(0, 4, "door-cloned-v1")],
        "rl-offline-continuous__gpt-5.4-pro": [(3, 2, "walker2d-medium-v2"), (3, 4, "walker2d-medium-v2")],
    }
