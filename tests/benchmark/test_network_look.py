"""What a first look at a user's network and pictures tells their author."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.data.arrays import in_form
from benchmark.data.pixels import pixel_lines
from benchmark.data.prepared import load_prepared, prepare
from benchmark.network_look import called_by_place, gives_probabilities, why_untraced
from benchmark.networks import Network


def build(num_classes: int) -> None: ...
def other(**options: int) -> None: ...
def first(classes: int, width: int = 3) -> None: ...
def second(width: int = 3, n_classes: int = 6) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (build, None),
        (other, None),
        (first, "called as f(6), so classes = 6: it has no argument named num_classes"),
        (
            second,
            "called as f(6), so width = 6: it has no argument named num_classes; "
            "write def build(num_classes): return f(n_classes=num_classes)",
        ),
    ],
)
def test_a_call_by_place_is_said(function: Any, said: str | None) -> None:
    """ShapeNet(width=16, n_classes=6) became a network with six channels, and nothing told."""
    assert called_by_place(Network("net.py:f", 6), function) == said


class _Untraced(nn.Module):
    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.run = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(x)


@pytest.mark.parametrize(
    ("forward", "said", "hint"),
    [
        (lambda x: x.view(len(x), -1), "RuntimeError: 'len' is not supported", "write x.shape[0] instead of len(x)"),
        (lambda x: x if x.mean() > 0 else -x, "TraceError: symbolically", "decide by a number of the module's own"),
        (lambda x: x.view(*x.shape), "TraceError: Proxy object", "take sizes one by one"),
        (lambda x: x * float(x.shape[1]), "TypeError", "take the number from the module's own"),
    ],
)
def test_what_torch_fx_cannot_trace_is_said_with_the_line(forward: Any, said: str, hint: str) -> None:
    told = why_untraced(_Untraced(forward))
    assert told is not None
    assert told.startswith(said)
    assert "(test_network_look.py line " in told
    assert "lambda x: x" in told
    assert hint in told


def test_nothing_is_said_of_a_network_that_can_be_traced() -> None:
    assert why_untraced(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))) is None


def test_a_softmax_before_the_loss_is_noticed() -> None:
    """Such a network learns slowly, and no initialisation that is found is one for the network without it."""
    body, network = [nn.Flatten(), nn.Linear(4, 3)], Network("net.py:f", 3, (1, 2, 2))
    assert gives_probabilities(network, nn.Sequential(*body, nn.Softmax(dim=1)))
    assert not gives_probabilities(network, nn.Sequential(*body))
    assert not gives_probabilities(network, nn.Sequential(*body, nn.Sigmoid()))
    assert not gives_probabilities(network, nn.Sequential(*body, nn.LogSoftmax(dim=1)))


def told(pictures: Any, monkeypatch: pytest.MonkeyPatch, cache: Any) -> list[str]:
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    labels = np.arange(len(pictures)) % 2
    found = {"train_images": pictures, "train_labels": labels, "test_images": pictures, "test_labels": labels}
    return pixel_lines(load_prepared(prepare(in_form(found, "x"))))


def test_floats_that_nobody_normalised_are_noticed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats from 0 to 255 were trained on as they are, and only a poor accuracy showed it."""
    pictures = np.zeros((20, 3, 4, 4), np.float32)
    pictures[::2, 0], pictures[::2, 1] = 250, 100
    line, warning = told(pictures, monkeypatch, tmp_path)
    assert line == "pixels 0…250: mean 125 / 50 / 0, SD 125 / 50 / 0; training takes them as they are"
    assert 'warning: these float32 pictures are not normalised: save them with .astype("uint8"), or' in warning
    assert len(told(pictures / 125 - 1, monkeypatch, tmp_path)) == 1
    (line,) = told(pictures[:, :1].astype(np.uint8), monkeypatch, tmp_path)
    assert line == "pixels 0…255: mean 125, SD 125; training normalises each channel by these"
