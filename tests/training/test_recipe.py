"""Learning rates, written out."""

import numpy as np
import pytest

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
