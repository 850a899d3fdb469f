"""PGD-AT, TRADES and MART give what the published implementations give (tests/golden/01_losses.npz)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.methods.mart import Mart, boosted_cross_entropy, weighted_kl
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.terms import cross_entropy, largest_wrong, softmax
from bat_dist.methods.trades import Trades, robust_kl
from tests.methods.near import assert_near, gradients, leaf

VECTORS = dict(np.load(Path(__file__).parents[1] / "golden" / "01_losses.npz"))
CASES = [str(case) for case in VECTORS["cases"]]
PRECISIONS = [torch.float64, torch.float32]
by_case = pytest.mark.parametrize("case", CASES)
by_precision = pytest.mark.parametrize("dtype", PRECISIONS)


def inputs(case, dtype=torch.float64):
    labels = torch.tensor(VECTORS[f"{case}.y"])
    return leaf(VECTORS[f"{case}.logits_nat"], dtype), leaf(VECTORS[f"{case}.logits_adv"], dtype), labels


def tolerance(case, dtype, method=""):
    if dtype == torch.float64:
        return 1e-10
    return 1e-3 if (method, case) == ("mart", "sharp") else 1e-5


def test_all_cases_are_here():
    assert CASES == ["plain", "fitted", "misfit", "sharp", "same", "c100", "single"]


@by_precision
@by_case
def test_pgd_at(case, dtype):
    _, adv, labels = inputs(case, dtype)
    tol = tolerance(case, dtype)
    assert_near(cross_entropy(adv, labels).detach(), VECTORS[f"{case}.ce_per_sample_adv"], tol)
    loss = PgdAt().objective(adv, labels)
    assert_near(loss.detach(), VECTORS[f"{case}.madry.loss"], tol)
    if dtype == torch.float64:
        assert_near(gradients(loss, adv)[0], VECTORS[f"{case}.madry.dlogits_adv"], tol)


@by_precision
@pytest.mark.parametrize("beta", [1, 5, 6])
@by_case
def test_trades(case, beta, dtype):
    nat, adv, labels = inputs(case, dtype)
    tol, golden = tolerance(case, dtype), f"{case}.trades.beta{beta}"
    loss = Trades(beta=beta).objective(nat, adv, labels)
    assert_near(loss.detach(), VECTORS[f"{golden}.total"], tol)
    assert_near(cross_entropy(nat, labels).mean().detach(), VECTORS[f"{case}.trades.natural"], tol)
    assert_near(robust_kl(nat, adv).mean().detach(), VECTORS[f"{case}.trades.robust_kl"], tol)
    if dtype == torch.float64:
        d_nat, d_adv = gradients(loss, nat, adv)
        assert_near(d_nat, VECTORS[f"{golden}.dlogits_nat"], tol)
        assert_near(d_adv, VECTORS[f"{golden}.dlogits_adv"], tol)


@by_precision
@pytest.mark.parametrize("beta", [5, 6])
@by_case
def test_mart(case, beta, dtype):
    nat, adv, labels = inputs(case, dtype)
    tol, golden = tolerance(case, dtype, "mart"), f"{case}.mart.beta{beta}"
    loss = Mart(beta=beta).objective(nat, adv, labels)
    assert_near(loss.detach(), VECTORS[f"{golden}.total"], tol)
    assert_near(boosted_cross_entropy(adv, labels).mean().detach(), VECTORS[f"{case}.mart.bce"], tol)
    assert_near(weighted_kl(nat, adv, labels).mean().detach(), VECTORS[f"{case}.mart.weighted_kl"], tol)
    if dtype == torch.float64:
        d_nat, d_adv = gradients(loss, nat, adv)
        assert_near(d_nat, VECTORS[f"{golden}.dlogits_nat"], 1e-9)
        assert_near(d_adv, VECTORS[f"{golden}.dlogits_adv"], 1e-9)


@by_case
def test_the_runner_up_of_mart(case):
    _, adv, labels = inputs(case)
    probs = softmax(adv.detach())
    expected = probs.gather(1, torch.tensor(VECTORS[f"{case}.mart.runner_up"])[:, None]).squeeze(1)
    assert torch.equal(largest_wrong(probs, labels), expected)


@pytest.mark.parametrize("method", [Trades(), Mart()])
def test_outputs_that_are_certain_stay_finite(method):
    """Probabilities that round to 0 and 1: 0 * log 0 is 0, in the gradient too."""
    nat = leaf([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], torch.float32)
    adv = leaf([[-1e4, 1e4, 0.0], [-1e4, 1e4, 0.0]], torch.float32)
    loss = method.objective(nat, adv, torch.tensor([0, 1]))
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(loss, nat, adv))


@pytest.mark.parametrize("term", [lambda z, y: robust_kl(z, z.roll(1, 0)), boosted_cross_entropy, cross_entropy])
def test_half_precision_logits_are_widened(term):
    """In bfloat16 the 1.0001 of MART would be 1, and log(1 - 1) not far."""
    logits, labels = torch.tensor([[8.0, 0.0, 0.0], [0.0, 1.0, 2.0]]), torch.tensor([1, 2])
    assert torch.equal(term(logits.bfloat16(), labels), term(logits, labels))
