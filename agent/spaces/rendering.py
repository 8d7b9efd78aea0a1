"""The region code of a point of the built-in space, and its description in one line."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable

from agent.spaces.builtin import Parameters, is_foreign
from agent.spaces.literals import readable
from prompts import environment


def render(parameters: Parameters, architectures: Iterable[str] | None = None, seen: Iterable[str] = ()) -> str:
    """The point as region code: Python that ends in a newline and contains only the ideas that the point uses.

    Its numbers have names and `# scale:` comments, so `agent.spaces.literals` or a language model can vary them.
    For `architectures` with a network that is not this project's, the code reads all roles from the module graph, and
    every number is relative to the weights that the network's constructors drew. The neutral point changes nothing.
    `seen` are lines for the code's docstring on what the graphs of the visible networks show.
    """
    if is_foreign(architectures):
        return _render_foreign(parameters, seen)
    changes_gamma = _changes_gamma(parameters)
    changes_branch_end = parameters.branch_last_alpha != 0 or changes_gamma or parameters.bn_beta != 0
    neutral = dataclasses.replace(
        Parameters(), structure=parameters.structure, identity_share=parameters.identity_share
    )
    return _from_template(
        "strategy.py.j2",
        parameters,
        describe(parameters),
        details=_details(parameters),
        changes_branch_end=changes_branch_end,
        uses_branches=changes_branch_end or parameters.shortcut_gain != 1,
        rescales=parameters != neutral,
    )


def _render_foreign(parameters: Parameters, seen: Iterable[str]) -> str:
    neutral = Parameters()
    by_role = ("shortcut_gain", "branch_last_alpha", "gamma_last", "gamma_rise", "bn_beta", "g_hidden", "head_scale")
    uses_roles = any(getattr(parameters, name) != getattr(neutral, name) for name in by_role)
    if parameters == neutral:
        return _FOREIGN_NEUTRAL
    helpers = helper_functions()
    source = "\n\n".join(helpers if uses_roles else [helpers[1]])
    quoted = textwrap.wrap(" ".join(seen).replace("\\", "/").replace('"', "'"), 112) if uses_roles else []
    return _from_template(
        "strategy_any.j2",
        parameters,
        describe(parameters, base="as built"),
        source=source,
        details=[_FOREIGN_BASE, *_details(parameters)[1:], *quoted],
        uses_roles=uses_roles,
    )


def _from_template(name: str, parameters: Parameters, description: str, **more: object) -> str:
    """The region text by this template, with what both templates need."""
    factors = ["conv_gain"] * (parameters.g_conv != 1)
    factors += ["math.exp(depth_slope * (index / len(convs) - 0.5))"] * (parameters.depth_slope != 0)
    return (
        environment()
        .get_template(name)
        .render(
            p=parameters,
            numbers=_numbers(parameters),
            summary=textwrap.wrap(description[0].upper() + description[1:] + ".", 112),
            conv_factor=" * ".join(factors),
            changes_gamma=_changes_gamma(parameters),
            **more,
        )
    )


def _changes_gamma(parameters: Parameters) -> bool:
    return parameters.gamma_last != 1 or parameters.gamma_rise != 0


def helper_functions() -> list[str]:
    """The source of this project's own functions that stand in regions for other people's networks."""
    from benchmark import roles

    functions = (roles.is_norm, roles.is_layer, roles.network_roles)
    return [re.sub(r"  # (type: ignore|noqa: BLE001)[^\n]*", "", inspect.getsource(one)) for one in functions]


_FOREIGN_BASE = "Base: the weights that the network's own constructors drew. Every number is relative to them."
_FOREIGN_NEUTRAL = '''def initialize_weights(model, config):
    """As built: the weights that the network's own constructors drew."""
'''


def describe(parameters: Parameters, *, base: str = "kaiming normal") -> str:
    """Describe the point in one line, such as "kaiming normal, branch ends × L^-0.5, last γ 0, head × 0.1".

    `base` is what the normal structure is called.
    """
    parts = {
        "filter_norm": "filters of equal norm",
        "g_conv": "convolutions × {}",
        "depth_slope": "× exp({}·(l/L − ½)) along depth",
        "g_depthwise": "depthwise gain {}",
        "shortcut_gain": "convolutions on skips × {}",
        "branch_last_alpha": "branch ends × L^-{}",
        "gamma_last": "last γ {}",
        "gamma_rise": "last γ rising by {}·√((i + 1)/L)",
        "bn_beta": "norm biases {}",
        "g_hidden": "hidden Linear × {}",
        "head_scale": "head × {}",
    }
    starts = {"normal": base, "orthogonal": "orthogonal"}
    start = starts.get(parameters.structure, f"{base} mixed with {parameters.identity_share:.3g} identity")
    neutral = Parameters()
    changed = [name for name in parts if getattr(parameters, name) != getattr(neutral, name)]
    return ", ".join([start, *(parts[name].format(f"{getattr(parameters, name):.3g}") for name in changed)])


# Name in the code, and the range that `agent.spaces.literals` reads back. A log range cannot contain zero.
_NAMES = {
    "g_conv": ("conv_gain", "0.35..2.83 log"),
    "depth_slope": ("depth_slope", "-1..1 linear"),
    "g_depthwise": ("depthwise_gain", "0.05..2 log"),
    "shortcut_gain": ("skip_gain", "0.5..2 log"),
    "branch_last_alpha": ("branch_exponent", "0..1 linear"),
    "gamma_last": ("last_gamma", "0..1 linear"),
    "gamma_rise": ("gamma_rise", "0..0.5 linear"),
    "bn_beta": ("norm_beta", "-0.2..0.3 linear"),
    "g_hidden": ("hidden_gain", "0.5..2 log"),
    "head_scale": ("head_scale", "0.02..1.5 log"),
}

_SOURCES = {
    "orthogonal": "Orthogonal filters: Saxe et al. 2013, gain √2 for ReLU.",
    "dirac_mix": "The identity share: after Zagoruyko & Komodakis 2017, DiracNets, section 3.",
    "branch_last_alpha": "L^-α at the end of each of L branches: after Zhang et al. 2019, Fixup, section 3.",
    "gamma_last": "A small last γ starts blocks near their skip: Goyal et al. 2017, section 5.1.",
    "head_scale": "A small head makes the first predictions nearly uniform: Zhang et al. 2019, Fixup, rule 1.",
}


def _numbers(parameters: Parameters) -> list[str]:
    """The assignments at the top of the function."""
    lines = []
    if parameters.structure == "dirac_mix":
        lines.append(f"identity_share = {readable(parameters.identity_share)}  # scale: 0.05..0.95 linear")
    neutral = Parameters()
    for name, (variable, scale) in _NAMES.items():
        value = getattr(parameters, name)
        if value != getattr(neutral, name):
            law = "0..1.5 linear" if name == "head_scale" and value == 0 else scale
            lines.append(f"{variable} = {readable(value)}  # scale: {law}")
    return lines


def _details(parameters: Parameters) -> list[str]:
    """Lines of the docstring: the base, and the source of each idea that is used."""
    neutral = Parameters()
    lines = ["Base: He et al. 2015 (fan_out for convolutions, fan_in for Linear layers); norms (1, 0), biases 0."]
    for name, source in _SOURCES.items():
        if parameters.structure == name or (
            hasattr(neutral, name) and getattr(parameters, name) != getattr(neutral, name)
        ):
            lines.append(source)
    return lines
