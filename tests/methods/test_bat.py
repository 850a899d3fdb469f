"""BAT at its edges: nothing to compare, unknown memorization, samples at the threshold, PGD-AT as its zero."""

import itertools
import math

import pytest
import torch

from bat_dist.attacks.noise import image_keys
from bat_dist.methods.bat import Bat, discrimination_loss, draw_negatives, pair_masks, poisoning_weights
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.terms import cross_entropy
from tests.methods.near import gradients

READINGS = [
    {"denominator": denominator, "unit_length": unit_length, "average": average, "num_negatives": num_negatives}
    for denominator, unit_length, average, num_negatives in itertools.product(
        ("pos_plus_neg", "neg_only", "supcon"), (True, False), ("pairs", "anchors"), (None, 3)
    )
    if (denominator, num_negatives) != ("supcon", 3)
]
LOW, HIGH, UNKNOWN = 0.0, 0.9, math.nan


def keys_of(labels):
    return image_keys(0, "test", torch.arange(len(labels)))


def batch(labels, mem, dtype=torch.float32):
    """Logits [n, 4] and features [n, 5], as leaves."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(len(labels), 4, dtype=dtype, generator=random).requires_grad_()
    features = torch.randn(len(labels), 5, dtype=dtype, generator=random).requires_grad_()
    return logits, features, torch.tensor(labels), torch.tensor(mem, dtype=dtype)


@pytest.mark.parametrize("size", [1, 7, 128])
def test_without_its_two_terms_it_is_pgd_at_bit_for_bit(size):
    random = torch.Generator().manual_seed(size)
    labels, mem = torch.randint(4, (size,), generator=random), torch.rand(size, generator=random)
    mem[::3] = UNKNOWN
    images, network = torch.randn(size, 6, generator=random), torch.nn.Linear(6, 4)
    results = []
    for bat in (True, False):
        network.zero_grad()
        logits = network(images)
        loss = (
            Bat(alpha=0, beta=0).objective(logits, logits.new_full((size, 5), math.inf), labels, mem)
            if bat
            else PgdAt().objective(logits, labels)
        )
        results.append([loss.detach(), *(g.clone() for g in gradients(loss, *network.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("reading", READINGS, ids=str)
@pytest.mark.parametrize(
    ("labels", "mem"),
    [
        ([2], [LOW]),
        ([2], [HIGH]),
        ([0, 0, 1, 1], [HIGH] * 4),  # no typical sample
        ([0, 0, 1, 1], [UNKNOWN] * 4),
        ([3, 3, 3], [LOW] * 3),  # no negative
        ([0, 0, 1], [LOW, LOW, HIGH]),  # nor here, among the typical
        ([0, 1, 2, 3], [LOW] * 4),  # no positive
        ([0, 0, 1, 1], [LOW, HIGH, LOW, HIGH]),
    ],
)
def test_without_pairs_the_discrimination_loss_and_its_gradient_are_zero(labels, mem, reading):
    logits, features, labels, mem = batch(labels, mem)
    loss = discrimination_loss(features, labels, mem < 0.15, tau=0.1, keys=keys_of(labels), **reading)
    assert loss == 0
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        (gradient,) = gradients(loss, features)
    assert torch.equal(gradient, torch.zeros_like(features))
    total = Bat(**reading).objective(logits, features, labels, mem, keys=keys_of(labels))
    assert torch.equal(total, Bat(beta=0).objective(logits, features, labels, mem))


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_anchors_without_a_negative_or_positive_harm_no_others(reading):
    """Class 0 twice, class 1 and 2 once: only class 0 has pairs; of the rest, samples 2 and 3 are its negatives."""
    _, features, labels, mem = batch([0, 0, 1, 2, 0, 1], [LOW, LOW, LOW, LOW, HIGH, UNKNOWN])
    loss = discrimination_loss(features, labels, mem < 0.15, tau=0.1, keys=keys_of(labels), **reading)
    (gradient,) = gradients(loss, features)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient[:4].abs().sum(dim=1).all()
    assert not gradient[4:].any()


def test_extreme_features_stay_finite():
    _, features, labels, mem = batch([0, 0, 1, 1], [LOW] * 4)
    loss = discrimination_loss(features * 1e6, labels, mem < 0.15, tau=0.1, unit_length=False)
    assert loss.isfinite()
    assert gradients(loss, features)[0].isfinite().all()


def test_the_default_is_bounded_by_zero_and_the_printed_formula_is_not():
    labels, typical = torch.tensor([0, 0, 1, 1]), torch.ones(4, dtype=torch.bool)
    apart = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    settings = {"tau": 0.1, "unit_length": False}
    assert 0 <= discrimination_loss(apart * 5, labels, typical, **settings) < 1e-6
    printed = [discrimination_loss(apart * f, labels, typical, denominator="neg_only", **settings) for f in (1, 5)]
    assert printed[0] == pytest.approx(-20 + math.log(2))
    assert printed[1] == pytest.approx(-500 + math.log(2))


# --- whose weight is lowered


@pytest.mark.parametrize(
    ("mem", "right", "expected"),
    [
        (HIGH, False, {"misclassified", "all_atypical"}),
        (HIGH, True, {"as_printed", "all_atypical"}),
        (LOW, False, set()),
        (LOW, True, set()),
        (0.15, False, set()),  # at sigma: not atypical
        (0.15, True, set()),
        (UNKNOWN, False, set()),
        (UNKNOWN, True, set()),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whose_weight_is_lowered(mem, right, expected, dtype):
    logits = torch.tensor([[math.log(3), 0.0]])  # probabilities 3/4 and 1/4
    labels, q = torch.tensor([0 if right else 1]), 0.25 if right else 0.75
    for downweight in ("misclassified", "as_printed", "all_atypical"):
        weight = poisoning_weights(
            logits, labels, torch.tensor([mem], dtype=dtype), alpha=2, sigma=0.15, downweight=downweight
        )
        assert weight.item() == pytest.approx(math.exp(-2 * q) if downweight in expected else 1)


def test_a_batch_without_atypical_samples_is_not_reweighted():
    logits, features, labels, mem = batch([0, 1, 2, 3, 0], [LOW] * 5)
    assert torch.equal(Bat(beta=0).objective(logits, features, labels, mem), PgdAt().objective(logits, labels))


def test_the_weight_is_a_constant():
    logits, features, labels, mem = batch([0, 1, 2, 3, 0], [HIGH] * 5, torch.float64)
    weights = poisoning_weights(logits, labels, mem, alpha=2, sigma=0.15)
    assert not weights.requires_grad
    assert len(weights.unique()) > 1
    (gradient,) = gradients(Bat(alpha=2, beta=0).objective(logits, features, labels, mem), logits)
    (expected,) = torch.autograd.grad((weights * cross_entropy(logits, labels)).sum() / weights.sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_weights_that_all_vanish_leave_zero():
    logits, features, labels, mem = batch([0, 0], [HIGH] * 2)
    loss = Bat(alpha=1e6, beta=0, downweight="all_atypical").objective(logits, features, labels, mem)
    assert loss == 0
    assert torch.equal(gradients(loss, logits)[0], torch.zeros_like(logits))


# --- who is typical


@pytest.mark.parametrize("sigma_is_typical", [False, True])
def test_memorization_at_sigma(sigma_is_typical):
    """Eq. 9 says mem < sigma, Algorithm 1 mem <= sigma."""
    batch_ = batch([0, 0, 1], [0.15, LOW, LOW])
    loss, without = (Bat(alpha=0, beta=beta, sigma_is_typical=sigma_is_typical).objective(*batch_) for beta in (0.2, 0))
    assert (loss != without) == sigma_is_typical


def test_unknown_memorization_has_no_part_in_the_discrimination_loss():
    logits, features, labels, mem = batch([0, 0, 1, 0, 1], [LOW, LOW, LOW, UNKNOWN, UNKNOWN], torch.float64)
    known = Bat(alpha=0, beta=1).objective(logits[:3], features[:3], labels[:3], mem[:3]) - PgdAt().objective(
        logits[:3], labels[:3]
    )
    for sigma_is_typical in (False, True):
        method = Bat(alpha=0, beta=1, sigma_is_typical=sigma_is_typical)
        loss = method.objective(logits, features, labels, mem)
        torch.testing.assert_close(loss - PgdAt().objective(logits, labels), known)


# --- drawn negatives


def test_negatives_are_drawn_from_typical_samples_of_other_classes_uniformly():
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0])
    typical = torch.tensor([True, True, True, False, True, True, False, True])
    _, negative = pair_masks(labels, typical)
    drawn = draw_negatives(negative, 6000, keys_of(labels))
    assert [sorted(drawn[i, j].unique().tolist()) for i, j in ((0, 1), (4, 5))] == [[2, 4, 5], [0, 1, 2, 7]]
    for row, share in zip((drawn[0, 1], drawn[4, 5]), (1 / 3, 1 / 4), strict=True):
        counts = row.bincount(minlength=8) / 6000
        assert (counts[counts > 0] - share).abs().max() < 4 * math.sqrt(share * (1 - share) / 6000)
    same = (drawn[0, 1] == drawn[0, 7]).float().mean()  # each pair has draws of its own
    assert abs(same - 1 / 3) < 4 * math.sqrt(1 / 3 * 2 / 3 / 6000)
    assert torch.equal(drawn, draw_negatives(negative, 6000, keys_of(labels)))


@pytest.mark.parametrize("average", ["pairs", "anchors"])
def test_drawn_negatives_that_are_all_alike_count_k_times(average):
    """One negative direction: each of K draws adds the same term, so D is K times the term of one."""
    features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, 1.0]])
    labels, typical = torch.tensor([0, 0, 1, 2]), torch.ones(4, dtype=torch.bool)
    settings = {"tau": 0.5, "average": average, "denominator": "neg_only"}
    loss = discrimination_loss(features, labels, typical, num_negatives=5, keys=keys_of(labels), **settings)
    terms = [-0.8 / 0.5 + math.log(5 * math.exp(s / 0.5)) for s in (0.0, 0.6)]
    assert loss.item() == pytest.approx(sum(terms) / 2)


# --- precision, shapes


def test_autocast_does_not_blur_the_similarities():
    _, features, labels, mem = batch([0, 0, 1, 1, 0], [LOW] * 5)
    expected = discrimination_loss(features, labels, mem < 0.15, tau=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(discrimination_loss(features, labels, mem < 0.15, tau=0.1), expected)
    half = discrimination_loss(features.bfloat16(), labels, mem < 0.15, tau=0.1)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("shape", [(50_000,), (4, 1), ()])
def test_memorization_that_is_not_of_the_batch_is_refused(shape):
    logits, features, labels, _ = batch([0, 1, 2, 3], [LOW] * 4)
    with pytest.raises(ValueError, match=r"mem must have one value per label, shape \(4,\), got \("):
        Bat().objective(logits, features, labels, torch.zeros(shape))


def test_drawing_without_keys_is_refused():
    with pytest.raises(ValueError, match="num_negatives needs the keys"):
        Bat(num_negatives=2).objective(*batch([0, 0, 1], [LOW] * 3))
