"""Figures as inline SVG, drawn by matplotlib and coloured by the page's style sheet for light, dark and print.

Baseline and submission differ in colour (Okabe & Ito's palette) and in line style.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec

from markupsafe import Markup, escape

from benchmark.tasks import ACCURACY, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
logging.getLogger("matplotlib").setLevel(logging.ERROR)
"""Where the home folder cannot be written, matplotlib helps itself and says so in two lines nobody needs."""
_KEPT = 64
"""The most drawings that are remembered; each has some ten kilobytes."""

_INK, _MUTED, _GRID, _BASE, _SUB, _BAD, _PAPER = (
    *("#010203", "#010204", "#010205", "#010206", "#010207", "#010208"),
    "#010209",
)
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _GRID: "--line",
    _BASE: "--baseline",
    _SUB: "--submission",
    _BAD: "--bad",
    _PAPER: "--paper",
}
"""Placeholder colours, which are replaced by the page's custom properties."""

_SERIES: tuple[tuple[str, Any, str], ...] = (
    (_SUB, "-", "o"),
    ("#01020a", "-.", "^"),
    ("#01020b", ":", "D"),
    ("#01020c", (0, (6, 1.5)), "v"),
    ("#01020d", (0, (3, 1, 1, 1, 1, 1)), "P"),
    ("#01020e", (0, (1, 1)), "X"),
)
"""Colour, line style and marker of each series."""
_VARIABLES |= {colour: f"--series-{index}" for index, (colour, _, _) in enumerate(_SERIES) if index}

LEAST_POINTS = 5.0
"""The least span of an axis of accuracies, in points: less is noise of one seed, and looks like a landscape."""
_SIZE = (3.9, 2.7)
_SMALL = (3.3, 2.5)
"""Inches, about the width on the page, so that text keeps its size. Three small figures fit in a row."""
_RC: Any = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.parse_math": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.unicode_minus": True,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Line:
    """One curve with its band. The line has a gap where a value is not finite."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    baseline: bool = False
    series: int = 0
    """Index of the line among those that are not the baseline: 0 to 5. It sets colour and style."""
    marker: str = ""
    """Draw the points alone, with this marker (matplotlib's letter), hollow for the baseline; "" joins them."""


@dataclass(frozen=True)
class Drawing:
    """A figure for the page: `svg` is safe HTML."""

    title: str
    svg: Markup
    note: str = ""


def _remembered(draw: Callable[P, Drawing]) -> Callable[P, Drawing]:
    """Keep the last drawings: a page that is made again, as `agent serve` does, mostly has the same ones."""
    kept: OrderedDict[str, Drawing] = OrderedDict()

    @functools.wraps(draw)
    def once(*arguments: P.args, **named: P.kwargs) -> Drawing:
        content = repr((arguments, named))
        drawing = kept.pop(content, None) or draw(*arguments, **named)
        kept[content] = drawing
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        return drawing

    return once


@_remembered
def curves(
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    alt: str,
    note: str = "",
    log: bool = False,
    small: bool = False,
    least_span: float = 0.0,
) -> Drawing:
    """Draw lines over a common axis. With `log`, zeros are drawn as points at the bottom. `small`: three per row.

    The y axis spans at least `least_span`, so that no small difference fills the picture.
    """
    with _style():
        figure, axes = _canvas(x, y, _SMALL if small else _SIZE)
        for line in lines:
            _draw(axes, line, log=log)
        if log:
            _log_scale(axes)
        _widen(axes, least_span)
        _whole_numbers(axes)
        if any(len(line.x) for line in lines) and len(lines) > 1:
            _legend(axes)
        return Drawing(title, _svg(figure, alt), note)


@_remembered
def best_so_far(
    title: str,
    scores: Sequence[tuple[int, float | None, bool]],
    baseline: float | None,
    *,
    alt: str,
    looks: Sequence[tuple[float, bool]] = (),
    note: str = "",
    metric: Metric = ACCURACY,
) -> Drawing:
    """Draw the scores of the tests, and the best so far as a staircase.

    `scores`: (test, mean score or None for a failure, submitted). `looks`: (place between the tests, kept); these
    are marks on the axis, because a look has no comparable score.
    """
    with _style():
        figure, axes = _canvas("test", f"mean visible {metric.name}{', %' if metric.is_accuracy else ''}")
        if baseline is not None:
            axes.axhline(baseline, color=_BASE, linestyle="--", linewidth=1.4, label="baseline")
        known = [(test, score) for test, score, _ in scores if score is not None]
        if known:
            best_of = max if metric.sign > 0 else min
            best = [best_of(score for other, score in known if other <= test) for test, _ in known]
            axes.step([test for test, _ in known], best, where="post", color=_SUB, linewidth=1.6, label="best so far")
            axes.plot(*zip(*known, strict=True), "o", color=_SUB, markersize=5, label="test")
        chosen = [(test, score) for test, score, submitted in scores if submitted and score is not None]
        for test, score in chosen:
            axes.plot(
                [test], [score], "o", mfc="none", color=_INK, markersize=11, markeredgewidth=1.4, label="submitted"
            )
        failed = [test for test, score, _ in scores if score is None]
        if failed:
            floor = axes.get_ylim()[0]
            axes.plot(failed, [floor] * len(failed), "x", color=_BAD, markersize=7, label="failed", clip_on=False)
        for kept, marker, label in ((True, "^", "screened, kept"), (False, "|", "screened, dropped")):
            places = [place for place, verdict in looks if verdict == kept]
            if places:
                at_axis = axes.get_xaxis_transform()
                axes.plot(
                    *(places, [0.03] * len(places), marker),
                    color=_MUTED,
                    markersize=5,
                    label=label,
                    transform=at_axis,
                )
        _widen(axes, LEAST_POINTS if metric.is_accuracy else 0.0)
        _whole_numbers(axes)
        _legend(axes)
        return Drawing(title, _svg(figure, alt), note)


def _draw(axes: Axes, line: Line, *, log: bool) -> None:
    colour, style, marker = (_BASE, "--", "s") if line.baseline else _SERIES[line.series]
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if log:
        zeros = [x for x, y in points if y <= 0]
        points = [(x, y) for x, y in points if y > 0]
        transform = axes.get_xaxis_transform()
        axes.plot(zeros, [0.0] * len(zeros), "v", color=colour, markersize=4, transform=transform, clip_on=False)
    if not points:
        return
    known = dict(points)
    broken = len(known) < len(line.x)
    if line.marker:
        axes.plot(
            *zip(*points, strict=True),
            line.marker,
            color=colour,
            markerfacecolor="none" if line.baseline else colour,
            markersize=4,
            markeredgewidth=0.9,
            label=line.label or None,
        )
        return
    few = len(points) <= 24 or broken  # a point between two gaps is invisible without a marker
    axes.plot(
        line.x,
        [known.get(x, math.nan) for x in line.x],
        color=colour,
        linestyle=style,
        linewidth=1.6,
        marker=marker if few else None,
        markersize=(5 if line.baseline else 3) * (1 if len(line.x) <= 24 else 0.7),
        label=line.label,
    )
    if len(line.low) == len(line.x):
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        if len(points) == 1:  # a band has no width there
            axes.vlines(line.x, line.low, line.high, color=colour, linestyle=style, linewidth=1.2)


def _widen(axes: Axes, least: float) -> None:
    """Make the y axis span at least `least`, around its middle, and not below zero."""
    low, high = axes.get_ylim()
    if high - low < least:
        low = max(0.0, (low + high - least) / 2)
        axes.set_ylim(low, low + least)


def _log_scale(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # Over many decades the locator drops decades. With two numbers per decade it would then drop every label.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 1e6 * low else (1.0,), numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_RC)


def _canvas(x: str, y: str, size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0.03)
    return figure, axes


def _legend(axes: Axes) -> None:
    """Put the legend above the axes, so that it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.legend(
            *(handles, labels),
            loc="outside upper left",
            ncols=min(len(handles), 4),
            frameon=False,
            fontsize=8,
            handlelength=1.8,
            columnspacing=1.1,
        )


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _svg(figure: Figure, alt: str) -> Markup:
    """The drawing as an SVG element of the page, without prologue, ids and fonts."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", drawn)
    drawn = re.sub(r"font-family: [^;\"]*;?", "", drawn)
    drawn = re.sub(r' (?:d|x|y)="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match.group()), drawn)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', drawn)
    body = drawn[drawn.index(">") + 1 :]
    label = escape(alt)
    return Markup('<svg role="img" aria-label="{}" {} xmlns:xlink="http://www.w3.org/1999/xlink">{}').format(
        label, Markup(box.group() if box else ""), Markup(body)
    )
