"""The flags of the four attacks are those of the published implementation (tests/golden/05_autoattack).

The file is a cut: net, images and flags. The golden README allows another implementation 2 samples per stage and 1 in
the last row. Two runs of the published one differ by more after APGD-CE in 4 of 10 cases (40 seeds of pyautoattack
0.2.0): whether it fools the samples UNSTABLE is a matter of its start. So every seed is held to the same flags of the
others and the last row, and seed 0 to the README; test_pyautoattack compares how often the UNSTABLE ones fall.
"""

from functools import cache

import pytest
import torch

from bat_dist.attacks.autoattack import STANDARD, autoattack
from tests.attacks.robust_nets import EPSILON, IDS, VECTORS, X, Y, golden_net

UNSTABLE = {5, 10, 13, 14, 18, 22, 36, 50}
RUNS = [key for key in VECTORS if key.endswith(".flags")]
ALONE = {seed: dict(zip(VECTORS["individual_attacks"], VECTORS[f"official.{seed}.individual_flags"], strict=True))
         for seed in ("seed0", "seed1")}  # fmt: skip


@cache
def result_of(seed):
    return autoattack(golden_net(), X, Y, epsilon=EPSILON, seed=seed, ids=IDS)


@pytest.fixture(params=[0, 1, 2])
def result(request):
    return result_of(request.param)


def test_the_file_has_three_implementations():
    assert len(RUNS) == 5
    assert list(VECTORS["attacks"]) == ["clean", *STANDARD]


@pytest.mark.parametrize("run", RUNS)
def test_flags_after_each_stage(result, run):
    differing = result.robust != VECTORS[run]
    assert result.stages == tuple(VECTORS["attacks"])
    assert set(differing[1].nonzero().squeeze(1).tolist()) <= UNSTABLE
    assert not differing[[0, 2, 3, 4]].any()


def test_the_tolerance_of_the_readme():
    differing = (result_of(0).robust != VECTORS["official.seed0.flags"]).sum(dim=1)
    assert differing.max() <= 2
    assert differing[-1] <= 1


def test_torchattacks_final_flags(result):
    assert (result.robust[-1] != VECTORS["torchattacks.seed0.flags_final"]).sum() <= 1


@pytest.mark.parametrize(("name", "unstable"), [("apgd-ce", 7), ("apgd-t", 0), ("fab-t", 0), ("square", 5)])
def test_an_attack_alone(name, unstable):
    robust = STANDARD[name].attack(golden_net(), X, Y, epsilon=EPSILON, seed=5, ids=IDS).robust
    for flags in ALONE.values():
        differing = set((robust != flags[name]).nonzero().squeeze(1).tolist())
        assert differing <= (UNSTABLE | {7, 15, 55} if unstable else set())
        assert len(differing) <= unstable


def test_x_adv_and_flags_are_of_one_mind(result):
    with torch.no_grad():
        correct = golden_net()(result.x_adv).argmax(dim=1) == Y
    assert torch.equal(correct, result.robust[-1])
    assert (result.x_adv - X).abs().max() <= EPSILON + 1e-6
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
