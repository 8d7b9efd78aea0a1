"""The space of a task file's networks has only numbers that change one of them, and a resumed run keeps its space."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from agent.errors import UsageError
from agent.llm.prompting import ideas_without_effect, own_tasks
from agent.profiles import allowed_profile, as_recorded, recorded_profile
from agent.spaces.base import BuiltIn, networks_of, space_for
from agent.spaces.builtin import KNOBS, ROLES, Parameters, decode
from agent.spaces.rendering import render
from benchmark.networks import build
from benchmark.recipes import load_region
from benchmark.task import Profile
from benchmark.task_loading import load_task_file
from benchmark.tasks import PROFILES
from tests.agent.spaces.test_builtin import EVERYTHING
from tests.benchmark.task_files import write_task

NETWORKS = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2, self.wide, self.narrow = nn.LayerNorm(width), nn.Linear(width, 32), nn.Linear(32, width)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y)[0]
        return x + self.narrow(torch.relu(self.wide(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(12, 16), Block(16), nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.block(self.embed(x.flatten(1, 2))).mean(1))


def transformer(num_classes):
    return Transformer(num_classes)


def resnet20(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, num_classes))
"""
TASK = """\
[[visible]]
network = "net.py:transformer"
data = "toys.npz"
epochs = 1

[[visible]]
network = "net.py:resnet20"
data = "toys.npz"
epochs = 1
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory, processes_shared: None) -> Profile:
    """A transformer whose branches end in no norm, and a plain MLP whose function is called as one of our networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return load_task_file(write_task(tmp_path_factory.mktemp("task"), TASK, NETWORKS))


@pytest.fixture
def mlp(profile: Profile) -> Profile:
    """The MLP alone."""
    return dataclasses.replace(profile, visible=profile.visible[1:])


def changing(profile: Profile) -> set[str]:
    """The numbers and choices that change a weight of a visible network when they alone are moved."""
    found = set()
    names, _ = networks_of(profile.visible)
    moves: list[tuple[str, str, Any]] = [(knob.name, knob.name, getattr(EVERYTHING, knob.name)) for knob in KNOBS]
    moves += [("structure", "structure", "orthogonal"), ("filter_norm", "filter_norm", True)]
    moves += [("dirac_mix", "structure", "dirac_mix")]
    for name, field, value in moves:
        base = Parameters(structure="dirac_mix") if name == "identity_share" else Parameters()
        for task in profile.visible:
            assert task.network is not None
            before, after = build(task.network, 0), build(task.network, 0)
            for model, point in ((before, base), (after, dataclasses.replace(base, **{field: value}))):
                torch.manual_seed(1)
                load_region(render(point, names))(model, {})
            pairs = zip(before.parameters(), after.parameters(), strict=True)
            if not all(torch.equal(one, other) for one, other in pairs):
                found.add(name)
    return found


def test_only_numbers_that_change_a_weight_are_searched(profile: Profile, mlp: Profile) -> None:
    """On an MLP the search tried depthwise gains, gammas of branches and Dirac kernels, and tested the same network."""
    assert changing(profile) == {"structure", "branch_last_alpha", "gamma_last", "gamma_rise"} | {
        "bn_beta",
        "g_hidden",
        "head_scale",
    }
    assert changing(mlp) == {"structure", "g_hidden", "head_scale"}
    for one in (profile, mlp):
        space = BuiltIn.of(one.visible)
        assert set(space.distributions()) == changing(one)
        assert set(space.without_effect()) == {"structure", "filter_norm", *(k.name for k in KNOBS)} - changing(one)
        assert space.distributions()["structure"].choices == ("normal", "orthogonal")  # type: ignore[attr-defined]


def test_no_proposal_moves_an_idle_number(mlp: Profile) -> None:
    """Fifty random points, and the first ones: every number that does nothing keeps its neutral value."""
    space = BuiltIn.of(mlp.visible)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    first = [dict(point) for point in space.first()]
    for point in first:
        study.enqueue_trial(point)
    neutral = dataclasses.asdict(Parameters())
    texts = []
    for _ in range(50):
        text, described = space.point(study.ask(dict(space.distributions())))
        assert {n for n, value in described["parameters"].items() if value != neutral[n]} <= set(space.distributions())
        texts.append(text)
    assert len(set(texts[: len(first)])) == len(first)  # Fixup and GradInit come to the same on an MLP
    assert decode(first[0]) == Parameters(head_scale=0.1)
    assert Parameters() not in [decode(point) for point in first]
    assert "head_scale = 0.1" in texts[0]
    assert "In net.py:resnet20: no residual branches, no layers on skips, head 3." in texts[0]


def test_a_recorded_run_keeps_its_space(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has the roles. A run whose log has none, from before, searches what it searched then."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path))
    logged = json.loads(json.dumps(as_recorded(profile)))
    again = recorded_profile(profile.name, logged)
    assert networks_of(again.visible) == networks_of(profile.visible)
    assert as_recorded(again) == logged

    for task in logged["visible"]:
        del task["network"]["found"]
    old = recorded_profile(profile.name, logged)
    assert as_recorded(old) == logged
    names, roles = networks_of(old.visible)
    assert (names, roles) == (["transformer", "resnet20"], {})
    assert len(BuiltIn.of(old.visible).distributions()) == len(KNOBS) + 2
    goes_on_with = allowed_profile(tmp_path, old, profile)
    assert networks_of(goes_on_with.visible) == (names, {})
    assert ideas_without_effect(goes_on_with) is None
    assert networks_of(allowed_profile(tmp_path, again, profile).visible) == networks_of(profile.visible)

    logged["visible"][0]["network"]["found"] = {"roles": ["evil"], "words": ""}
    with pytest.raises(ValueError, match="found"):
        recorded_profile(profile.name, logged)


@pytest.mark.parametrize("name", PROFILES)
def test_built_in_profiles_have_the_space_that_they_had(name: str) -> None:
    """Their networks have no record of roles, and the table of our own networks decides."""
    visible = PROFILES[name].visible
    space = BuiltIn.of(visible)
    assert networks_of(visible) == ([task.arch for task in visible], {})
    assert space.distributions() == BuiltIn([task.arch for task in visible]).distributions()
    assert {"structure", "filter_norm", "g_conv", "bn_beta", "gamma_last", "gamma_rise"} <= space.distributions().keys()
    assert space.distributions()["structure"].choices == ("normal", "orthogonal", "dirac_mix")  # type: ignore[attr-defined]
    assert {task.arch for task in visible} <= ROLES.keys()


def test_prompts_say_what_the_networks_have(profile: Profile, mlp: Profile) -> None:
    """A language model proposed gains of convolutions for a network without any."""
    assert "net.py:transformer (2 residual branches, no layers on skips, head head)" in own_tasks(profile)[0]
    assert ideas_without_effect(profile) == ["gains of convolutions", "layers on skips", "depthwise convolutions"]
    assert "last gammas of residual branches" in (ideas_without_effect(mlp) or [])
    assert ideas_without_effect(PROFILES["smoke"]) is None


def test_a_network_on_which_nothing_acts_is_refused(mlp: Profile) -> None:
    """A search would have tested copies of the baseline."""
    network = mlp.visible[0].network
    assert network is not None
    assert network.found is not None
    bare = dataclasses.replace(network, found=dataclasses.replace(network.found, roles=()))
    with pytest.raises(UsageError, match="nothing to search; give --start FILE"):
        space_for(None, "", (dataclasses.replace(mlp.visible[0], network=bare),))
