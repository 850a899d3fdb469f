"""GAIRAT's weights, loss and schedule are the published ones (tests/golden/02_gairat.npz)."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.methods.gairat import Gairat, geometry_weights, normalized
from tests.methods.near import assert_near, gradients, leaf

VECTORS = dict(np.load(Path(__file__).parents[1] / "golden" / "02_gairat.npz"))
FUNCTIONS = {"tanh": "Tanh", "sigmoid": "Sigmoid", "discrete": "Discrete"}
TOLERANCE = 1e-11
by_function = pytest.mark.parametrize("function", FUNCTIONS)


def weights_of(kappa, dtype=torch.float64, **settings):
    return normalized(geometry_weights(torch.as_tensor(kappa, dtype=dtype), **settings))


def at_start(function, lambda_):
    """Reweighting from the first epoch on."""
    return Gairat(function=function, begin=0.0, final_lambda=lambda_)


@pytest.mark.parametrize("num_steps", [int(k) for k in VECTORS["curve.num_steps"]])
@by_function
def test_weights_by_kappa(function, num_steps):
    golden = f"curve.K{num_steps}"
    settings = {"num_steps": num_steps, "function": function}
    for lambda_, expected in zip(
        VECTORS["curve.lambdas"], VECTORS[f"{golden}.{FUNCTIONS[function]}.weights"], strict=True
    ):
        kappa = VECTORS[f"{golden}.kappa"]
        assert_near(weights_of(kappa, lambda_=float(lambda_), **settings), expected, TOLERANCE)
        single = weights_of(kappa, torch.float32, lambda_=float(lambda_), **settings).cpu().numpy()
        np.testing.assert_allclose(single, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lambda_", [-1, 0, 2])
@by_function
def test_loss_of_a_batch(function, lambda_):
    golden, kappa = f"batch.{FUNCTIONS[function]}.lambda{lambda_}", torch.tensor(VECTORS["batch.kappa"])
    labels = torch.tensor(VECTORS["batch.y"])
    assert_near(
        weights_of(kappa, num_steps=10, lambda_=lambda_, function=function), VECTORS[f"{golden}.weights"], TOLERANCE
    )
    for dtype, tol in ((torch.float64, TOLERANCE), (torch.float32, 1e-5)):
        logits = leaf(VECTORS["batch.logits_adv"], dtype)
        loss = at_start(function, lambda_).objective(logits, labels, kappa.long(), num_steps=10, progress=0.0)
        assert_near(loss.detach(), VECTORS[f"{golden}.loss"], tol)
        assert_near(gradients(loss, logits)[0], VECTORS[f"{golden}.dlogits"], tol)


def test_loss_before_the_reweighting_begins():
    logits, labels = leaf(VECTORS["batch.logits_adv"]), torch.tensor(VECTORS["batch.y"])
    kappa = torch.tensor(VECTORS["batch.kappa"]).long()
    loss = Gairat().objective(logits, labels, kappa, num_steps=10, progress=0.49)
    assert_near(loss.detach(), VECTORS["batch.before_begin.loss"], TOLERANCE)
    assert_near(gradients(loss, logits)[0], VECTORS["batch.before_begin.dlogits"], TOLERANCE)


@pytest.mark.parametrize("kappa", [0, 5, 10])
def test_equal_distances_have_equal_weights(kappa):
    expected = VECTORS[f"equal.kappa{kappa}.weights"]
    for row, function in zip(expected, ["tanh", "sigmoid", "discrete"], strict=True):
        assert_near(weights_of([kappa] * len(row), num_steps=10, lambda_=-1.0, function=function), row, TOLERANCE)


@pytest.mark.parametrize("initial", [math.inf, 3])
@pytest.mark.parametrize("epochs", [120, 100])
def test_schedules(epochs, initial):
    """The published `piecewise` is `fixed`: its later stages are never reached."""
    begin = {120: 60, 100: 30}[epochs] / epochs
    epoch1 = [int(epoch) for epoch in VECTORS["sched.epoch1"] if epoch <= epochs]

    def lambdas(schedule):
        method = Gairat(schedule=schedule, begin=begin, initial_lambda=initial, final_lambda=-1.0)
        return [method.lambda_at(epoch / epochs) for epoch in epoch1]

    golden = {name: VECTORS[f"sched.E{epochs}.{name}.max{initial}"] for name in ("fixed", "linear", "piecewise")}
    np.testing.assert_array_equal(lambdas("fixed"), golden["fixed"])
    np.testing.assert_array_equal(lambdas("fixed"), golden["piecewise"])
    if initial == math.inf:
        assert np.isnan(golden["linear"]).any()
        with pytest.raises(ValueError, match="schedule linear needs finite lambdas, got initial_lambda inf"):
            lambdas("linear")
    else:
        assert_near(lambdas("linear"), golden["linear"], TOLERANCE)
