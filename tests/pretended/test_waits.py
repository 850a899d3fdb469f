"""How often the host waits for a GPU: in a training step, and in an iteration of an attack (`wait_budgets`)."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bat_dist.attacks import fab
from bat_dist.attacks.pgd import pgd
from bat_dist.data.datasets import Dataset
from tests.helpers.pretended_gpu import CPU, CUDA, pretended_gpu
from tests.helpers.wait_budgets import (
    ALL_STAND,
    ATTACKS,
    EXTRAS,
    SOME_FALL,
    WAITS_BESIDE_ITERATIONS,
    WAITS_OF_A_STEP,
    WAITS_OF_A_TRIALS_STEP,
    WAITS_OF_AN_ITERATION,
    WAITS_OF_EXTRAS,
    Iterations,
    attacked,
    network,
    train_steps,
    trial_steps,
)


def further(work: Callable[[int], None], few: int, many: int) -> Counter[tuple[str, str]]:
    """The waits of work in `many` steps that work in few does not have."""
    found = []
    for steps in (few, many):
        with pretended_gpu() as gpu:
            work(steps)
        found.append(gpu.waits)
    return found[1] - found[0]


@pytest.mark.parametrize("method", WAITS_OF_A_STEP)
def test_a_step_of_a_method(digits: Dataset, method: str) -> None:
    found = further(lambda steps: train_steps(digits, method, steps, CUDA), 2, 6)
    assert found.total() == 4 * WAITS_OF_A_STEP[method], found


@pytest.mark.parametrize("name", WAITS_OF_EXTRAS)
def test_extras_of_a_step(digits: Dataset, name: str) -> None:
    found = further(lambda steps: train_steps(digits, "erm", steps, CUDA, **EXTRAS[name]), 2, 6)
    assert found.total() == 4 * (WAITS_OF_A_STEP["erm"] + WAITS_OF_EXTRAS[name]), found


@pytest.mark.parametrize("crops", [{}, {"crop_scale": 0.5, "crop_size": 7}], ids=str)
def test_a_step_of_a_trial(digits: Dataset, crops: dict[str, Any]) -> None:
    augmented = digits.augmented(**crops)
    found = further(lambda steps: trial_steps(augmented, steps, CUDA), 2, 6)
    assert found.total() == 4 * WAITS_OF_A_TRIALS_STEP, found


def test_an_iteration_of_pgd() -> None:
    def attack(num_steps: int) -> None:
        x, y = torch.rand(8, 3, 8, 8).to(CUDA), torch.arange(8, device=CUDA)
        how: dict[str, Any] = {"step_size": 2 / 255, "generator": torch.Generator().manual_seed(0)}
        pgd(network(CUDA), x, y, epsilon=8 / 255, num_steps=num_steps, **how)

    assert not further(attack, 2, 6)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_iteration_of_an_attack_on_images_that_stand(name: str) -> None:
    def attack(num_steps: int) -> None:
        assert attacked(ATTACKS[name](num_steps), ALL_STAND, CUDA).robust.all()

    found = further(attack, 4, 12)
    assert found.total() == 8 * WAITS_OF_AN_ITERATION[name], found


def outcome_and_waits(attack: Iterations) -> tuple[Tensor, Tensor, int]:
    """Flags and images of the attack on the pretended GPU, where some images fall, and how often it waits."""
    with pretended_gpu() as gpu:
        found = attacked(attack, SOME_FALL, CUDA)
        waits = sum(count for (_, place), count in gpu.waits.items() if place.startswith("attacks/"))
        return found.robust.to(CPU), found.x_adv.to(CPU), waits


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_images_that_fall(name: str) -> None:
    """No more waits where images fall, in many iterations, and the outcome of the CPU."""
    attack = ATTACKS[name](20)
    expected = attacked(attack, SOME_FALL, CPU)
    assert 0 < expected.robust.sum() < 24
    robust, x_adv, waits = outcome_and_waits(attack)
    assert waits <= 20 * WAITS_OF_AN_ITERATION[name] + WAITS_BESIDE_ITERATIONS
    torch.testing.assert_close((robust, x_adv), tuple(expected), rtol=0, atol=0)


def test_a_step_of_fab_that_needs_more_passes_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = ATTACKS["fab-t"](8)
    expected = attacked(attack, SOME_FALL, CPU)
    monkeypatch.setattr(fab, "GPU_PASSES", 1)
    robust, x_adv, waits = outcome_and_waits(attack)
    assert waits > 8 + WAITS_BESIDE_ITERATIONS
    torch.testing.assert_close((robust, x_adv), tuple(expected), rtol=0, atol=0)
