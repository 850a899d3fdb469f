"""How a network is trained: frozen settings with their sources, and the learning rate as a function of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

Precision = Literal["bf16", "fp32", "tf32"]  # as in `attacks.numerics`, which imports torch
PrecisionOrAuto = Literal["auto", "bf16", "fp32", "tf32"]  # as asked for; what runs and what is recorded is a Precision
Schedule = Literal["one_cycle", "multistep", "cosine"]
OptimizerName = Literal["sgd", "adamw"]
ADAMW_LR, ADAMW_DECAY = 1e-3, 0.01  # torch.optim's defaults: those of SGD are far too large and too small for it


@dataclass(frozen=True)
class Recipe:
    """An optimizer under one learning-rate schedule: SGD with momentum, or AdamW with torch's betas and epsilon.

    `one_cycle` rises linearly from 0 to `lr` during the first `warmup` share of the steps and falls linearly to 0.
    `multistep` multiplies `lr` by 0.1 at each milestone, given as a share of the epochs. `cosine` falls from `lr` to 0
    along half a wave (Loshchilov & Hutter 2017, arXiv:1608.03983). The last two rise linearly to `lr` during
    `warmup_epochs` before (Goyal et al. 2017, arXiv:1706.02677); milestones are counted from the first epoch on.
    """

    epochs: int
    batch_size: int
    lr: float
    schedule: Schedule
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = False
    warmup: float = 0.25
    milestones: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    optimizer: OptimizerName = "sgd"
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for a warm-up that does not fit."""
        if self.warmup_epochs and self.schedule == "one_cycle":
            raise ValueError(
                "warmup_epochs is for schedule multistep or cosine: one_cycle begins with a warm-up itself"
            )
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be less than the {self.epochs} epochs, got {self.warmup_epochs:g}")

    @property
    def facts(self) -> Mapping[str, Any]:
        """All fields, as identities and checkpoints hold them; those that earlier versions did not know, if in use."""
        unused = {"optimizer": "sgd", "warmup_epochs": 0.0}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name not in unused or value != unused[name]}


RECIPES = {
    # Ours, after the one-cycle recipes of the DAWNBench CIFAR-10 entries: the score is about the data, so the
    # cheapest training that fits the training set will do.
    "fast": Recipe(epochs=20, batch_size=64, lr=0.1, schedule="one_cycle", nesterov=True),
    # Sec. 5 and Appendix E: SGD 0.1, momentum 0.9, weight decay 5e-4, 160 epochs, drops by 0.1 at 80 and 120.
    # Sec. 3 and Appendix B: 200 epochs, a drop at 150 (a second one is printed for 200, where it has no effect).
    "study": Recipe(epochs=200, batch_size=128, lr=0.1, schedule="multistep", milestones=(0.75,)),
    "paper": Recipe(epochs=160, batch_size=128, lr=0.1, schedule="multistep", milestones=(0.5, 0.75)),
}


def learning_rate(recipe: Recipe, *, step: int, num_steps: int) -> float:
    """Learning rate of optimizer step `step` (from 0) out of `num_steps` in the whole run."""
    warm = num_steps * recipe.warmup_epochs / recipe.epochs  # steps
    if step < warm:
        return recipe.lr * min(1.0, (step + 1) / warm)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (num_steps - warm)))
    if recipe.schedule == "multistep":
        return recipe.lr * 0.1 ** sum(step >= milestone * num_steps for milestone in recipe.milestones)
    progress = (step + 1) / (num_steps + 1)
    return recipe.lr * min(progress / recipe.warmup, (1 - progress) / (1 - recipe.warmup))


def learning_rates(recipe: Recipe, *, epoch: int, num_steps: int) -> list[float]:
    """The learning rate of each of an epoch's `num_steps` steps; epoch: from 0."""
    last = recipe.epochs * num_steps
    return [learning_rate(recipe, step=epoch * num_steps + step, num_steps=last) for step in range(num_steps)]
