"""Side by side with pyautoattack: the same flags on a net of digits, and the same odds where its start decides."""

from functools import partial

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack

from bat_dist.attacks.apgd import apgd, dlr
from bat_dist.attacks.autoattack import StandardAttack, autoattack
from bat_dist.attacks.folding import faster
from tests.attacks.robust_nets import EPSILON, IDS, X, Y, digits, golden_net


def test_the_same_robust_digits():
    x, y, net = digits()
    x, y, epsilon = x[:60], y[:60], 0.07
    rival = AutoAttack(net, eps=epsilon, seed=0, version="standard")
    with torch.no_grad():
        theirs = net(rival.run_standard_evaluation(x, y, batch_size=60)[0]).argmax(1) == y
    ours = autoattack(faster(net, x[:4]), x, y, epsilon=epsilon, seed=0, ids=torch.arange(60))
    assert 10 < theirs.sum() < 50
    assert (ours.robust[-1] != theirs).sum() <= 1


def test_the_same_robust_digits_by_rand():
    """Of a network that draws no random numbers, where a gradient averaged over passes is the gradient."""
    x, y, net = digits()
    x, y, epsilon = x[:60], y[:60], 0.07
    rival = AutoAttack(net, eps=epsilon, seed=0, version="rand")
    rival.apgd.eot_iter = 2  # not 20, for speed
    with torch.no_grad():
        theirs = net(rival.run_standard_evaluation(x, y, batch_size=60)[0]).argmax(1) == y
    stages = {
        "ce": StandardAttack(partial(apgd, num_draws=2), 2),
        "dlr": StandardAttack(partial(apgd, num_draws=2, loss=dlr), 3),
    }
    ours = autoattack(faster(net, x[:4]), x, y, epsilon=epsilon, seed=0, ids=torch.arange(60), attacks=stages)
    assert 10 < theirs.sum() < 50
    assert (ours.robust[-1] != theirs).sum() <= 1


def test_the_same_dlr_loss():
    logits, labels = torch.randn(500, 7, generator=torch.Generator().manual_seed(0)).double(), Y.repeat(8)[:500] % 7
    theirs = APGDAttack(golden_net(), eps=EPSILON, device="cpu").dlr_loss(logits, labels)
    torch.testing.assert_close(dlr(logits, labels), theirs, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="at least 3 classes, the model has 2"):
        dlr(logits[:, :2], labels % 2)


def test_the_same_odds():
    """Of 64 images about 40.1 survive APGD-CE, with a standard deviation of 1.2 over seeds; 30 seeds of each."""
    net = golden_net().requires_grad_(False)
    ours = [apgd(net, X, Y, epsilon=EPSILON, seed=seed, ids=IDS).robust for seed in range(30)]
    theirs = []
    for seed in range(30):
        x_adv = APGDAttack(net, n_iter=100, eps=EPSILON, seed=seed, loss="ce", device="cpu").perturb(X, Y)
        theirs.append(net(x_adv).argmax(1) == Y)
    odds, expected = (torch.stack(flags).float().mean(dim=0) for flags in (ours, theirs))
    assert (odds.sum() - expected.sum()).abs() < 4 * 1.2 * (2 / 30) ** 0.5
    assert (odds - expected).abs().max() < 4 * (2 * 0.25 / 30) ** 0.5
    assert torch.equal((odds > 0) & (odds < 1) & (expected > 0) & (expected < 1), (odds > 0) & (odds < 1))
