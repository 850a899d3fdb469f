"""GAIRAT: when it begins, and what weights promise."""

import math

import pytest
import torch

from bat_dist.methods.gairat import Gairat, geometry_weights, normalized
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.training.recipe import RECIPES, learning_rate
from tests.methods.near import gradients


def test_it_begins_with_the_first_drop_of_the_learning_rate():
    """Sec. 5: 160 epochs, drops at 80 and 120."""
    recipe = RECIPES["paper"]
    for epoch in range(recipe.epochs):
        dropped = learning_rate(recipe, step=epoch, num_steps=recipe.epochs) < recipe.lr
        assert Gairat().lambda_at(epoch / recipe.epochs) == (-1 if dropped else math.inf)
    assert Gairat().lambda_at(79 / 160) == math.inf
    assert Gairat().lambda_at(80 / 160) == -1


@pytest.mark.parametrize("function", ["tanh", "sigmoid", "discrete"])
def test_before_it_begins_it_is_pgd_at_bit_for_bit(function):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 4, generator=random).requires_grad_()
    labels, kappa = torch.randint(4, (32,), generator=random), torch.randint(11, (32,), generator=random)
    results = []
    for loss in (
        Gairat(function=function).objective(logits, labels, kappa, num_steps=10, progress=0.4),
        PgdAt().objective(logits, labels),
    ):
        logits.grad = None
        results.append((loss.detach(), *gradients(loss, logits)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("function", ["tanh", "sigmoid", "discrete"])
@pytest.mark.parametrize("num_steps", [2, 3, 7, 10])
@pytest.mark.parametrize("lambda_", [-20.0, -1.0, 3.0, math.inf])
def test_weights_fall_with_kappa_and_sum_to_the_number_of_samples(function, num_steps, lambda_):
    kappa = torch.arange(num_steps + 1)
    raw = geometry_weights(kappa, num_steps=num_steps, lambda_=lambda_, function=function)
    assert (raw > 0).all()
    assert (raw.diff() <= 0).all()
    assert normalized(raw).sum().item() == pytest.approx(num_steps + 1)


def test_kappa_that_is_not_of_the_batch_is_refused():
    with pytest.raises(ValueError, match=r"kappa must have one value per label, shape \(2,\), got \(3,\)"):
        Gairat().objective(torch.zeros(2, 3), torch.zeros(2).long(), torch.zeros(3), num_steps=10, progress=0.0)


def test_one_step_is_refused_before_training_begins():
    with pytest.raises(ValueError, match="num_steps must be at least 2 for gairat, got 1"):
        Gairat().check_attack(1)
    Gairat().check_attack(2)
    Gairat(begin=1.0).check_attack(1)  # which never weighs
    Gairat(final_lambda=math.inf).check_attack(1)
    with pytest.raises(ValueError, match="num_steps must be at least 2"):
        Gairat(initial_lambda=0.0, begin=1.0).check_attack(1)


def test_one_step_gives_no_geometry():
    with pytest.raises(ValueError, match="num_steps must be at least 2, got 1"):
        geometry_weights(torch.tensor([0, 1]), num_steps=1, lambda_=-1.0, function="tanh")
