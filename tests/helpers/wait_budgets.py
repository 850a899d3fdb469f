"""How often the host may wait for a GPU, and the work that is counted: on the pretended GPU, and on a real one.

Each wait ends the run-ahead of the host, by which most steps are bound (docs/results/gpu.md). The numbers may only
fall; whoever makes one fall lowers it here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from bat_dist.attacks.apgd import apgd, apgd_targeted
from bat_dist.attacks.fab import fab_targeted
from bat_dist.attacks.square import square
from bat_dist.attacks.standing import AttackOutcome
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

WAITS_OF_A_STEP: dict[str, int] = dict.fromkeys(
    ("erm", "pgd_at", "trades", "mart", "gairat", "bat", "bat with drawn negatives"), 0
)
"""A training step, by method."""

WAITS_OF_EXTRAS = {"none": 0, "ema": 0, "awp and clip": 0}
"""What they add to a step."""

WAITS_OF_A_TRIALS_STEP = 0
WAITS_OF_AN_ITERATION = {"apgd-ce": 1, "apgd-t": 1, "fab-t": 1, "square": 1}
"""An iteration of an attack, whatever falls in it."""

WAITS_BESIDE_ITERATIONS = 4
"""Of an attack on a batch: its checks, the first look at the images, what fell in a run, and one more."""

ALL_STAND, SOME_FALL = 1e-7, 16 / 255
RECIPE = Recipe(epochs=1, batch_size=8, lr=0.01, schedule="multistep")
EXTRAS: dict[str, dict[str, Any]] = {"none": {}, "ema": {"ema": 0.9}, "awp and clip": {"awp": 0.01, "clip_norm": 0.1}}

Iterations = Callable[..., AttackOutcome]
ATTACKS: dict[str, Callable[[int], Iterations]] = {
    "apgd-ce": lambda steps: partial(apgd, num_steps=steps),
    "apgd-t": lambda steps: partial(apgd_targeted, num_steps=steps, num_targets=1),
    "fab-t": lambda steps: partial(fab_targeted, num_steps=steps, num_targets=1),
    "square": lambda steps: partial(square, num_queries=steps),
}
"""By name, of so many iterations."""


def network(device: torch.device) -> nn.Module:
    """A small one, with the same weights each time."""
    torch.manual_seed(0)
    return build("tinynet", 10, mean=(0.5,) * 3, std=(0.25,) * 3).to(device).eval()


def train_steps(
    digits: Dataset, method: str, num_steps: int, device: torch.device, *, ema: float | None = None, **extra: Any
) -> None:
    """So many steps of the method."""
    loader = dataset_loader("memory", digits, "train", device=device)
    progress = Progress(seeded_model("tinynet", digits, device, key=(0,)), RECIPE, ema=ema)
    attack = TrainingAttack(16 / 255, 4 / 255, 3, "fp32")
    further: dict[str, dict[str, Any]] = {"gairat": {"begin": 0.0}, "bat with drawn negatives": {"num_negatives": 4}}
    built = build_method(method.partition(" ")[0], further.get(method, {}))
    settings = StepSettings(built, attack, "fp32", **extra)
    scores = np.random.default_rng(0).random(len(digits.train.labels)) * 0.4
    mem = torch.as_tensor(scores, dtype=torch.float32, device=device)
    how: dict[str, Any] = {"recipe": RECIPE, "settings": settings, "mem": mem, "seed": 0, "world": THIS_PROCESS}
    train_epoch(progress, progress.network, loader, np.arange(8 * num_steps), **how)


def trial_steps(digits: Dataset, num_steps: int, device: torch.device) -> None:
    """So many steps of a leave-out trial."""
    loader = dataset_loader("memory", digits, "train", device=device)
    model, generator = seeded_model("tinynet", digits, device, key=(0,)), torch.Generator().manual_seed(0)
    how: dict[str, Any] = {"recipe": RECIPE, "precision": "fp32", "generator": generator}
    fit(model, loader, np.arange(8 * num_steps), method=Erm(), **how)


def attacked(attack: Iterations, epsilon: float, device: torch.device) -> AttackOutcome:
    """What becomes of 24 images that the network gets right."""
    model, generator = network(device), torch.Generator().manual_seed(0)
    x = torch.rand(24, 3, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last).to(device)
    y = model(x).argmax(1)
    return attack(model, x, y, epsilon=epsilon, seed=0, ids=torch.arange(24, device=device))
