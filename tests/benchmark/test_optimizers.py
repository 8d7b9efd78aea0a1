"""The optimisers and schedules of recipes against torch's own classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmark.augment import crop, pad_images
from benchmark.optimizers import ScheduledOptimizer, factor, make_optimizer
from benchmark.sgd import CosineSgd
from benchmark.task import Recipe


def _trained(recipe: Recipe, steps: int, *, by_torch: bool) -> tuple[list[torch.Tensor], list[float]]:
    """Weights after `steps` steps an epoch, and the learning rate of each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs, labels = torch.randn(16, 6), torch.arange(16) % 3
    rates: list[float] = []
    if by_torch:
        options: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
        theirs = (
            torch.optim.AdamW(model.parameters(), betas=(recipe.momentum, 0.999), foreach=False, **options)
            if recipe.optimizer == "adamw"
            else torch.optim.SGD(model.parameters(), momentum=recipe.momentum, foreach=False, **options)
        )
        warm = recipe.warmup_epochs * steps

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return factor(recipe, max(recipe.warmup_epochs, step // steps))

        schedule = torch.optim.lr_scheduler.LambdaLR(theirs, share)
    else:
        ours = make_optimizer(model.parameters(), recipe, steps_per_epoch=steps, fused=False)
    for _ in range(recipe.epochs):
        for _ in range(steps):
            loss = F.cross_entropy(model(inputs), labels)
            if by_torch:
                theirs.zero_grad()
                torch.autograd.backward(loss)
                rates.append(theirs.param_groups[0]["lr"])
                theirs.step()
                schedule.step()
            else:
                ours.begin_step()
                ours.forget_gradients()
                torch.autograd.backward(loss)
                rates.append(ours.lr)
                ours.step()
        if not by_torch:
            ours.end_epoch()
    return [parameter.detach() for parameter in model.parameters()], rates


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 1.0, 0.5])
def test_as_torch_does(optimizer: str, schedule: str, warmup: float) -> None:
    recipe = Recipe(epochs=3, lr=0.05, optimizer=optimizer, schedule=schedule, warmup_epochs=warmup)  # type: ignore[arg-type]
    ours, theirs = (_trained(recipe, 4, by_torch=by_torch) for by_torch in (False, True))
    assert ours[1] == pytest.approx(theirs[1])
    for mine, other in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(mine, other)


def test_our_own_recipe_keeps_its_class() -> None:
    weights = [nn.Parameter(torch.zeros(2))]
    assert isinstance(make_optimizer(weights, Recipe(epochs=2, lr=0.1), steps_per_epoch=1, fused=False), CosineSgd)
    other = make_optimizer(weights, Recipe(epochs=2, lr=0.1, schedule="linear"), steps_per_epoch=1, fused=False)
    assert isinstance(other, ScheduledOptimizer)


def test_a_schedule_ends_where_it_should() -> None:
    for schedule, end in (("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)):
        recipe = Recipe(epochs=10, lr=1.0, schedule=schedule, warmup_epochs=2.0)  # type: ignore[arg-type]
        assert math.isclose(factor(recipe, 10), end, abs_tol=1e-12)
        assert factor(recipe, 2) == 1.0
        assert factor(recipe, 1) == 0.5


def test_no_augmentation_leaves_pictures_alone() -> None:
    images = torch.randint(0, 256, (5, 1, 6, 4), dtype=torch.uint8)
    picks = torch.tensor([3, 1])
    found = crop(pad_images(images, 0), picks, torch.rand(3, 2, 1), 0, flip=False)
    assert torch.equal(found, images[picks])
