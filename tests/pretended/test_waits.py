"""How often the host waits for a GPU: in a training step, and in an iteration of an attack.

Each wait ends the run-ahead of the host, and on a GPU most steps are bound by the host (docs/results/gpu.md).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bat_dist.attacks.pgd import pgd
from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.methods.erm import Erm
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.methods.table import build_method
from bat_dist.models.build import build
from bat_dist.training.epoch import StepSettings, train_epoch
from bat_dist.training.loop import fit
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Recipe
from bat_dist.training.seeding import seeded_model
from bat_dist.training.world import THIS_PROCESS
from tests.helpers.pretended_gpu import CUDA, pretended_gpu

Waits = Counter[tuple[str, str]]
RECIPE = Recipe(epochs=1, batch_size=8, lr=0.01, schedule="multistep")

WAITS_OF_A_STEP = {"erm": 1, "pgd_at": 3, "trades": 3, "mart": 3, "gairat": 3, "bat": 3}
"""By method; may only fall. A leave-out trial's step has none."""

WAITS_OF_EXTRAS = {"none": 0, "ema": 1, "awp and clip": 0}
"""What these add to each step; may only fall."""


def further(work: Callable[[int], None], few: int, many: int) -> Waits:
    """The waits of work in `many` steps that work in few does not have."""
    found = []
    for steps in (few, many):
        with pretended_gpu() as gpu:
            work(steps)
        found.append(gpu.waits)
    return found[1] - found[0]


def epoch(digits: Dataset, method: str, num_steps: int, *, ema: float | None = None, **extra: Any) -> None:
    """So many steps of the method."""
    loader = dataset_loader("memory", digits, "train", device=CUDA)
    progress = Progress(seeded_model("tinynet", digits, CUDA, key=(0,)), RECIPE, ema=ema)
    attack = TrainingAttack(16 / 255, 4 / 255, 3, "fp32")
    settings = StepSettings(build_method(method, {"begin": 0.0} if method == "gairat" else {}), attack, "fp32", **extra)
    mem = torch.as_tensor(np.random.default_rng(0).random(100) * 0.4, dtype=torch.float32, device=CUDA)
    how: dict[str, Any] = {"recipe": RECIPE, "settings": settings, "mem": mem, "seed": 0, "world": THIS_PROCESS}
    train_epoch(progress, progress.network, loader, np.arange(8 * num_steps), **how)


@pytest.mark.parametrize("method", WAITS_OF_A_STEP)
def test_a_step_of_a_method(digits: Dataset, method: str) -> None:
    found = further(lambda steps: epoch(digits, method, steps), 2, 6)
    assert found.total() == 4 * WAITS_OF_A_STEP[method], found


@pytest.mark.parametrize("name", WAITS_OF_EXTRAS)
def test_extras_of_a_step(digits: Dataset, name: str) -> None:
    extras: dict[str, dict[str, Any]] = {"ema": {"ema": 0.9}, "awp and clip": {"awp": 0.01, "clip_norm": 0.1}}
    found = further(lambda steps: epoch(digits, "erm", steps, **extras.get(name, {})), 2, 6)
    assert found.total() == 4 * (WAITS_OF_A_STEP["erm"] + WAITS_OF_EXTRAS[name]), found


def network(arch: str, device: torch.device) -> nn.Module:
    """With the same weights each time."""
    torch.manual_seed(0)
    return build(arch, 10, mean=(0.5,) * 3, std=(0.25,) * 3).to(device).eval()


def test_a_step_of_a_trial(digits: Dataset) -> None:
    def trial(num_steps: int) -> None:
        loader = dataset_loader("memory", digits, "train", device=CUDA)
        model, generator = seeded_model("tinynet", digits, CUDA, key=(0,)), torch.Generator().manual_seed(0)
        how: dict[str, Any] = {"recipe": RECIPE, "precision": "fp32", "generator": generator}
        fit(model, loader, np.arange(8 * num_steps), method=Erm(), **how)

    assert not further(trial, 2, 6)


def test_an_iteration_of_pgd() -> None:
    def attack(num_steps: int) -> None:
        model, generator = network("tinynet", CUDA), torch.Generator().manual_seed(0)
        x, y = torch.rand(8, 3, 8, 8).to(CUDA), torch.arange(8, device=CUDA)
        how: dict[str, Any] = {"epsilon": 8 / 255, "step_size": 2 / 255, "generator": generator}
        pgd(model, x, y, num_steps=num_steps, **how)

    assert not further(attack, 2, 6)
