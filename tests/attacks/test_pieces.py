"""Starts, step, projection, the losses and their arithmetic, the frozen model."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from bat_dist.attacks.frozen import frozen
from bat_dist.attacks.linf import bounds, gaussian_start, no_start, project, step, uniform_start
from bat_dist.attacks.losses import cross_entropy, kl_divergence, margin
from tests.attacks.attack_nets import MODELS, images, make, seeded, state

EPSILON = 0.1
GREY = torch.full((50, 3, 8, 8), 0.5)


def test_no_start():
    x = images()
    assert torch.equal(no_start(x, epsilon=EPSILON, generator=None), x)


def test_uniform_start_fills_the_ball_evenly_and_stays_in_the_box():
    noise = uniform_start(GREY, epsilon=EPSILON, generator=seeded(0)) - GREY
    counts = torch.histc(noise, bins=10, min=-EPSILON, max=EPSILON)
    assert noise.abs().max() <= EPSILON + 1e-7
    assert counts.sum() >= noise.numel() - 3  # rounding at the ends
    assert (counts - 960).abs().max() < 5 * math.sqrt(960)
    dark = uniform_start(0 * GREY, epsilon=EPSILON, generator=seeded(0))
    assert torch.allclose(dark, noise.clamp(min=0), rtol=0, atol=1e-7)
    assert uniform_start(GREY * 2, epsilon=EPSILON, generator=seeded(0)).max() == 1


def test_gaussian_start_is_not_clipped():
    start = partial(gaussian_start, epsilon=EPSILON, generator=seeded(0))
    noise = start(0 * GREY)
    assert noise.std().item() == pytest.approx(0.001, rel=0.03)
    assert noise.mean().abs() < 5 * 0.001 / math.sqrt(noise.numel())
    assert noise.min() < 0
    assert start(0 * GREY, std=0.5).std().item() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("start", [uniform_start, gaussian_start])
def test_noise_has_the_dtype_of_the_images(start):
    assert start(GREY.double(), epsilon=EPSILON, generator=seeded(0)).dtype == torch.float64


@pytest.mark.parametrize("start", [uniform_start, gaussian_start])
def test_a_random_start_needs_a_generator(start):
    with pytest.raises(ValueError, match=r"a random start needs a generator, got None: pass generator=torch.Gen"):
        start(GREY, epsilon=EPSILON, generator=None)


def test_step():
    gradient = torch.tensor([[1e-9, -7.0, 0.0]])
    assert torch.equal(step(torch.tensor([[0.0, 0.5, 1.0]]), gradient, 0.25), torch.tensor([[0.25, 0.25, 1.0]]))


def test_project():
    x = torch.tensor([[0.05, 0.5, 0.5, 0.98, 0.4]])
    far = torch.tensor([[-1.0, 0.9, 0.1, 1.5, 0.45]])
    assert torch.allclose(project(far, x, 0.1), torch.tensor([[0.0, 0.6, 0.4, 1.0, 0.45]]))


@pytest.mark.parametrize("epsilon", [0.0, 8 / 255, 0.5, 2.0])
def test_bounds_are_the_projection(epsilon):
    """To the last bit, at black and white pixels too."""
    x = torch.cat([torch.rand(2000, generator=seeded(0)), torch.tensor([0.0, 1.0, 1 / 255, 254 / 255]).repeat(500)])
    far = x + torch.empty_like(x).uniform_(-3, 3, generator=seeded(1))
    assert torch.equal(far.clamp(*bounds(x, epsilon)), project(far, x, epsilon))


# --- losses, with the arithmetic written out

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0], [4.0, -1.0, -1.0]], dtype=torch.float64)
CLEAN = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 5.0], [-900.0, 0.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([1, 0, 2])


def softmax(row):
    weights = [math.exp(value) for value in row]
    return [weight / sum(weights) for weight in weights]


def test_cross_entropy():
    expected = [-math.log(softmax(row)[label]) for row, label in zip(LOGITS.tolist(), Y.tolist(), strict=True)]
    assert cross_entropy(LOGITS, Y).tolist() == pytest.approx(expected)


def test_kl_divergence():
    pairs = zip(CLEAN.tolist(), LOGITS.tolist(), strict=True)
    expected = [
        sum(p * math.log(p / q) for p, q in zip(softmax(clean), softmax(row), strict=True) if p > 0)
        for clean, row in pairs
    ]
    assert kl_divergence(LOGITS, CLEAN).tolist() == pytest.approx(expected)
    assert kl_divergence(CLEAN, CLEAN).tolist() == [0, 0, 0]


def test_margin():
    assert margin(LOGITS, Y).tolist() == [-(3 - 2 + 50), -(0 - 5 + 50), -(-1 - 4 + 50)]
    assert margin(LOGITS, Y, confidence=0.0).tolist() == [-1, 0, 0]
    assert margin(LOGITS, Y, confidence=5.0).tolist() == [-6, 0, 0]


def test_the_margin_pulls_at_the_label_and_the_best_other():
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(margin(logits, Y, confidence=5.5).sum(), logits)
    assert gradient.tolist() == [[0, -1, 1], [-1, 0, 1], [1, 0, -1]]


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_a_loss_of_labels_refuses_logits(loss):
    with pytest.raises(ValueError, match=r"compares with labels.*got torch.float64: pass against='labels'"):
        loss(LOGITS, CLEAN)


def test_kl_refuses_labels():
    with pytest.raises(ValueError, match=r"compares with logits, got torch.int64: pass against='clean_logits'"):
        kl_divergence(LOGITS, Y)


# --- the frozen model


@pytest.mark.parametrize("mode", ["eval", "keep"])
@pytest.mark.parametrize("name", MODELS)
def test_frozen_leaves_no_trace(name, mode):
    model = make(name)
    before, modes = state(model), [module.training for module in model.modules()]
    with frozen(model, mode=mode):
        inside = [module.training for module in model.modules()]
        assert inside == (modes if mode == "keep" else [False] * len(modes))
        assert not any(parameter.requires_grad for parameter in model.parameters())
        with torch.no_grad():
            model(images())
        torch.rand(3)
    assert state(model) == before


def test_even_a_model_that_replaces_its_buffers_is_left_as_before():
    class Centre(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            self.mean = self.mean * 0.9 + 0.1 * x.mean((0, 2, 3))
            return x - self.mean.view(3, 1, 1)

    model = Centre()
    before = state(model)
    with frozen(model, mode="keep"):
        model(images())
        assert model.mean.abs().sum() > 0
    assert state(model) == before


def test_frozen_nests():
    model = make("bn_train")
    before = state(model)
    with frozen(model), frozen(model, mode="keep"):
        assert not model[1].training
    assert state(model) == before
