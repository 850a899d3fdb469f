"""Learning rates, written out."""

from typing import Any

import numpy as np
import pytest
import torch

from bat_dist.settings.fields import changed
from bat_dist.training.recipe import RECIPES, Recipe, learning_rate


def test_the_paper_drops_by_a_tenth_at_epochs_80_and_120() -> None:
    paper = RECIPES["paper"]
    assert (paper.epochs, paper.batch_size, paper.lr, paper.momentum, paper.weight_decay) == (
        160,
        128,
        0.1,
        0.9,
        5e-4,
    )
    per_epoch = 391
    rates = [learning_rate(paper, step=epoch * per_epoch, num_steps=160 * per_epoch) for epoch in range(160)]
    np.testing.assert_allclose(rates, [0.1] * 80 + [0.01] * 40 + [0.001] * 40)
    assert learning_rate(paper, step=80 * per_epoch - 1, num_steps=160 * per_epoch) == pytest.approx(0.1)


def test_one_cycle_is_two_straight_lines() -> None:
    recipe = Recipe(epochs=1, batch_size=1, lr=0.4, schedule="one_cycle", warmup=0.25)
    rates = [learning_rate(recipe, step=step, num_steps=7) for step in range(7)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.4 * 5 / 6, 0.4 * 4 / 6, 0.4 * 3 / 6, 0.4 * 2 / 6, 0.4 / 6])


def test_cosine_after_a_linear_warm_up_is_that_of_torch() -> None:
    recipe = Recipe(epochs=5, batch_size=1, lr=0.4, schedule="cosine", warmup_epochs=1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.4)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 4, total_iters=3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=16)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[4])
    for step in range(20):
        assert learning_rate(recipe, step=step, num_steps=20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()


def test_drops_after_a_warm_up_stay_at_their_epochs() -> None:
    recipe = Recipe(epochs=4, batch_size=1, lr=1.0, schedule="multistep", milestones=(0.5,), warmup_epochs=1)
    rates = [learning_rate(recipe, step=step, num_steps=8) for step in range(8)]
    np.testing.assert_allclose(rates, [0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "one_cycle"}, "one_cycle begins with a warm-up itself"),
        ({"warmup_epochs": 4}, "warmup_epochs must be less than the 4 epochs, got 4"),
    ],
)
def test_warm_ups_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"epochs": 4, "batch_size": 1, "lr": 1.0, "schedule": "cosine", "warmup_epochs": 1, **changes})


def test_identities_of_earlier_versions_stay() -> None:
    assert list(RECIPES["fast"].facts) == [
        *("epochs", "batch_size", "lr", "schedule", "weight_decay", "momentum", "nesterov", "warmup", "milestones"),
        "label_smoothing",
    ]
    asked = changed(RECIPES["paper"], optimizer="adamw", schedule="cosine", warmup_epochs=2.0)
    assert {**asked.facts} == {
        **RECIPES["paper"].facts,
        **{"lr": 1e-3, "weight_decay": 0.01, "schedule": "cosine", "milestones": ()},
        **{"optimizer": "adamw", "warmup_epochs": 2.0},
    }
    assert changed(RECIPES["paper"], optimizer="adamw", lr=0.1).lr == 0.1
