"""BAT gives the golden numbers in every reading that is offered (tests/golden/08_bat.npz).

The file is a cut of the full one: all cases and values, without the gradients of a weight that is differentiated
(not offered), of the largest case's logits, and of some temperatures and readings.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.methods.bat import (
    Bat,
    average_pairs,
    discrimination_loss,
    poisoning_score,
    poisoning_weights,
    sampled_losses,
    similarity,
)
from bat_dist.methods.terms import cross_entropy, softmax
from tests.methods.near import assert_near, gradients, leaf

VECTORS = dict(np.load(Path(__file__).parents[1] / "golden" / "08_bat.npz"))
CASES = [str(case) for case in VECTORS["cases"]]
WITHOUT_PAIRS = {"no_typical", "one_class", "no_positive"}
DOWNWEIGHT = {"neq": "misclassified", "eq": "as_printed", "memonly": "all_atypical"}
PRECISIONS = {torch.float64: 1e-10, torch.float32: 1e-5}
SIGMA = 0.15
by_case = pytest.mark.parametrize("case", CASES)
by_precision = pytest.mark.parametrize("dtype", PRECISIONS)


def tensor(key, dtype=torch.float64):
    array = VECTORS[key]
    return torch.tensor(array, dtype=dtype if array.dtype == np.float64 else None)


def read(key):
    """Settings of a key such as `main.dl.tau0.1.neg_only.raw.pairs.lt`."""
    words = key.split("tau", 1)[1].split(".")
    if words[0] == "0":
        words[:2] = [".".join(words[:2])]
    tau, denominator, scale, *rest = words
    settings = {"tau": float(tau), "denominator": denominator, "unit_length": scale == "l2"}
    return settings | ({"average": rest[0]} if rest else {}), "le" in rest


def typical(case, inclusive, dtype=torch.float64):
    mem = tensor(f"{case}.mem", dtype)
    return mem <= SIGMA if inclusive else mem < SIGMA


def keys(start, *, gradient=None):
    return [key for key in VECTORS if key.startswith(start) and (gradient is None or key.endswith(".dh") == gradient)]


def test_all_cases_and_readings_are_here():
    assert CASES == ["main", "c100", "negmem", "no_atypical", "no_typical", "one_class", "no_positive"]
    for case in CASES:
        assert VECTORS[f"{case}.sigma"] == SIGMA
        assert len(keys(f"{case}.dl.", gradient=False)) == 3 * 3 * 2 * 2 * 2
        assert len([key for key in keys(f"{case}.w.") if key.endswith("rw_loss")]) == 3 * 3
    assert len(keys("main.dl.", gradient=True)) >= 12


@by_precision
@by_case
def test_poisoning_score(case, dtype):
    logits, labels = tensor(f"{case}.logits_adv", dtype), tensor(f"{case}.y")
    assert_near(poisoning_score(softmax(logits), labels), VECTORS[f"{case}.q"], PRECISIONS[dtype])
    assert_near(cross_entropy(logits, labels), VECTORS[f"{case}.ce"], PRECISIONS[dtype])
    np.testing.assert_array_equal(logits.argmax(dim=1), VECTORS[f"{case}.pred"])


@by_precision
@pytest.mark.parametrize("alpha", [0, 1, 2])
@pytest.mark.parametrize("reading", DOWNWEIGHT)
@by_case
def test_reweighting(case, reading, alpha, dtype):
    labels, mem, tol = tensor(f"{case}.y"), tensor(f"{case}.mem", dtype), PRECISIONS[dtype]
    logits, golden = leaf(VECTORS[f"{case}.logits_adv"], dtype), f"{case}.w.{reading}.alpha{alpha}"
    settings = {"alpha": alpha, "sigma": SIGMA, "downweight": DOWNWEIGHT[reading]}
    assert_near(poisoning_weights(logits, labels, mem, **settings), VECTORS[f"{golden}.weights"], tol)
    loss = Bat(beta=0, **settings).objective(logits, torch.zeros(len(mem), 1), labels, mem)
    assert_near(loss.detach(), VECTORS[f"{golden}.rw_loss"], tol)
    gradient = f"{golden}.dlogits_detached"
    if gradient in VECTORS and dtype == torch.float64:
        assert_near(gradients(loss, logits)[0], VECTORS[gradient], tol)


@by_precision
@by_case
def test_discrimination_loss(case, dtype):
    labels = tensor(f"{case}.y")
    for key in keys(f"{case}.dl.", gradient=False):
        settings, inclusive = read(key)
        features = leaf(VECTORS[f"{case}.h"], dtype)
        loss = discrimination_loss(features, labels, typical(case, inclusive, dtype), **settings)
        assert_near(loss.detach(), VECTORS[key], PRECISIONS[dtype])
        if f"{key}.dh" in VECTORS and dtype == torch.float64:
            assert_near(gradients(loss, features)[0], VECTORS[f"{key}.dh"], 1e-10)
        elif case in WITHOUT_PAIRS:
            assert loss == 0
            assert not gradients(loss, features)[0].any()


@by_precision
@pytest.mark.parametrize("case", [case for case in CASES if case not in WITHOUT_PAIRS])
def test_discrimination_loss_with_drawn_negatives(case, dtype):
    pairs, negatives = tensor(f"{case}.sampled.pairs"), tensor(f"{case}.sampled.negatives")
    found = keys(f"{case}.sampled.tau")
    assert len(found) == 4
    for key in found:
        settings, _ = read(key)
        denominator = settings.pop("denominator")
        s = similarity(tensor(f"{case}.h", dtype), **settings)
        drawn = torch.zeros(*s.shape, negatives.shape[1], dtype=torch.int64).index_put(pairs.unbind(1), negatives)
        losses = sampled_losses(s, drawn, denominator)[pairs.unbind(1)]
        assert_near(losses.mean(), VECTORS[key], PRECISIONS[dtype])


@by_precision
@by_case
def test_total(case, dtype):
    found = keys(f"{case}.total.neq.alpha1.beta0.2.tau0.5.")
    assert len(found) == 4
    for key in found:
        settings, _ = read(key)
        method = Bat(alpha=1, beta=0.2, sigma=SIGMA, **settings)
        loss = method.objective(
            tensor(f"{case}.logits_adv", dtype),
            tensor(f"{case}.h", dtype),
            tensor(f"{case}.y"),
            tensor(f"{case}.mem", dtype),
        )
        assert_near(loss, VECTORS[key], PRECISIONS[dtype])


@by_precision
def test_the_loss_of_a_training_step(dtype):
    alpha, beta, sigma, tau = VECTORS["step.hyper_alpha_beta_sigma_tau"]
    batch = [tensor(f"step.{name}", dtype) for name in ("logits", "h", "y", "mem")]
    logits, features, labels, mem = batch
    weights = poisoning_weights(logits, labels, mem, alpha=alpha, sigma=sigma)
    assert_near(weights, VECTORS["step.weights"], PRECISIONS[dtype])
    for denominator in ("neg_only", "pos_plus_neg"):
        for scale in ("raw", "l2"):
            reading = {"tau": tau, "denominator": denominator, "unit_length": scale == "l2"}
            golden = f"step.{denominator}.{scale}"
            loss = Bat(alpha=alpha, beta=beta, sigma=sigma, **reading).objective(*batch)
            assert_near(discrimination_loss(features, labels, mem < sigma, **reading), VECTORS[f"{golden}.dl"], 1e-5)
            assert_near(loss, VECTORS[f"{golden}.total"], PRECISIONS[dtype])
    reweighted = Bat(alpha=alpha, beta=0, sigma=sigma).objective(*batch)
    assert_near(reweighted, VECTORS["step.pos_plus_neg.l2.rw"], PRECISIONS[dtype])


def test_the_gradient_of_a_training_step_at_the_head():
    """The rest of the network is the training step's affair."""
    alpha, beta, sigma, tau = VECTORS["step.hyper_alpha_beta_sigma_tau"]
    weight, bias = leaf(VECTORS["step.before.fc.weight"]), leaf(VECTORS["step.before.fc.bias"])
    features, labels, mem = tensor("step.h"), tensor("step.y"), tensor("step.mem")
    method = Bat(alpha=alpha, beta=beta, sigma=sigma, tau=tau)
    loss = method.objective(features @ weight.T + bias, features, labels, mem)
    d_weight, d_bias = gradients(loss, weight, bias)
    assert_near(d_weight, VECTORS["step.pos_plus_neg.l2.grad.fc.weight"], 1e-8)
    assert_near(d_bias, VECTORS["step.pos_plus_neg.l2.grad.fc.bias"], 1e-8)


def test_the_mean_over_anchors_written_out():
    losses = torch.tensor([[9.0, 1.0, 3.0], [5.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    counted = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    assert average_pairs(losses, counted, "pairs") == (1 + 3 + 5) / 3
    assert average_pairs(losses, counted, "anchors") == ((1 + 3) / 2 + 5) / 2
