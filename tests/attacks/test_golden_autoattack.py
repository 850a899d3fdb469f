"""The flags of the four attacks are those of the published implementation (tests/golden/05_autoattack), any seed of ours.

The file is a cut: net, images and flags. Other random numbers than the reference's may change 2 samples of a stage and
1 of the last row (the golden README's tolerance for another implementation).
"""

import pytest
import torch
from robust_nets import EPSILON, IDS, VECTORS, X, Y, golden_net

from bat_dist.attacks.autoattack import STANDARD, autoattack

RUNS = [key for key in VECTORS if key.endswith(".flags")]
ALONE = {seed: dict(zip(VECTORS["individual_attacks"], VECTORS[f"official.{seed}.individual_flags"], strict=True))
         for seed in ("seed0", "seed1")}  # fmt: skip


@pytest.fixture(scope="module", params=[0, 1, 2])
def result(request):
    return autoattack(golden_net(), X, Y, epsilon=EPSILON, seed=request.param, ids=IDS)


def test_the_file_has_three_implementations():
    assert len(RUNS) == 5
    assert list(VECTORS["attacks"]) == ["clean", *STANDARD]


@pytest.mark.parametrize("run", RUNS)
def test_flags_after_each_stage(result, run):
    differing = (result.robust != VECTORS[run]).sum(dim=1)
    assert result.stages == tuple(VECTORS["attacks"])
    assert differing[0] == 0
    assert differing.max() <= 2
    assert differing[-1] <= 1


def test_torchattacks_final_flags(result):
    assert (result.robust[-1] != VECTORS["torchattacks.seed0.flags_final"]).sum() <= 1


@pytest.mark.parametrize("name", STANDARD)
def test_an_attack_alone(name):
    robust = STANDARD[name].attack(golden_net(), X, Y, epsilon=EPSILON, seed=5, ids=IDS).robust
    for flags in ALONE.values():
        assert (robust != flags[name]).sum() <= (0 if name == "fab-t" else 2)  # FAB draws nothing


def test_x_adv_and_flags_are_of_one_mind(result):
    with torch.no_grad():
        correct = golden_net()(result.x_adv).argmax(dim=1) == Y
    assert torch.equal(correct, result.robust[-1])
    assert (result.x_adv - X).abs().max() <= EPSILON + 1e-6
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
