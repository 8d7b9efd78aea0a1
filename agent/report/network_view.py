"""Shows the measured networks as figures and as tables of how each group of parameters is initialised."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.report.plotting import Drawing, Line, curves
from agent.runs.log_lines import Fields
from agent.runs.untrusted import mapping, mappings, number, text

_ROLES = ("baseline", "submission")
_MARKERS = (("o", "●"), ("^", "▲"), ("D", "◆"), ("s", "■"), ("P", "✚"))
Point = tuple[str, float | None]
"""A layer's kind and its number; None when it is not finite."""


@dataclass(frozen=True)
class RuleRow:
    """Parameters of one role: their number, and how baseline and submission initialise them, in words."""

    role: str
    count: int
    baseline: str
    submission: str

    @property
    def changed(self) -> bool:
        """Whether submission and baseline differ here."""
        return self.baseline != self.submission


@dataclass(frozen=True)
class NetworkView:
    """One task's network at step 0."""

    task: str
    errors: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    rules: tuple[RuleRow, ...]
    facts: tuple[tuple[str, str, str], ...]
    """(what, baseline, submission)"""


def network_views(measured: Fields, label: str) -> list[NetworkView]:
    """A view for each task that `agent.report.network` measured; `label` names the submission."""
    views = []
    for task, roles in mapping(measured.get("tasks")).items():
        sides = {role: mapping(mapping(roles).get(role)) for role in _ROLES}
        errors = tuple(f"{role}: {text(side['error'])}" for role, side in sides.items() if side.get("error"))
        whole = {role: side for role, side in sides.items() if not side.get("error") and side}
        views.append(
            NetworkView(
                task=text(task),
                errors=errors,
                drawings=tuple(_drawings(text(task), whole, label)) if whole else (),
                rules=tuple(_rules(whole)) if len(whole) == len(_ROLES) else (),
                facts=tuple(_facts(whole)) if len(whole) == len(_ROLES) else (),
            )
        )
    return views


def _drawings(task: str, sides: dict[str, Fields], label: str) -> list[Drawing]:
    weights = {role: [(_kind(p), number(p.get("std"))) for p in _weights(side)] for role, side in sides.items()}
    forward = {role: _layers(side, "activation_scale") for role, side in sides.items()}
    backward = {role: _layers(side, "gradient_scale") for role, side in sides.items()}
    plots = (
        ("Weights", "std of the weights", weights),
        ("Forward", "RMS of the output", forward),
        ("Backward", "RMS of the gradient", backward),
    )
    return [_figure(f"{title}: {task}", y, values, label) for title, y, values in plots if any(values.values())]


def _figure(title: str, y: str, values: dict[str, list[Point]], label: str) -> Drawing:
    """A point for each layer, its marker by its kind: unlike layers have unlike scales, so no line joins them."""
    kinds = list(dict.fromkeys(kind for series in values.values() for kind, _ in series))
    lines = []
    for role, series in values.items():
        names = iter(["baseline" if role == "baseline" else label])
        for kind in kinds:
            chosen = [(place, value) for place, (of, value) in enumerate(series, start=1) if of == kind]
            if chosen:
                lines.append(
                    Line(
                        label=next(names, ""),
                        x=[place for place, _ in chosen],
                        y=[float("nan") if value is None else value for _, value in chosen],
                        baseline=role == "baseline",
                        marker=_marker(kind, kinds)[0],
                    )
                )
    sides = ("baseline" if role == "baseline" else label for role in values)
    described = "; ".join(f"{side} {_span(series)}" for side, series in zip(sides, values.values(), strict=True))
    every = [value for series in values.values() for _, value in series]
    note = " ".join(
        [
            ", ".join(f"{_marker(kind, kinds)[1]} {kind or 'layer'}" for kind in kinds) + ".",
            *(["▾ at the bottom: exactly zero."] if 0 in every else []),
            *(["Missing: not finite."] if None in every else []),
        ]
    )
    alt = f"{title}, {y} by layer: {described}"
    return curves(title, lines, x="layer, input to output", y=y, alt=alt, note=note, log=True, small=True)


def _marker(kind: str, kinds: Sequence[str]) -> tuple[str, str]:
    """Matplotlib's letter and the character for a kind; kinds beyond the list of markers share the last."""
    return _MARKERS[min(kinds.index(kind), len(_MARKERS) - 1)]


def _span(series: Sequence[Point]) -> str:
    known = [value for _, value in series if value is not None]
    return f"{min(known):.2g} to {max(known):.2g}" if known else "has no finite value"


def _layers(side: Fields, name: str) -> list[Point]:
    kinds = {text(p.get("name")).removesuffix(".weight"): _kind(p) for p in _weights(side)}
    layers = mappings(mapping(side.get("signal")).get("layers"))
    return [(kinds.get(text(layer.get("name")), text(layer.get("kind"))), number(layer.get(name))) for layer in layers]


def _kind(parameter: Fields) -> str:
    """What a weight belongs to, such as `depthwise convolution`."""
    return text(parameter.get("role")).removesuffix(" weight")[:40]


def _weights(side: Fields) -> list[Fields]:
    return [p for p in mappings(side.get("parameters")) if len(p.get("shape") or []) > 1]


def _rules(sides: dict[str, Fields]) -> list[RuleRow]:
    """Rows by role and by both initialisations, so the last layers of branches have a row of their own."""
    groups: dict[tuple[str, str, str], int] = {}
    before = {text(p.get("name")): p for p in mappings(sides["baseline"].get("parameters"))}
    for parameter in mappings(sides["submission"].get("parameters")):
        old = before.get(text(parameter.get("name")), {})
        changed = _words(old) != _words(parameter)
        factor = _factor(old, parameter)
        key = (text(parameter.get("role")), _words(old), f"{_words(parameter)}{factor}" if changed else _words(old))
        groups[key] = groups.get(key, 0) + 1
    return [RuleRow(role, count, old, new) for (role, old, new), count in sorted(groups.items())][:40]


def _words(parameter: Fields) -> str:
    if parameter.get("own") is True:
        return "the network's own"
    constant, ratio = number(parameter.get("constant")), number(parameter.get("kaiming_ratio"))
    if constant is not None:
        return f"{constant:g}"
    if ratio is not None:
        return f"random, {_round(ratio)} × Kaiming"
    return "random" if parameter else "–"


def _round(ratio: float) -> str:
    """At most two significant digits, so that layers which differ only by chance fall into one group."""
    return f"{ratio:.1g}" if ratio < 0.1 else f"{round(ratio, 1):g}"


def _factor(old: Fields, new: Fields) -> str:
    before, after = number(old.get("std")), number(new.get("std"))
    return f" ({after / before:.2g} × baseline)" if before and after else ""


def _facts(sides: dict[str, Fields]) -> list[tuple[str, str, str]]:
    signals = [mapping(sides[role].get("signal")) for role in _ROLES]
    rows: list[tuple[str, list[Any]]] = [
        ("first loss (guessing: " + _number(signals[0].get("uniform_loss")) + ")", [s.get("loss") for s in signals]),
        ("scale of the logits", [s.get("logit_scale") for s in signals]),
        ("dead ReLU channels, %", [_percent(s.get("dead_relu_share")) for s in signals]),
        ("branch over skip, median", [_branches(s) for s in signals]),
        ("largest relative first gradient", [_largest(s) for s in signals]),
    ]
    return [
        (what, _number(values[0]), _number(values[1])) for what, values in rows if any(v is not None for v in values)
    ]


def _branches(signal: Fields) -> float | None:
    values = [number(branch.get("branch_to_skip")) for branch in mappings(signal.get("branches"))]
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _largest(signal: Fields) -> float | None:
    values = [number(layer.get("relative_gradient")) for layer in mappings(signal.get("layers"))]
    return max((value for value in values if value is not None), default=None)


def _percent(value: object) -> float | None:
    share = number(value)
    return None if share is None else 100 * share


def _number(value: object) -> str:
    known = number(value)
    return "not finite" if known is None else f"{known:.3g}"
