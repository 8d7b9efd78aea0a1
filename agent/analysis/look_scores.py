"""Turns the looks of screening into one score per candidate."""

from __future__ import annotations

from collections.abc import Iterable

from scipy.special import ndtri


def look_scores(looks: Iterable[tuple[str, int, float | None]]) -> dict[str, float]:
    """From (hash of a region, rung, held-out loss in nats): hash → normal score, larger for a better look.

    Only the longest look of each candidate counts. A look without a loss was rejected and does not count. Candidates
    are ranked by the length of that look, then by loss. Rank r of n has the score −Φ⁻¹((r − 3/8)/(n + 1/4))
    (Blom 1958). Scores have mean 0 and SD about 1, so losses on any scale can be compared with gains.
    """
    longest: dict[str, tuple[int, float]] = {}
    for digest, rung, loss in looks:
        if loss is not None and rung >= longest.get(digest, (0, loss))[0]:
            longest[digest] = (rung, loss)
    order = sorted(longest, key=lambda digest: (-longest[digest][0], longest[digest][1]))
    places = ((digest, (rank - 0.375) / (len(order) + 0.25)) for rank, digest in enumerate(order, start=1))
    return {digest: -float(ndtri(place)) for digest, place in places}
