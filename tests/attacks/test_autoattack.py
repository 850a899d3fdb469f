"""What holds for AutoAttack and each of its attacks on any model: by image, in the ball, honest, without a trace."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bat_dist.attacks.apgd import apgd, apgd_targeted
from bat_dist.attacks.autoattack import STANDARD, StandardAttack, autoattack, confirmed
from bat_dist.attacks.fab import fab_targeted
from bat_dist.attacks.square import square
from bat_dist.attacks.standing import AttackOutcome
from tests.attacks.attack_nets import bits, state
from tests.attacks.robust_nets import EPSILON, IDS, Forward, X, Y, digits, golden_net, inputs_of

SHORT = {
    "apgd-ce": StandardAttack(partial(apgd, num_steps=12), 2),
    "apgd-t": StandardAttack(partial(apgd_targeted, num_steps=12, num_targets=3), 4),
    "fab-t": StandardAttack(partial(fab_targeted, num_steps=8, num_targets=3), 4),
    "square": StandardAttack(partial(square, num_queries=60), 2),
}
SETTINGS: dict[str, Any] = {"epsilon": EPSILON, "seed": 0, "ids": IDS}
each_attack = pytest.mark.parametrize("name", SHORT)


class Denied(nn.Module):
    """The golden net with BatchNorm in front and dropout, in train mode, some of it frozen."""

    def __new__(cls):
        model = nn.Sequential(nn.BatchNorm2d(3), *golden_net()[:-1], nn.Dropout(0.5), golden_net()[-1]).train()
        model[1].requires_grad_(False)
        model[-1].bias.grad = torch.ones(10)
        return model


def attack(name, model=None, x=X, y=Y, **settings):
    return SHORT[name].attack(golden_net() if model is None else model, x, y, **SETTINGS | settings)


# --- by image


@each_attack
@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_and_order_do_not_matter(name, size):
    model, order = golden_net().double(), torch.randperm(len(X), generator=torch.Generator().manual_seed(size))
    whole = attack(name, model, X.double())
    robust, x_adv = torch.zeros_like(whole.robust), torch.zeros_like(whole.x_adv)
    for rows in order.split(size):
        robust[rows], x_adv[rows] = attack(name, model, X[rows].double(), Y[rows], ids=IDS[rows])
    assert torch.equal(robust, whole.robust)
    assert (x_adv - whole.x_adv).abs().max() < 1e-9


@pytest.mark.parametrize("size", [1, 5, 64])
def test_batches_do_not_matter_to_the_whole(size):
    whole, parts = (
        autoattack(golden_net().double(), X.double(), Y, **SETTINGS, attacks=SHORT, batch_size=batch)
        for batch in (32, size)
    )
    assert torch.equal(parts.robust, whole.robust)
    assert (parts.x_adv - whole.x_adv).abs().max() < 1e-9
    assert whole.robust[-1].sum() < whole.robust[1].sum() < whole.robust[0].sum()


def test_halves_of_a_batch_are_the_batch_in_single_precision_too():
    whole = autoattack(golden_net(), X, Y, **SETTINGS, attacks=SHORT).robust
    halves = [
        autoattack(golden_net(), X[rows], Y[rows], **dict(SETTINGS, ids=IDS[rows]), attacks=SHORT).robust
        for rows in IDS.split(32)
    ]
    assert torch.equal(torch.cat(halves, dim=1), whole)


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "square"])
@pytest.mark.parametrize("other", [{"seed": 1}, {"ids": IDS + 1}])
def test_seed_and_id_decide(name, other):
    assert not torch.equal(attack(name).x_adv, attack(name, **other).x_adv)
    assert torch.equal(attack(name).x_adv, attack(name).x_adv)


@each_attack
def test_the_global_generator_is_not_used(name):
    torch.manual_seed(1)
    first = attack(name)
    torch.manual_seed(2)
    assert torch.equal(first.x_adv, attack(name).x_adv)


@each_attack
def test_memory_format_and_grad_mode_do_not_matter(name):
    model = golden_net().double()
    expected = attack(name, model, X.double())
    with torch.inference_mode():
        other = attack(name, model, X.double().contiguous(memory_format=torch.channels_last))
    assert torch.equal(other.robust, expected.robust)
    assert (other.x_adv - expected.x_adv).abs().max() < 1e-9


# --- honest


@each_attack
@pytest.mark.parametrize("epsilon", [EPSILON, 0.1])
def test_the_ball_the_range_and_the_flags(name, epsilon):
    x = X.clone().requires_grad_()
    robust, x_adv = attack(name, x=x, epsilon=epsilon)
    assert torch.equal(x, X)
    assert (x_adv - X).abs().max() <= epsilon + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert not x_adv.requires_grad
    assert torch.equal(golden_net()(x_adv).argmax(1) == Y, robust)
    assert torch.equal(x_adv[robust], X[robust])
    wrong_before = golden_net()(X).argmax(1) != Y
    assert torch.equal(x_adv[wrong_before], X[wrong_before])
    assert (~robust & ~wrong_before).any()


def test_each_stage_adds_to_the_last_and_keeps_what_fell():
    result = autoattack(golden_net(), X, Y, **SETTINGS, attacks=SHORT)
    assert result.stages == ("clean", *SHORT)
    assert result.robust.shape == (5, 64)
    assert not (result.robust[1:] & ~result.robust[:-1]).any()
    first = attack("apgd-ce")
    assert torch.equal(result.robust[1], first.robust)
    assert torch.equal(result.x_adv[~first.robust], first.x_adv[~first.robust])


def test_an_undefended_model_ends_at_nothing():
    x, y, net = digits()
    result = autoattack(net, x[:60], y[:60], epsilon=0.3, seed=0, ids=torch.arange(60))
    assert result.robust[0].float().mean() > 0.9
    assert not result.robust[-1].any()


def test_a_masked_gradient_stops_no_square():
    """Rounding has no gradient: APGD and FAB stand still, Square does not care."""

    class Masked(nn.Module):
        def forward(self, x):
            return net((x * 64).round() / 64)

    x, y, net = digits()
    settings = {"epsilon": 0.2, "seed": 0, "ids": torch.arange(60)}
    assert square(Masked(), x[:60], y[:60], **settings, num_queries=500).robust.sum() < 30
    assert apgd(Masked(), x[:60], y[:60], **settings, num_steps=10).robust.sum() > 40


def test_what_falls_only_by_rounding_is_not_counted():
    robust = torch.zeros(len(X), dtype=torch.bool)
    x_adv = X + 1e-9
    right = golden_net()(X).argmax(1) == Y
    outcome = confirmed(golden_net(), X, Y, AttackOutcome(robust, x_adv))
    assert torch.equal(outcome.robust, right)
    assert torch.equal(outcome.x_adv[right], X[right])


def test_the_whole_confirms():
    def boast(model, x, y, **_):
        return AttackOutcome(torch.zeros_like(y, dtype=torch.bool), x + 1e-9)

    robust = autoattack(golden_net(), X, Y, **SETTINGS, attacks={"boast": StandardAttack(boast, 2)}).robust
    assert torch.equal(robust[1], robust[0])


def test_all_wrong_from_the_start():
    wrong = (golden_net()(X).argmax(1) + 1) % 10
    for name in SHORT:
        robust, x_adv = attack(name, y=wrong)
        assert not robust.any()
        assert torch.equal(x_adv, X)
    assert not autoattack(golden_net(), X, wrong, **SETTINGS).robust.any()


# --- without a trace


@each_attack
def test_the_model_is_left_as_found(name):
    model = Denied()
    before = state(model)
    attack(name, model)
    assert state(model) == before


@each_attack
@pytest.mark.parametrize("at", [1, 2, 7])
def test_a_model_that_raises_is_left_as_found(name, at):
    model, calls = Denied(), []

    def fail(*_):
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("out of memory")

    model[-1].register_forward_hook(fail)
    before = state(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        attack(name, model)
    assert state(model) == before


@each_attack
def test_eval_mode_and_no_parameter_gradients(name):
    def look(module, _):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())

    model = Denied()
    model.register_forward_pre_hook(look)
    rng = bits(torch.get_rng_state())
    attack(name, model)
    assert bits(torch.get_rng_state()) == rng


class Stubborn(nn.Module):
    """Always class 0, by far, yet with a gradient."""

    def forward(self, x):
        return torch.arange(10.0, 0, -1) * 100 + 1e-3 * x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("name", "passes"), [("apgd-ce", 13), ("apgd-t", 3 * 13), ("fab-t", 3 * 2 * 8), ("square", 61)]
)
def test_no_needless_pass(name, passes):
    y = torch.zeros_like(Y)
    assert len(inputs_of(model := Stubborn(), lambda: attack(name, model, y=y))) == 1 + passes
    logits = Stubborn()(X)
    assert len(inputs_of(model := Stubborn(), lambda: attack(name, model, y=y, logits=logits))) == passes


def test_a_fallen_image_is_not_asked_again():
    model = golden_net()
    sizes = [len(x) for x in inputs_of(model, lambda: attack("apgd-ce", model, epsilon=0.1))]
    assert sizes[0] == 64
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) < 14  # all fell before the end


# --- refused


class Untouched(nn.Module):
    def forward(self, x):
        raise AssertionError("the model was asked")


@pytest.mark.parametrize("run", [partial(attack, name) for name in SHORT], ids=SHORT)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, r"epsilon must be in \(0, 1\], got 0"),
        ({"x": X * 255}, r"x must lie in \[0, 1\], got 0 to 255: divide bytes by 255"),
        ({"x": X.half()}, "x must be float32 or float64"),
        ({"y": Y.int()}, "y must be torch.int64"),
        ({"ids": IDS[:3]}, r"ids must be torch.int64 of shape \[64\] on cpu, a number that names each image"),
        ({"ids": IDS.float()}, "got torch.float32"),
    ],
)
def test_bad_input(run, settings, message):
    with pytest.raises(ValueError, match=message):
        run(Untouched(), **settings)


@each_attack
def test_labels_of_another_data_set(name):
    with pytest.raises(ValueError, match="labels must be 0 to 9, one of the model's 10 classes, got 99"):
        attack(name, y=torch.where(IDS == 5, 99, Y % 9))


def few_classes(count):
    return nn.Sequential(golden_net(), nn.Linear(10, count))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_too_few_classes_for_the_standard(count):
    message = (
        f"apgd-t and fab-t need at least 10 classes, the model has {count}: "
        "AutoAttack standard is not defined for it; evaluate it with PGD, CW, APGD-CE and Square"
    )
    model = few_classes(count)
    with pytest.raises(ValueError, match=message):
        autoattack(model, X, Y % count, **SETTINGS)


@pytest.mark.parametrize(("attack", "name"), [(apgd_targeted, "APGD-T"), (fab_targeted, "FAB-T")])
def test_more_targets_than_wrong_classes(attack, name):
    with pytest.raises(ValueError, match=f"{name} aims at 9 wrong classes, but the model has 9 in all"):
        attack(few_classes(9), X, Y % 9, **SETTINGS)


def test_the_dlr_loss_needs_four_classes():
    with pytest.raises(ValueError, match="the targeted DLR loss needs at least 4 classes, the model has 3"):
        apgd_targeted(few_classes(3), X, Y % 3, **SETTINGS, num_targets=2)


def test_two_classes_are_enough_for_the_others():
    attacks = {name: SHORT[name] for name in ("apgd-ce", "square")}
    assert autoattack(few_classes(2), X, Y % 2, **SETTINGS, attacks=attacks).robust.shape == (3, 64)


def test_the_standard_is_the_published_one():
    assert list(STANDARD) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    budgets = {"apgd-ce": 101, "apgd-t": 909, "fab-t": 1800, "square": 5001}
    batch = X[:2], torch.zeros_like(Y[:2])
    settings = SETTINGS | {"ids": IDS[:2], "logits": Stubborn()(X[:2])}
    for name, passes in budgets.items():
        model = Stubborn()
        assert len(inputs_of(model, partial(STANDARD[name].attack, model, *batch, **settings))) == passes


def test_square_alone_needs_no_backward():
    robust = attack("square", nn.Sequential(Forward(), *golden_net())).robust
    assert torch.equal(robust, attack("square").robust)
