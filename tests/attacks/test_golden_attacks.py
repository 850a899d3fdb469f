"""Given the same weights, images and starts, our attacks end where the published ones do (tests/golden/03_attacks).

The file is a subset of the references' vectors (float64): the relu net whole; of the softplus net kappa and correctness
everywhere, and images of one case per family. Arrays that equal another one are stored once: SAME.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bat_dist.attacks.linf import no_start
from bat_dist.attacks.losses import cross_entropy, kl_divergence, margin
from bat_dist.attacks.pgd import fgsm, pgd, pgd_path

GOLDEN = Path(__file__).parents[1] / "golden" / "03_attacks.npz"
TOLERANCE = 1e-9
NETS = {"relu": nn.ReLU, "softplus": nn.Softplus}
LOSSES = {"pgd_ce": cross_entropy, "pgd_margin": margin}
KL = {"loss": kl_divergence, "against": "clean_logits"}
EIGHT = {"epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": 10}
SAME = {  # in the reference's file these are equal, array for array
    "ta_pgd.x_adv": "cfgA.pgd_ce.clean.x_adv",
    "madry_robustness.norm0.best0.x_adv": "cfgA.pgd_ce.clean.x_adv",
    "cfgB.gair_kl_pgd.x_adv": "cfgB.trades_kl_pgd.x_adv",
}


class Net:
    """One net of the file: its weights as a model, its arrays as tensors."""

    def __init__(self, name):
        self.arrays = {key.removeprefix(f"{name}."): array for key, array in VECTORS.items() if key.startswith(name)}
        self.x, self.y, self.model = self.arrays["x"], self.arrays["y"], self.network(NETS[name])

    def network(self, act):
        conv1, conv2, fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Linear(256, 10)
        model = nn.Sequential(conv1, act(), conv2, act(), nn.Flatten(), fc).double()
        for layer, weights in (("conv1", conv1), ("conv2", conv2), ("fc", fc)):
            weights.load_state_dict({part: self.arrays[f"weights.{layer}.{part}"] for part in ("weight", "bias")})
        return model

    def has(self, key):
        return SAME.get(key, key) in self.arrays or key in self.arrays

    def expect(self, key, actual):
        """Within the tolerance of the golden README; integers and flags exactly."""
        expected = self.arrays[key if key in self.arrays else SAME[key]]
        assert actual.shape == expected.shape
        if expected.is_floating_point():
            assert ((actual - expected).abs() / (1 + expected.abs())).max() <= TOLERANCE
        else:
            assert torch.equal(actual, expected.to(actual.dtype))

    def ball(self, key):
        epsilon, step_size, num_steps = self.arrays[key].tolist()
        return {"epsilon": epsilon, "step_size": step_size, "num_steps": int(num_steps)}

    def uniform(self, epsilon):
        """The references draw their uniform noise in float32."""
        return self.x + (epsilon * self.arrays["unit_uniform"]).float().double()

    def gaussian(self, *, clipped=False):
        start = self.x + 0.001 * self.arrays["unit_normal"]
        return given(start.clamp(0, 1) if clipped else start)

    def attack(self, **settings):
        return pgd(self.model, self.x, self.y, **settings)


class Standardize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean.view(3, 1, 1), std.view(3, 1, 1)

    def forward(self, x):
        return (x - self.mean) / self.std


def given(*starts):
    """A start that brings prepared images, the next ones at each restart."""
    left = iter(starts)
    return lambda x, *, epsilon, generator: next(left)


def load():
    with np.load(GOLDEN) as file:
        return {key: torch.tensor(file[key]) for key in file.files}


# --- each family: what we compute for a key


def path(net, config, loss, start):
    ball = net.ball(config)
    first = net.uniform(ball["epsilon"]).clamp(0, 1) if start == "uniform" else net.x
    return pgd_path(net.model, net.x, net.y, **ball, loss=LOSSES[loss], start=given(first))


def robustness(net, best_iterate, standardized):
    mean, std = net.arrays["madry_robustness.mean"], net.arrays["madry_robustness.std"]
    model = nn.Sequential(Standardize(mean, std), net.model) if standardized else net.model
    x = net.arrays["x_interior"] if standardized else net.x
    return pgd(model, x, net.y, **net.ball("madry_robustness.cfg"), start=no_start, best_iterate=best_iterate)


def rice(net, restarts):
    starts = [net.x + 8 / 255 * net.arrays[noise] for noise in ("unit_uniform", "unit_uniform2")]
    return net.attack(**EIGHT, start=given(*(start.clamp(0, 1) for start in starts)), restarts=restarts) - net.x


def whitebox(net):
    ball = net.ball("whitebox20.cfg")
    return net.attack(**ball, start=given(net.uniform(ball["epsilon"])))


IMAGES = {
    "cfgB.trades_kl_pgd.x_adv": lambda net: net.attack(**net.ball("cfgB"), **KL, start=net.gaussian()),
    "cfgB.gair_kl_pgd.x_adv": lambda net: net.attack(**net.ball("cfgB"), **KL, start=net.gaussian()),
    "cfgB.mart_ce_pgd.x_adv": lambda net: net.attack(**net.ball("cfgB"), start=net.gaussian()),
    "whitebox20.x_adv": whitebox,
    "madry_robustness.norm0.best0.x_adv": lambda net: robustness(net, best_iterate=False, standardized=False),
    "madry_robustness.norm0.best1.x_adv": lambda net: robustness(net, best_iterate=True, standardized=False),
    "madry_robustness.norm1.best0.x_adv": lambda net: robustness(net, best_iterate=False, standardized=True),
    "madry_robustness.norm1.best1.x_adv": lambda net: robustness(net, best_iterate=True, standardized=True),
    "rice_pgd.restarts1.delta": lambda net: rice(net, 1),
    "rice_pgd.restarts2.delta": lambda net: rice(net, 2),
    "fgsm.x_adv": lambda net: fgsm(net.model, net.x, net.y, epsilon=8 / 255),
    "ta_pgd.x_adv": lambda net: net.attack(**net.ball("cfgA"), start=no_start),
    "ta_tpgd.x_adv": lambda net: net.attack(**EIGHT, **KL, start=net.gaussian(clipped=True)),  # torchattacks clips
}
PATHS = {
    f"{config}.{loss}.{start}": (config, loss, start)
    for config in ("cfgA", "cfgB", "cfgC", "cfgD")
    for loss in LOSSES
    for start in ("clean", "uniform")
}
VECTORS = load()
MODELS = {name: Net(name) for name in NETS}
STORED = [(name, key) for name, net in MODELS.items() for key in IMAGES if net.has(key)]


@pytest.mark.parametrize("name", NETS)
def test_the_nets_are_the_references(name):
    net = MODELS[name]
    with torch.no_grad():
        net.expect("logits_clean", net.model(net.x))


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("name", NETS)
def test_pgd_and_its_path(name, key):
    net, ours = MODELS[name], path(MODELS[name], *PATHS[key])
    net.expect(f"{key}.kappa", ours.kappa)
    net.expect(f"{key}.correct_at_step", ours.correct_at_step)
    if net.has(f"{key}.x_adv"):
        net.expect(f"{key}.x_adv", ours.x_adv)


@pytest.mark.parametrize(("name", "key"), STORED)
def test_images(name, key):
    MODELS[name].expect(key, IMAGES[key](MODELS[name]))


@pytest.mark.parametrize("name", NETS)
def test_gairats_kl_path(name):
    net = MODELS[name]
    ours = pgd_path(net.model, net.x, net.y, **net.ball("cfgB"), **KL, start=net.gaussian(), look_at_last=False)
    net.expect("cfgB.gair_kl_pgd.kappa", ours.kappa)
    net.expect("cfgB.gair_kl_pgd.x_adv", ours.x_adv)


def test_errors_after_whitebox20():
    net = MODELS["relu"]
    with torch.no_grad():
        wrong = [(net.model(images).argmax(1) != net.y).sum() for images in (net.x, whitebox(net))]
    net.expect("whitebox20.err_nat_adv", torch.stack(wrong).double())


@pytest.mark.parametrize("name", NETS)
def test_trades_loss_at_its_images(name):
    net = MODELS[name]
    x_adv = IMAGES["cfgB.trades_kl_pgd.x_adv"](net)
    with torch.no_grad():
        clean, robust = net.model(net.x), net.model(x_adv)
    total = cross_entropy(clean, net.y).mean() + 6 * kl_divergence(robust, clean).mean()
    net.expect("cfgB.trades.total_beta6", total)


@pytest.mark.parametrize("name", NETS)
def test_mart_loss_at_its_images(name):
    net = MODELS[name]
    x_adv = IMAGES["cfgB.mart_ce_pgd.x_adv"](net)
    with torch.no_grad():
        p, a = net.model(net.x).softmax(1), net.model(x_adv).softmax(1)
    labels = functional.one_hot(net.y, 10)
    runner_up = (a - labels).amax(1)
    boosted = -(a * labels).sum(1).log() - torch.log(1.0001 - runner_up + 1e-12)
    divergence = (p * (p.log() - torch.log(a + 1e-12))).sum(1)
    total = boosted.mean() + 6 * (divergence * (1.0000001 - (p * labels).sum(1))).mean()
    net.expect("cfgB.mart.total_beta6", total)


def test_every_family_is_compared_and_every_array_used():
    assert {key for _, key in STORED} == {*IMAGES}
    paths = {f"{key}.x_adv" for key in PATHS}
    stored = {key for net in MODELS.values() for key in net.arrays if key.endswith((".x_adv", ".delta"))}
    assert stored <= {*IMAGES} | paths
    assert all(MODELS["relu"].has(key) for key in paths)
