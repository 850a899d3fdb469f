"""A whole training step, attack to weights, ends where the published scripts and our own reference end.

tests/golden/04_trainstep_bn has TRADES, MART, PGD-AT ("madry") and GAIRAT, 08_bat the step of BAT; float64. 04 is a
cut: inputs and small tensors are whole; of a larger result it has every `stride`-th value and, as `KEY.row_sums`, a sum
over each row in which no value has weight 0 (of larger weights after the step these alone: they follow from the
gradient). GAIRAT's images equal those of madry and are stored once.
"""

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bat_dist.attacks.losses import kl_divergence
from bat_dist.attacks.pgd import pgd, pgd_path
from bat_dist.methods.bat import Bat, poisoning_weights
from bat_dist.methods.gairat import Gairat, geometry_weights, normalized
from bat_dist.methods.mart import Mart
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.trades import Trades
from tests.methods.near import assert_near

GOLDEN = Path(__file__).parents[1] / "golden"
VECTORS = dict(np.load(GOLDEN / "04_trainstep_bn.npz"))
BAT = {key: array for key, array in np.load(GOLDEN / "08_bat.npz").items() if key.startswith("step.")}
TOLERANCE = 1e-9
KEPT = 128  # values at most of a larger tensor


class BnNet(nn.Module):
    """The net of both files, with the numbers that start with `before` as weights."""

    def __init__(self, vectors, before):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.fc = nn.Linear(256, 10)
        self.double().load_state_dict({name: torch.tensor(vectors[before + name]) for name in self.state_dict()})

    def forward(self, x, with_features=False):
        x = functional.relu(self.bn1(self.conv1(x)))
        features = functional.relu(self.bn2(self.conv2(x))).flatten(1)
        return (self.fc(features), features) if with_features else self.fc(features)


class Step(NamedTuple):
    """What a step leaves behind: `named` has loss, x_adv, kappa and weights, as far as the method has them."""

    named: dict
    grad: dict
    after: dict


def tensor(key):
    return torch.tensor(VECTORS[key], dtype=torch.float64 if VECTORS[key].dtype == np.float32 else None)


X, Y = tensor("x"), tensor("y")
GAUSSIAN = X + 0.001 * tensor("normal")
UNIFORM = (X + tensor("uniform_noise")).clamp(0, 1)


def ball(config, start) -> dict[str, Any]:
    epsilon, step_size, num_steps = config
    settings = {"epsilon": epsilon, "step_size": step_size, "num_steps": int(num_steps)}
    return settings | {"start": lambda x, *, epsilon, generator: start}


NEAR, FAR = ball(VECTORS["cfg"], GAUSSIAN), ball(VECTORS["cfg"], UNIFORM)


# --- the steps: (model, *, settings of the attack) -> loss, and what else the file knows of it


def trades(model, *, natural_again=False, **attack):
    x_adv = pgd(model, X, Y, **NEAR | attack, loss=kl_divergence, against="clean_logits")
    loss = Trades(beta=float(VECTORS["trades.beta"])).objective(model(X), model(x_adv), Y)
    if natural_again:
        model(X)
    return loss, {"x_adv": x_adv}


def mart(model, **attack):
    x_adv = pgd(model, X, Y, **NEAR | attack)
    loss = Mart(beta=float(VECTORS["mart.beta"])).objective(model(X), model(x_adv), Y)
    return loss, {"x_adv": x_adv}


def madry(model, **attack):
    path = pgd_path(model, X, Y, **FAR | attack, look_at_last=False)
    return PgdAt().objective(model(path.x_adv), Y), {"x_adv": path.x_adv, "kappa": path.kappa}


def gairat(model, *, progress=0.5, **attack):
    method = Gairat(final_lambda=float(VECTORS["gairat.lambda"]))
    settings: dict[str, Any] = {"num_steps": FAR["num_steps"]}
    path = pgd_path(model, X, Y, **FAR | attack)
    loss = method.objective(model(path.x_adv), Y, path.kappa, progress=progress, **settings)
    raw = geometry_weights(path.kappa.double(), lambda_=method.lambda_at(1), function=method.function, **settings)
    return loss, {"x_adv": path.x_adv, "kappa": path.kappa, "weights": normalized(raw)}


METHODS = {"trades": partial(trades, natural_again=True), "mart": mart, "madry": madry, "gairat": gairat}


def take(step, model=None, **settings):
    """One step of SGD in train mode."""
    model = BnNet(VECTORS, "weights_before.").train() if model is None else model
    lr, momentum, weight_decay = VECTORS["sgd"]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    loss, named = step(model, **settings)
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        gradients[name] = parameter.grad.clone()
    optimizer.step()
    return Step({"loss": loss.detach()} | named, gradients, model.state_dict())


# --- comparison


def stride(large):
    """The smallest that keeps at most KEPT values and does not keep to the same columns."""
    least = -(-large.numel() // KEPT)
    return next(step for step in itertools.count(least) if math.gcd(step, large[0].numel()) == 1)


def row_sums(large):
    rows = large.reshape(len(large), -1)
    return rows @ torch.arange(rows.shape[1], dtype=rows.dtype).cos()


def expect(key, actual):
    if not actual.is_floating_point():
        np.testing.assert_array_equal(actual, VECTORS[key])
    elif actual.numel() <= KEPT:
        assert_near(actual, VECTORS[key], TOLERANCE)
    else:
        assert_near(row_sums(actual), VECTORS[f"{key}.row_sums"], TOLERANCE)
        if ".after." not in key:
            assert_near(actual.flatten()[:: stride(actual)], VECTORS[key], TOLERANCE)


def expect_step(method, step, *, but=()):
    for name, value in step.named.items():
        expect("madry.x_adv" if (method, name) == ("gairat", "x_adv") else f"{method}.{name}", value)
    for name, value in step.grad.items():
        expect(f"{method}.grad.{name}", value)
    for name, value in step.after.items():
        if name not in but:
            expect(f"{method}.after.{name}", value)


# --- the published methods


@pytest.mark.parametrize("method", METHODS)
def test_a_step(method):
    expect_step(method, take(METHODS[method]))


def test_trades_with_one_natural_pass_differs_in_the_running_statistics_alone():
    """The published script passes the natural images once more after the adversarial ones."""
    step = take(trades)
    statistics = [name for name in step.after if "running" in name or "num_batches" in name]
    assert len(statistics) == 6
    expect_step("trades", step, but=statistics)
    for name in statistics:
        with pytest.raises(AssertionError):
            expect(f"trades.after.{name}", step.after[name])


def test_gairat_before_it_begins_is_pgd_at():
    step = take(gairat, progress=0.49)
    del step.named["weights"]
    expect_step("madry", step)


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_passes_in_train_mode(method):
    before, after = VECTORS["weights_before.bn1.num_batches_tracked"], take(METHODS[method]).after
    assert after["bn1.num_batches_tracked"].item() - before == VECTORS[f"{method}.train_mode_forwards"]


def test_nothing_in_the_file_is_left_out():
    inputs = {"x", "y", "normal", "uniform_noise", "sgd", "cfg", "trades.beta", "mart.beta", "gairat.lambda"}
    expected = inputs | {f"{method}.train_mode_forwards" for method in METHODS}
    model = BnNet(VECTORS, "weights_before.")
    state, parameters = model.state_dict(), dict(model.named_parameters())
    expected |= {f"weights_before.{name}" for name in state}
    for method in METHODS:
        expected |= {f"{method}.loss", f"{method}.x_adv"} | {f"{method}.grad.{name}" for name in parameters}
        expected |= {f"{method}.after.{name}" for name in state}
    expected |= {"madry.kappa", "gairat.kappa", "gairat.weights"}
    assert {key.removesuffix(".row_sums") for key in VECTORS} == expected - {"gairat.x_adv"}


# --- what a step could get wrong, and the file would show


def in_eval_mode(model, **attack):
    return madry(model.eval(), **attack)


def adversarial_pass_first(model):
    x_adv = pgd(model, X, Y, **NEAR)
    adv, nat = model(x_adv), model(X)
    return Mart(beta=5).objective(nat, adv, Y), {"x_adv": x_adv}


def with_the_target_cut(model):
    x_adv = pgd(model, X, Y, **NEAR, loss=kl_divergence, against="clean_logits")
    nat, adv = model(X), model(x_adv)
    detached = Trades(beta=6).objective(nat.detach(), adv, Y)
    natural = functional.cross_entropy(nat, Y)
    return detached + natural - natural.detach(), {"x_adv": x_adv}


@pytest.mark.parametrize(
    ("method", "step", "settings"),
    [
        *((method, step, {"mode": "keep"}) for method, step in METHODS.items()),
        *((method, step, {"num_steps": 9}) for method, step in METHODS.items()),
        ("mart", mart, {"start": FAR["start"]}),
        ("madry", madry, {"start": NEAR["start"]}),
        ("madry", in_eval_mode, {}),
        ("mart", adversarial_pass_first, {}),
        ("trades", with_the_target_cut, {}),
    ],
)
def test_a_wrong_step_would_be_seen(method, step, settings):
    with pytest.raises(AssertionError):
        expect_step(method, take(step, **settings), but=["bn1.num_batches_tracked", "bn2.num_batches_tracked"])


# --- BAT


def bat(model):
    x, y, mem = (torch.tensor(BAT[f"step.{name}"]) for name in ("x", "y", "mem"))
    alpha, beta, sigma, tau = BAT["step.hyper_alpha_beta_sigma_tau"]
    start = (x + torch.tensor(BAT["step.noise"])).clamp(0, 1)
    x_adv = pgd(model, x, y, **ball(BAT["step.cfg"], start))
    logits, features = model(x_adv, with_features=True)
    loss = Bat(alpha=alpha, beta=beta, sigma=sigma, tau=tau).objective(logits, features, y, mem)
    weights = poisoning_weights(logits, y, mem, alpha=alpha, sigma=sigma)
    return loss, {"x_adv": x_adv, "logits": logits.detach(), "h": features.detach(), "weights": weights}


def test_a_step_of_bat():
    step = take(bat, BnNet(BAT, "step.before.").train())
    assert_near(step.named.pop("loss"), BAT["step.pos_plus_neg.l2.total"], TOLERANCE)
    for name, value in step.named.items():
        assert_near(value, BAT[f"step.{name}"], TOLERANCE)
    for name, value in step.grad.items():
        assert_near(value, BAT[f"step.pos_plus_neg.l2.grad.{name}"], 1e-8)
    statistics = [key for key in BAT if key.startswith("step.after_forward.")]
    assert len(statistics) == 4
    for key in statistics:
        assert_near(step.after[key.removeprefix("step.after_forward.")], BAT[key], TOLERANCE)
