"""Auto-PGD's numbers by hand, a model whose worst case is known, and the published code's path, iterate for iterate."""

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import nn

from bat_dist.attacks.apgd import (
    Climb,
    apgd,
    apgd_targeted,
    ascend,
    checkpoints,
    dlr,
    random_start,
    targeted_dlr,
)
from bat_dist.attacks.frozen import FrozenModel, attacked
from bat_dist.attacks.losses import cross_entropy
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.targets import likely_targets
from tests.attacks.robust_nets import IDS, X, Y, digits, golden_net, inputs_of


def test_checkpoints_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_checkpoints_of_few_steps():
    assert checkpoints(3) == [1, 2, 3]
    assert checkpoints(30) == [6, 11, 15, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]


def test_targeted_dlr_by_hand():
    """(z_t - z_y) / (z1 - (z3 + z4) / 2): (3 - 5) / (5 - (2 + 1) / 2), and (5 - 2) / the same."""
    logits = torch.tensor([[5.0, 3, 2, 1, 0], [5, 3, 2, 1, 0]])
    losses = targeted_dlr(logits, torch.tensor([[0, 1], [2, 0]]))
    assert torch.allclose(losses, torch.tensor([-2 / 3.5, 3 / 3.5]))


def test_dlr_by_hand():
    """-(z_y - the largest other) / (z1 - z3): -(5 - 3) / (5 - 2), and -(2 - 5) / the same."""
    losses = dlr(torch.tensor([[5.0, 3, 2, 1], [5, 3, 2, 1]]), torch.tensor([0, 2]))
    assert torch.allclose(losses, torch.tensor([-2 / 3, 1.0]))


def test_a_gradient_is_averaged_over_the_draws_of_a_network():
    """Of one that is a linear map, then another, then the first again: two thirds of the one, a third of the other."""

    class Alternating(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.passes = Linear(12, 5, seed=0), Linear(12, 5, seed=1), 0

        def forward(self, x):
            self.passes += 1
            return (self.one if self.passes % 2 else self.other)(x)

    net, x, y = Alternating(), torch.rand(7, 3, 2, 2, dtype=torch.float64), torch.arange(7) % 5
    with torch.no_grad():
        seen = FrozenModel(net, num_draws=3).gradient(
            x, lambda logits, labels: -logits.gather(1, labels[:, None])[:, 0], y
        )
    wanted = -(2 * net.one.weight[y] + net.other.weight[y]) / 3
    torch.testing.assert_close(seen.gradient.flatten(1), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen.logits, net.one(x))  # those of the last draw
    assert net.passes == 3


def test_draws_change_nothing_where_nothing_is_drawn():
    once, often = (apgd(golden_net(), X, Y, epsilon=0.03, seed=0, ids=IDS, num_draws=draws) for draws in (1, 4))
    assert torch.equal(once.x_adv, often.x_adv)
    assert not once.robust.all()


def test_the_start_is_at_the_border_and_centered():
    x = torch.full((300, 3, 6, 6), 0.5)
    delta = random_start(x, image_keys(0, "s", torch.arange(300)), 0.1) - x
    assert torch.allclose(delta.flatten(1).abs().amax(1), torch.tensor(0.1), atol=1e-6)
    assert delta.mean().abs() < 4 * 0.1 / (3 * delta.numel()) ** 0.5
    assert delta.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)
    assert random_start(torch.zeros(2, 3, 6, 6), image_keys(0, "s", torch.arange(2)), 0.1).min() == 0


def rivals_path(kind, net, x, y, start, *, epsilon, steps, targets=None, **how):
    rival = kind(net, n_iter=steps, eps=epsilon, norm="Linf", device="cpu", **how)
    rival.init_hyperparam(x)
    rival.y_target = targets
    return inputs_of(net, lambda: rival.attack_single_run(x, y, x_init=start))


@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
def test_the_path_of_the_published_code(loss):
    """With an epsilon that fools nobody: 101 iterates each, with all halvings and restarts from the best point.

    Four of sixty-four images may take another way: at a kink of the net a gradient's sign is a rounding matter.
    """
    net, epsilon = golden_net().requires_grad_(False), 0.004
    right = (net(X).argmax(1) == Y).nonzero().squeeze(1)
    robust = apgd_targeted(net, X, Y, epsilon=epsilon, seed=0, ids=IDS).robust[right]
    x, y = X[right][robust], Y[right][robust]
    target = net(x).argsort(dim=1, descending=True)[:, 1]
    start = random_start(x, image_keys(0, "s", torch.arange(len(x))), epsilon)
    if loss == "ce":
        theirs = rivals_path(APGDAttack, net, x, y, start, epsilon=epsilon, steps=100)
        ours = path(net, x, y, y, start, loss=cross_entropy, epsilon=epsilon)
    elif loss == "dlr":
        theirs = rivals_path(APGDAttack, net, x, y, start, epsilon=epsilon, steps=100, loss="dlr")
        ours = path(net, x, y, y, start, loss=dlr, epsilon=epsilon)
    else:
        theirs = rivals_path(APGDAttack_targeted, net, x, y, start, epsilon=epsilon, steps=100, targets=target)
        ours = path(net, x, y, torch.stack([y, target], 1), start, loss=targeted_dlr, epsilon=epsilon)
    assert len(x) >= 40
    assert len(ours) == len(theirs) == 101
    apart = (torch.stack(ours) - torch.stack(theirs)).abs().amax(dim=(0, 2, 3, 4))
    assert (apart <= 1e-6).sum() >= len(x) - 4


def path(net, x, y, against, start, *, loss, epsilon):
    with attacked(net, x, y) as (victim, *_):
        return inputs_of(net, lambda: ascend(victim, x, y, against, start, loss=loss, epsilon=epsilon, num_steps=100))


class Linear(nn.Module):
    def __init__(self, pixels, classes, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, pixels, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(classes, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


def worst_margin(model, x, y, epsilon):
    """Of a linear model, against each other class: at x - epsilon * sign(difference of the rows), clipped."""
    low, high = ((x + shift).clamp(0, 1).flatten(1).unsqueeze(1) for shift in (-epsilon, epsilon))
    rows = model.weight[y].unsqueeze(1) - model.weight
    worst = (rows * torch.where(rows > 0, low, high)).sum(2) + model.bias[y].unsqueeze(1) - model.bias
    return worst.scatter(1, y.unsqueeze(1), torch.inf)


@pytest.mark.parametrize(("attack", "classes"), [(apgd, 2), (apgd_targeted, 10)])
def test_a_linear_model_falls_just_where_the_closed_form_says(attack, classes):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(300, 1, 5, 5, generator=generator, dtype=torch.float64)
    model = Linear(25, classes, seed=2)
    with torch.no_grad():
        y = model(x).argmax(1)
        worst = worst_margin(model, x, y, 0.05).amin(1)
    robust = attack(model, x, y, epsilon=0.05, seed=0, ids=torch.arange(300)).robust
    assert 50 < robust.sum() < 250
    assert torch.equal(robust, worst > 0)


def test_weaker_settings_find_less():
    """So that the comparisons above could fail."""
    x, y, net = digits()
    settings = {"epsilon": 0.12, "seed": 0, "ids": torch.arange(len(x))}
    few, many = (apgd(net, x, y, **settings, num_steps=steps).robust.sum() for steps in (2, 100))
    assert few > many


def judged(*, rises, halved_before, best_before, best=2.0, steps=10):
    """Of one image after some steps: was its step halved?"""
    image, other = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    one, label = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    climb = Climb(
        image, label, label, x_adv=image, previous=image, gradient=image, best=other, best_gradient=other,
        best_loss=one * best, step_size=one, last_loss=one, rises=label + rises, best_at_check=one * best_before,
        halved_at_check=torch.tensor([halved_before]),
    )  # fmt: skip
    after = climb.judged(steps)
    halved = after.step_size.item() == 0.5
    assert torch.equal(after.x_adv, other if halved else image)
    assert torch.equal(after.gradient, after.x_adv)
    assert (after.rises.item(), after.best_at_check.item(), after.halved_at_check.item()) == (0, best, halved)
    return halved


def test_too_few_rises_halve_the_step():
    """At most 7.5 of 10, and at most 12 of 16."""
    assert judged(rises=7, halved_before=True, best_before=1.0)
    assert not judged(rises=8, halved_before=True, best_before=1.0)
    assert judged(rises=12, halved_before=True, best_before=1.0, steps=16)
    assert not judged(rises=13, halved_before=True, best_before=1.0, steps=16)


def test_no_better_point_halves_the_step_unless_it_was_just_halved():
    assert judged(rises=10, halved_before=False, best_before=2.0)
    assert not judged(rises=10, halved_before=True, best_before=2.0)
    assert not judged(rises=10, halved_before=False, best_before=1.9)


def test_targets_by_hand():
    assert likely_targets(torch.tensor([[3.0, 9, 4, 1]]), 2).tolist() == [[2, 0]]
