"""What holds for every attack on every model, and what only the right attack does."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from bat_dist.attacks.linf import gaussian_start, no_start, uniform_start
from bat_dist.attacks.losses import cross_entropy, kl_divergence, margin
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.pgd import fgsm, pgd, pgd_path
from bat_dist.models.build import build
from tests.attacks.attack_nets import MODELS, images, labels, linear, make, seeded, state
from tests.helpers.grey_digits import grey_digits

BALL = {"epsilon": 8 / 255, "step_size": 4 / 255, "num_steps": 3}
KL = {"loss": kl_divergence, "against": "clean_logits", "start": gaussian_start}


def random(attack, **settings):
    """An attack that draws: with a fresh generator of one seed at each call."""
    return lambda *batch, **more: attack(*batch, **settings, **more, generator=seeded(0))


ATTACKS = {
    "pgd": random(pgd, **BALL),
    "pgd from x": partial(pgd, **BALL, start=no_start),
    "margin": random(pgd, **BALL, loss=margin),
    "kl": random(pgd, **BALL, **KL),
    "best": random(pgd, **BALL, best_iterate=True),
    "best from an unclipped start": random(
        pgd, **BALL | {"num_steps": 1}, best_iterate=True, start=partial(gaussian_start, std=0.1)
    ),
    "restarts": random(pgd, **BALL, restarts=2),
    "bf16": random(pgd, **BALL, precision="bf16"),
    "path": lambda *batch, **more: random(pgd_path, **BALL)(*batch, **more).x_adv,
    "fgsm": partial(fgsm, epsilon=8 / 255),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS)
each_model = pytest.mark.parametrize("model", MODELS)
each_mode = pytest.mark.parametrize("mode", ["eval", "keep"])


# --- for every attack on every model


@each_mode
@each_model
@each_attack
def test_the_result_is_in_the_ball_and_the_model_as_before(attack, model, mode):
    model, x, y = make(model), images(), labels()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = state(model)
    x_adv = ATTACKS[attack](model, x, y, mode=mode)
    assert state(model) == before
    assert (x_adv - x).abs().max() <= 8 / 255 + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (x_adv.dtype, x_adv.shape, x_adv.requires_grad) == (x.dtype, x.shape, False)
    assert not torch.equal(x_adv, x)
    assert torch.equal(x, images())


@each_mode
@each_model
@pytest.mark.parametrize("attack", ["pgd", "kl", "path"])
def test_a_model_that_raises_in_the_middle_is_left_as_before(attack, model, mode):
    model, calls = make(model), []

    def fail_at_the_second(*_):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")

    model[-1].register_forward_hook(fail_at_the_second)
    before = state(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        ATTACKS[attack](model, images(), labels(), mode=mode)
    assert state(model) == before


@each_attack
def test_one_forward_per_step_without_parameter_gradients_in_the_format_of_x(attack):
    model, seen = make("bn_train"), []
    x = images().contiguous(memory_format=torch.channels_last)

    def look(module, inputs):
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())

    model.register_forward_pre_hook(look)
    x_adv = ATTACKS[attack](model, x, labels())
    counts = {"fgsm": 1, "kl": 4, "path": 4, "best": 4, "best from an unclipped start": 2, "restarts": 8}
    assert seen == [True] * counts.get(attack, 3)
    assert x_adv.is_contiguous(memory_format=torch.channels_last)


@each_attack
def test_a_seed_decides_whatever_the_memory_format(attack):
    model, x, y = make("linear").double(), images().double(), labels()
    torch.manual_seed(1)
    first = ATTACKS[attack](model, x, y)
    torch.manual_seed(2)
    assert torch.equal(first, ATTACKS[attack](model, x, y))
    assert torch.equal(first, ATTACKS[attack](model, x.contiguous(memory_format=torch.channels_last), y))


def test_with_keys_an_image_is_attacked_alike_in_any_batch():
    """Also at its restarts, of which each has a start of its own."""
    model, x, y, at = make("linear"), images(), labels(), torch.tensor([2, 0])
    keys = image_keys(0, "a", torch.arange(len(x)))
    again = partial(pgd, model, epsilon=0.1, step_size=1e-4, num_steps=1, restarts=3)
    whole = again(x, y, generator=keys)
    assert torch.equal(again(x[at], y[at], generator=keys[at]), whole[at])
    assert not torch.equal(again(x, y, generator=keys, restarts=1), whole)


def test_the_generator_goes_on():
    model, x, y, generator = make("linear"), images(), labels(), seeded(0)
    settings = {"epsilon": 0.1, "step_size": 1e-4, "num_steps": 1, "generator": generator}
    assert not torch.equal(pgd(model, x, y, **settings), pgd(model, x, y, **settings))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@each_attack
def test_the_callers_grad_mode_does_not_matter(attack, context):
    model = make("bn_train")
    expected = ATTACKS[attack](model, images(), labels(), mode="keep")
    with context():
        x_adv = ATTACKS[attack](model, images(), labels(), mode="keep")
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert torch.equal(x_adv, expected)
    assert not x_adv.is_inference()


# --- among a caller's own work


@each_mode
def test_a_graph_from_before_the_attack_still_has_its_gradients(mode):
    """TRADES: natural pass, attack, robust pass, one backward."""
    model, lone = make("bn_train"), make("bn_train")
    x, y = images(), labels()
    natural = model(x).sum()
    ATTACKS["pgd"](model, x, y, mode=mode)
    natural.backward()
    lone(x).sum().backward()
    for ours, expected in zip(model.parameters(), lone.parameters(), strict=True):
        assert ours.grad is not None
        assert expected.grad is not None
        assert torch.equal(ours.grad, expected.grad)


def test_inside_a_callers_autocast_the_weights_keep_their_gradients_and_fp32_means_fp32():
    model, dtypes = make("bn_train"), []
    model[0].register_forward_hook(lambda *seen: dtypes.append(seen[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        x_adv = random(pgd, **BALL, **KL)(model, images(), labels())
        loss = model(x_adv).float().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert dtypes == [torch.float32] * 4 + [torch.bfloat16]
    assert torch.equal(x_adv, random(pgd, **BALL, **KL)(make("bn_train"), images(), labels()))


def test_bf16_runs_the_network_in_bf16_and_all_else_in_the_dtype_of_x():
    model, network, losses = make("bn_train"), [], []
    model[0].register_forward_hook(lambda *seen: network.append(seen[2].dtype))

    def loss(logits, y):
        losses.append(logits.dtype)
        return cross_entropy(logits, y)

    ATTACKS["bf16"](model, images(), labels(), loss=loss)
    assert network == [torch.bfloat16] * 3
    assert losses == [torch.float32] * 3


def test_in_train_mode_the_attack_sees_statistics_of_the_batch():
    model, twin, x, y = make("bn_train"), make("bn_train"), images(), labels()
    twin.get_buffer("1.running_mean").add_(5)  # which only eval mode would notice
    keep = [ATTACKS["pgd from x"](m, x, y, mode="keep") for m in (model, twin)]
    assert torch.equal(*keep)
    assert not torch.equal(keep[0], ATTACKS["pgd from x"](twin, x, y))


# --- a linear model, where the answer is known


def two_classes():
    """logits = (0, w.x + b), some weights 0: the worst image of class 0 is x + epsilon * sign(w)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    weights = torch.randn(48, generator=seeded(5), dtype=torch.float64)
    weights[::7] = 0
    with torch.no_grad():
        model.get_parameter("1.weight").copy_(torch.stack([torch.zeros(48, dtype=torch.float64), weights]))
    return model, weights.view(3, 4, 4)


@pytest.mark.parametrize("loss", [cross_entropy, margin])
@pytest.mark.parametrize("label", [0, 1])
def test_pgd_on_a_linear_model_is_the_closed_form(label, loss):
    model, weights = two_classes()
    x, y = images().double(), torch.full((6,), label)
    sign = weights.sign() if label == 0 else -weights.sign()
    expected = (x + 0.1 * sign).clamp(0, 1)
    settings = {"epsilon": 0.1, "loss": loss}
    from_x = pgd(model, x, y, step_size=0.03, num_steps=4, start=no_start, **settings)
    assert torch.allclose(from_x, expected, rtol=0, atol=1e-12)
    from_noise = pgd(model, x, y, step_size=0.03, num_steps=7, generator=seeded(0), **settings)
    moved = weights != 0  # the others rest where they started
    assert torch.allclose(from_noise[:, moved], expected[:, moved], rtol=0, atol=1e-12)


def test_fgsm_on_a_linear_model():
    model, weights = two_classes()
    x = images().double()
    expected = (x + 0.1 * weights.sign()).clamp(0, 1)
    assert torch.allclose(fgsm(model, x, torch.zeros(6).long(), epsilon=0.1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", [no_start, uniform_start])
def test_black_and_white_pixels_move_inward(start):
    """In torch a clamp inside the graph has gradient 0 at its bounds, and would leave them where they are."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    x = (images() > 0.5).double()
    with torch.no_grad():
        weight = model.get_parameter("1.weight")
        weight[0], weight[1] = 0, (1 - 2 * x[0]).flatten()
    x_adv = pgd(model, x[:1], torch.zeros(1).long(), epsilon=0.1, step_size=0.1, num_steps=2, start=start,
                generator=seeded(0))  # fmt: skip
    assert torch.allclose((x_adv - x[:1]).abs(), torch.full_like(x[:1], 0.1))


def test_an_image_rests_once_the_margin_has_its_confidence():
    model, x = linear(), images()
    with torch.no_grad():
        wrong = model(x).argmin(1)
    loss = partial(margin, confidence=0.0)
    assert torch.equal(pgd(model, x, wrong, **BALL, loss=loss, start=no_start), x)
    assert not torch.equal(pgd(model, x, wrong, **BALL, loss=margin, start=no_start), x)


# --- restarts, best iterate


def losses_of(model, x, y):
    with torch.no_grad():
        return cross_entropy(model(x), y)


def test_of_several_restarts_each_sample_keeps_the_worst():
    model, x, y, generator = make("bn_eval"), images(), labels(), seeded(0)
    settings = {"epsilon": 0.2, "step_size": 0.05, "num_steps": 1}
    runs = [pgd(model, x, y, **settings, generator=generator) for _ in range(4)]
    best = torch.stack([losses_of(model, run, y) for run in runs]).max(0)
    x_adv = pgd(model, x, y, **settings, restarts=4, generator=seeded(0))
    assert torch.equal(x_adv, torch.stack(runs)[best.indices, torch.arange(6)])
    assert len(best.indices.unique()) > 1


def test_with_the_best_iterate_more_steps_never_help():
    model, x, y = make("bn_eval"), images(), labels()
    settings = {"epsilon": 0.2, "step_size": 0.15, "start": no_start}  # steps so large that the path is no ascent
    best = [losses_of(model, pgd(model, x, y, **settings, num_steps=k, best_iterate=True), y) for k in range(1, 9)]
    last = [losses_of(model, pgd(model, x, y, **settings, num_steps=k), y) for k in range(1, 9)]
    expected = torch.stack([losses_of(model, x, y), *last]).cummax(0).values[1:]
    assert torch.equal(torch.stack(best), expected)
    assert not torch.equal(torch.stack(last), expected)


@pytest.mark.parametrize(("settings", "place"), [({"restarts": 3}, -1), ({"best_iterate": True}, 0)])
def test_of_equal_losses(settings, place):
    """Restarts keep the later, the best iterate is the earliest."""
    starts = [images() * factor for factor in (1.0, 0.99, 0.98)]
    left = iter(starts)
    x_adv = pgd(make("linear"), images(), labels(), epsilon=0.1, step_size=1e-3, num_steps=1, **settings,
                loss=lambda logits, y: 0 * cross_entropy(logits, y),
                start=lambda x, *, epsilon, generator: next(left))  # fmt: skip
    assert torch.equal(x_adv, starts[place])


# --- a trained net


@pytest.fixture(scope="module")
def digits():
    """A tiny net trained for a moment, and the images it is tested on."""
    x, y = grey_digits()
    x = x.unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build("tinynet", 10, mean=(0.3,) * 3, std=(0.35,) * 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for order in (torch.randperm(1500, generator=seeded(epoch)) for epoch in range(4)):
        for batch in order.split(50):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).mean().backward()
            optimizer.step()
    return model.eval(), x[1500:], y[1500:]


def right(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) == y


def accuracy(model, x, y):
    return right(model, x, y).double().mean().item()


def attacked(digits, **settings):
    model, x, y = digits
    settings = {"epsilon": 16 / 255, "step_size": 4 / 255, "num_steps": 10, "generator": seeded(0)} | settings
    return accuracy(model, pgd(model, x, y, **settings), y)


def test_accuracy_falls_to_nothing(digits):
    assert accuracy(*digits) > 0.9
    falling = [attacked(digits, epsilon=size / 255, step_size=size / 4 / 255) for size in (4, 16, 64)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.02


@pytest.mark.parametrize(
    ("settings", "at_most"),
    [
        ({"loss": margin}, 0.02),
        ({"precision": "bf16"}, 0.02),
        ({"restarts": 2}, 0.02),
        ({"mode": "keep"}, 0.02),
        (KL, 0.4),  # moves away from what the net says, and from 7% of the digits it says something wrong
    ],
)
def test_every_kind_breaks_the_net(digits, settings, at_most):
    assert attacked(digits, epsilon=64 / 255, step_size=16 / 255, **settings) <= at_most


def test_more_steps_never_help_the_defender(digits):
    by_steps = [attacked(digits, num_steps=count, step_size=2 / 255) for count in (1, 3, 10, 20)]
    assert all(more <= fewer + 0.01 for fewer, more in pairwise(by_steps))
    assert by_steps[-1] < by_steps[0] - 0.1


def test_the_path_tells_how_the_model_fares(digits):
    model, x, y = digits
    x, y, settings = x[:40], y[:40], {"epsilon": 0.2, "step_size": 0.02, "start": no_start}
    path = pgd_path(model, x, y, **settings, num_steps=6)
    results = [x, *(pgd(model, x, y, **settings, num_steps=count) for count in range(1, 7))]
    expected = torch.stack([right(model, result, y) for result in results])
    assert torch.equal(path.x_adv, results[-1])
    assert torch.equal(path.correct_at_step, expected)
    assert torch.equal(path.kappa, expected[:-1].sum(0))
    assert set(path.kappa.tolist()) >= {1, 3, 6}
    short = pgd_path(model, x, y, **settings, num_steps=6, look_at_last=False)
    assert torch.equal(short.correct_at_step, expected[:-1])
    assert torch.equal(short.kappa, path.kappa)
    assert torch.equal(short.x_adv, path.x_adv)
