"""What holds of every attack: on the networks we train, on a linear one, and on one that has learned its digits."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from bat_dist.attacks.linf import gaussian_start
from bat_dist.attacks.losses import cross_entropy, kl_divergence, margin
from bat_dist.attacks.pgd import fgsm, pgd
from bat_dist.data.datasets import load_dataset
from bat_dist.models.build import build
from tests.attacks.attack_nets import bits, seeded, state

KL = {"loss": kl_divergence, "against": "clean_logits", "start": gaussian_start}
SETTINGS = {  # of pgd
    "ce": {},
    "margin": {"loss": margin},
    "kl": KL,
    "restarts": {"restarts": 2},
    "best": {"best_iterate": True},
    "bf16": {"precision": "bf16"},
}
ATTACKS = ["fgsm", *SETTINGS]
OF_LABELS = [name for name in SETTINGS if name != "kl"]
each_attack = pytest.mark.parametrize("attack", ATTACKS)


def run(attack, model, x, y, *, epsilon=12 / 255, step_size=7 / 255, num_steps=3, **settings):
    """A step of 7/255 leaves the ball at the second."""
    if attack == "fgsm":
        return fgsm(model, x, y, epsilon=epsilon, **settings)
    settings = SETTINGS[attack] | {"generator": seeded(0)} | settings
    return pgd(model, x, y, epsilon=epsilon, step_size=step_size, num_steps=num_steps, **settings)


# --- on the networks of `build`

SIZES = {"tinynet": 8, "resnet9-w8": 16, "resnet20": 32, "wrn10-1": 32}
each_network = pytest.mark.parametrize("name", SIZES)


def network(name):
    """In the middle of training: warm statistics, some gradients, one BatchNorm in eval mode, a stem that rests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(name, 7, mean=(0.5,) * 3, std=(0.25,) * 3).train()
    x, y = images(name)
    cross_entropy(model(x), y).mean().backward()
    convolutions, norms = ([m for m in model.modules() if isinstance(m, kind)] for kind in (nn.Conv2d, nn.BatchNorm2d))
    convolutions[0].requires_grad_(False).weight.grad = None
    norms[-1].eval()
    means = [buffer for name, buffer in model.named_buffers() if name.endswith("running_mean")]
    assert any(bits(mean) != bits(torch.zeros_like(mean)) for mean in means)
    return model


def images(name, count=4):
    """With black and white pixels, and labels."""
    x = torch.rand(count, 3, SIZES[name], SIZES[name], generator=seeded(1))
    return (1.2 * x - 0.1).clamp(0, 1), torch.arange(count) % 7


@each_network
@each_attack
def test_in_the_ball_and_the_network_as_before(attack, name):
    model, (x, y) = network(name), images(name)
    before = state(model)
    x_adv = run(attack, model, x, y)
    assert state(model) == before
    assert (x_adv - x).abs().max() <= 12 / 255 + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert ((x_adv - x).abs() > 6 / 255).double().mean() > 0.5  # and it went somewhere
    model(x_adv).sum().backward()  # training goes on


@each_network
@pytest.mark.parametrize("attack", SETTINGS)
def test_after_a_loss_that_raises_the_network_is_as_before(attack, name):
    model, (x, y), calls = network(name), images(name), []

    def fail_at_the_second(logits, target):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no such loss")
        return SETTINGS[attack].get("loss", cross_entropy)(logits, target)

    before = state(model)
    with pytest.raises(RuntimeError, match="no such loss"):
        run(attack, model, x, y, loss=fail_at_the_second)
    assert state(model) == before


# --- on a linear model, where the answer is known


def linear():
    """Two classes of any weights, which bfloat16 tells apart."""
    weights = torch.randn(2, 3 * 4 * 4, generator=seeded(2))
    weights[1] += 0.1 * (weights[1] - weights[0]).sign()
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model.get_parameter("1.weight").copy_(weights)
        model.get_parameter("1.bias").copy_(torch.tensor([0.3, -0.2]))
    return model, weights.view(2, 3, 4, 4)


def flat_images(count=8):
    x = 1.4 * torch.rand(count, 3, 4, 4, generator=seeded(3)) - 0.2
    return x.clamp(0, 1), torch.arange(count) % 2


@pytest.mark.parametrize("attack", ["fgsm", *OF_LABELS])
def test_the_closed_form(attack):
    """x + epsilon sign(w_other - w_y), clipped."""
    (model, weights), (x, y) = linear(), flat_images()
    expected = (x + 0.2 * (weights[1 - y] - weights[y]).sign()).clamp(0, 1)
    x_adv = run(attack, model, x, y, epsilon=0.2, step_size=0.05, num_steps=8)
    assert torch.allclose(x_adv, expected, rtol=0, atol=1e-6)


def test_the_closed_form_of_kl():
    """It goes on to the side to which the start has moved the logits, whatever the label."""
    (model, weights), (x, y) = linear(), flat_images()
    noise = gaussian_start(x, epsilon=0.2, generator=seeded(0)) - x
    towards_1 = (weights[1] - weights[0]).sign()
    side = (noise * (weights[1] - weights[0])).sum((1, 2, 3)).sign().view(-1, 1, 1, 1)
    assert set(side.flatten().tolist()) == {-1, 1}
    for labels in (y, 1 - y):
        x_adv = run("kl", model, x, labels, epsilon=0.2, step_size=0.05, num_steps=5)
        assert torch.allclose(x_adv, (x + 0.2 * side * towards_1).clamp(0, 1), rtol=0, atol=1e-6)


# --- on a network that has learned its digits

NOISE = 0.02  # 5 of 250 images
STEPS = (1, 2, 5, 10, 20, 50)


@pytest.fixture(scope="module")
def digits():
    """A ResNet-9 of width 4 after a few epochs of Adam, and every second test image."""
    data = load_dataset("digits")
    (x, y), (test_x, test_y) = tensors(data.train), tensors(data.test)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build("resnet9-w4", 10, mean=data.spec.mean, std=data.spec.std).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for epoch in range(6):
        for batch in torch.randperm(len(x), generator=seeded(epoch)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).mean().backward()
            optimizer.step()
    return model.eval(), test_x[::2], test_y[::2]


def tensors(split):
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous()
    return images.float().div(255), torch.from_numpy(split.labels)


def losses(model, x, y):
    with torch.no_grad():
        return cross_entropy(model(x), y)


def accuracy(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def under(digits, attack, size, **settings):
    """Accuracy under an attack of `size` / 255, by default with 10 steps of a quarter of it."""
    model, x, y = digits
    settings = {"epsilon": size / 255, "step_size": size / 4 / 255, "num_steps": 10} | settings
    return accuracy(model, run(attack, model, x, y, **settings), y)


def never_rises(accuracies):
    return all(later <= earlier + NOISE for earlier, later in pairwise(accuracies))


def test_the_network_has_learned(digits):
    assert accuracy(*digits) > 0.9


@pytest.mark.parametrize("attack", OF_LABELS)
def test_at_64_of_255_nothing_is_left(digits, attack):
    assert under(digits, attack, 64) <= NOISE


@pytest.mark.parametrize("attack", SETTINGS)
def test_more_steps_never_help_the_defender(digits, attack):
    accuracies = [under(digits, attack, 16, step_size=2 / 255, num_steps=count) for count in STEPS]
    assert never_rises(accuracies)
    assert accuracies[-1] < accuracies[0] - 0.2


@each_attack
def test_a_larger_ball_never_helps_the_defender(digits, attack):
    accuracies = [accuracy(*digits), *(under(digits, attack, size) for size in (2, 4, 8, 16, 32, 64))]
    assert never_rises(accuracies)
    assert accuracies[-1] < accuracies[1] - 0.3


@pytest.mark.parametrize("size", [4, 8, 16, 32])
@pytest.mark.parametrize("attack", OF_LABELS)
def test_pgd_is_at_least_as_strong_as_fgsm(digits, attack, size):
    """Not so KL, which does not know the label and starts where its gradient is 0 but for the noise."""
    assert under(digits, attack, size) <= under(digits, "fgsm", size) + NOISE


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_more_restarts_never_help_the_defender(digits, loss):
    (model, x, y), settings = digits, {"epsilon": 16 / 255, "step_size": 8 / 255, "num_steps": 2, "loss": loss}
    runs = [run("ce", model, x, y, **settings, restarts=count) for count in (1, 2, 4, 8)]
    assert never_rises([accuracy(model, x_adv, y) for x_adv in runs])
    with torch.no_grad():
        reached = [loss(model(x_adv), y) for x_adv in runs]  # of the same seed, so that the first starts are the same
    assert all((more >= fewer).all() for fewer, more in pairwise(reached))
    assert (reached[-1] > reached[0]).double().mean() > 0.5


def test_bf16_is_as_strong(digits):
    assert under(digits, "bf16", 16) <= under(digits, "ce", 16) + NOISE
