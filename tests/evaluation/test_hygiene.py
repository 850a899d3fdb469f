"""Networks that only look robust are caught, and one that is what it says passes every check."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from bat_dist.evaluation.attack import Settings, attack_images, prepare
from bat_dist.evaluation.hygiene import FOUND, check_epsilon, judge, square_check
from bat_dist.evaluation.plan import CHECKS
from bat_dist.evaluation.probe import probe

EPSILON = 0.12


def failed(model, images, digits, epsilon=EPSILON) -> dict[str, str]:
    """The checks that a network fails, as `bat-dist evaluate` would run them."""
    pixels, _, y = images
    torch.manual_seed(0)
    nets = prepare(model, pixels[:4], torch.device("cpu"))
    x = nets.tensor(pixels)
    found = probe(nets.model, x, y, mean=digits.spec.mean, std=digits.spec.std)
    assert set(found) == set(FOUND)
    right = nets.model(x).argmax(1) == y
    settings = {"seed": 0, "settings": Settings(epsilon, epsilon / 4, 1)}
    robust = {
        name: attack_images(nets, x[right], y[right], torch.arange(int(right.sum())), attack=name, **settings)
        for name in CHECKS
    }
    flags = {name: outcome.robust.numpy() for name, outcome in robust.items()}
    checks = judge(found, flags, epsilon=epsilon, max_delta=epsilon)
    assert all(bool(check.message) != check.passed for check in checks)
    return {check.name: check.message for check in checks if not check.passed}


def test_an_honest_network_passes(trained, images, digits):
    assert failed(trained, images, digits, epsilon=16 / 255) == {}


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model


class LoudLogits(Wrapped):
    """Defensive distillation's effect: logits so far apart that softmax has no gradient in float32."""

    def forward(self, x):
        return 1000 * self.model(x)


class Staircase(Wrapped):
    """Rounds pixels to a few greys, whose gradient is 0."""

    def forward(self, x):
        return self.model(torch.round(8 * x) / 8)


class StraightAndFalse(Wrapped):
    """The gradient that it shows is that of noise."""

    def forward(self, x):
        logits = self.model(x).detach()
        return logits + (x - x.detach()).flatten(1)[:, :10] * 1e-3


class Noisy(Wrapped):
    def forward(self, x):
        return self.model(x + 0.1 * torch.randn_like(x))


class Probabilities(Wrapped):
    def forward(self, x):
        return self.model(x).softmax(1)


class Company(Wrapped):
    """BatchNorm with the batch's own statistics."""

    def forward(self, x):
        return self.model(x) - self.model(x).mean(0, keepdim=True)


class Purifying(Wrapped):
    """Moves its input towards what it thinks that it sees."""

    def forward(self, x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.model(leaf).logsumexp(1).sum(), leaf)
        return self.model(x + 0.001 * gradient)


class Adapting(Wrapped):
    asked: torch.Tensor

    def __init__(self, model):
        super().__init__(model)
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, x):
        self.asked += 1
        return self.model(x)


class BesideAnAttack(Wrapped):
    """While it is asked, a thread beside it takes gradients."""

    def forward(self, x):
        def attack():
            leaf = torch.ones(1, requires_grad=True)
            leaf.sum().backward()

        thread = threading.Thread(target=attack)
        thread.start()
        thread.join()
        return self.model(x)


class Infinite(Wrapped):
    def forward(self, x):
        logits = self.model(x)
        return logits.where(logits > logits.mean(), -torch.inf)


class NotNumbers(Wrapped):
    def forward(self, x):
        return self.model(x) * torch.nan


class SomeWithoutGradient(Wrapped):
    """Half of the images have logits as they should be, and a gradient that is no number."""

    def forward(self, x):
        half = torch.arange(len(x)).view(-1, 1) % 2 == 0
        return self.model(x) + torch.where(half, (x * 0).flatten(1).sum(1, keepdim=True).sqrt(), 0)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (LoudLogits, {"logit_scale"}),
        (Staircase, {"zero_gradients", "square_finds_more", "large_ball"}),
        (StraightAndFalse, {"square_finds_more", "large_ball"}),
        (Noisy, {"randomized"}),
        (Probabilities, {"probabilities"}),
        (Company, {"depends_on_company"}),
        (Purifying, {"dynamic"}),
        (Adapting, {"dynamic"}),
        (Infinite, {"not_finite"}),
        (NotNumbers, {"not_finite", "gradient_not_finite"}),
        (SomeWithoutGradient, {"gradient_not_finite"}),
    ],
)
def test_a_network_that_misleads_is_caught(kind, names, trained, images, digits):
    assert names <= set(failed(kind(trained), images, digits))


class Normalized(nn.Module):
    """A network without its first layer: it was trained on normalized images."""

    def __init__(self, model):
        super().__init__()
        self.body, self.head = model.body, model.head

    def forward(self, x):
        return self.head(self.body(x))


class InBytes(Wrapped):
    def forward(self, x):
        return self.model(x / 255)


class Centered(Wrapped):
    def forward(self, x):
        return self.model((x + 1) / 2)


@pytest.mark.parametrize(
    ("kind", "way_out"),
    [(Normalized, "give --mean and --std"), (InBytes, "--std 0.00392157"), (Centered, "--mean 0.5 0.5 0.5 --std 0.5")],
)
def test_a_network_that_wants_other_images_is_told_so(kind, way_out, trained, images, digits):
    assert way_out in failed(kind(trained), images, digits)["normalization"]


def test_a_network_that_normalizes_twice_is_told_so(trained, images, digits):
    class Twice(Wrapped):
        def forward(self, x):
            return self.model(self.model.normalize(x))

    assert "leave out --mean and --std" in failed(Twice(trained), images, digits)["normalization"]


def test_gradients_of_other_threads_are_not_the_networks(trained, images, digits):
    _, x, y = images
    real = torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward
    found = probe(BesideAnAttack(trained), x, y, mean=digits.spec.mean, std=digits.spec.std)
    assert found["optimizes"] == 0
    assert probe(Purifying(trained), x, y, mean=digits.spec.mean, std=digits.spec.std)["optimizes"] == 1
    assert (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward) == real


def test_the_probe_leaves_the_network_as_it_was(trained, images, digits):
    model = Adapting(trained)
    model.asked.fill_(7)
    _, x, y = images
    probe(model, x, y, mean=digits.spec.mean, std=digits.spec.std)
    assert model.asked == 7


@pytest.mark.parametrize(
    ("epsilon", "passed"),
    [(8 / 255, True), (0.0314, False), (0.031, False), (4 / 255, True), (1e-4, True), (0.5, False)],
)
def test_a_rounded_epsilon_is_noticed(epsilon, passed):
    check = check_epsilon(epsilon)
    assert check.passed == passed
    if epsilon == 0.031:
        assert "7.905/255, not 8/255" in check.message


def test_an_image_outside_of_the_ball_is_noticed():
    for delta, passed in ((0.03, True), (0.0300005, True), (0.031, False)):
        (check,) = [c for c in judge(None, {}, epsilon=0.03, max_delta=delta) if c.name == "inside_the_ball"]
        assert check.passed == passed


def test_square_after_the_others_is_autoattacks_own_warning():
    assert square_check(0.5, 0.499).passed
    assert "decreased AutoAttack's robust accuracy by 1.00%" in square_check(0.5, 0.49).message


def test_few_images_are_no_evidence():
    """A masked gradient is not claimed from what chance explains."""
    rng = np.random.default_rng(0)
    flags = {name: rng.random(20) < 0.5 for name in CHECKS}
    flags["pgd100-large"][:] = False
    flags["fgsm"] = flags["square1000"] = np.ones(20, bool)
    flags["pgd100"][:3] = flags["cw100"][:3] = flags["apgd-t3"][:3] = True

    def bad() -> list[str]:
        return [c.name for c in judge(None, flags, epsilon=8 / 255, max_delta=0.0) if not c.passed]

    flags["square1000"][:2] = flags["fgsm"][:2] = False
    assert bad() == []
    flags["square1000"][2] = flags["fgsm"][2] = False
    assert bad() == ["square_finds_more", "one_step_finds_more"]
