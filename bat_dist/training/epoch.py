"""One epoch of any method, on one of several ranks.  `step` says why a leave-out trial has a loop of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import MiniBatch, TrainingAttack
from bat_dist.methods.table import Method
from bat_dist.training.awp import differentiate_perturbed
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Precision, Recipe, learning_rate
from bat_dist.training.seeding import seed_of
from bat_dist.training.step import NonFiniteLoss, batch_sizes, differentiate
from bat_dist.training.world import World

_EPOCH, _WARM_UP = 11, 12  # streams of randomness of a training run


class NonFiniteBatch(NonFiniteLoss):
    """The loss of one batch is not finite; the weights are those before it.  `indices`: its samples."""

    def __init__(self, message: str, indices: list[int]) -> None:
        super().__init__(message)
        self.indices = indices


@dataclass(frozen=True)
class StepSettings:
    """How a loss becomes an update, beside the recipe."""

    method: Method
    attack: TrainingAttack
    precision: Precision
    awp: float | None = None  # gamma of `awp`
    awp_from: int = 0  # the epoch, from 0, at which it begins
    clip_norm: float | None = None
    smallest_batch: int = 2  # samples; a smaller last batch of an epoch is left out

    def differentiated(self, epoch: int) -> Callable[..., Float[Tensor, ""]]:
        """What leaves the gradient of a batch in that epoch, counted from 0."""
        if self.awp is None or epoch < self.awp_from:
            return differentiate
        return partial(differentiate_perturbed, gamma=self.awp)


def train_epoch(
    progress: Progress,
    forward: Callable[..., Any],
    loader: Loader,
    indices: Int64[np.ndarray, " train"],
    *,
    recipe: Recipe,
    settings: StepSettings,
    mem: Float[Tensor, " samples"] | None,
    seed: int,
    world: World,
) -> float:
    """Train on each of `indices` once, in an order and with noise that (seed, epoch) alone decide; the mean loss.

    forward: the network, or DDP around it. mem: memorization of every sample of the loader's split.
    A last batch that is too small (`batch_sizes`) is dropped. Raises NonFiniteBatch on all ranks, before the update.
    """
    epoch = progress.epoch
    generator = torch.Generator().manual_seed(seed_of(seed, _EPOCH, epoch))
    # What a network or a loss draws from torch's global generators (dropout) must not depend on a resume either.
    torch.manual_seed(seed_of(seed, _WARM_UP, epoch, world.rank))
    sizes = batch_sizes(len(indices), recipe.batch_size, world.size, smallest=settings.smallest_batch)
    batches = loader.train_epoch(
        indices,
        batch_size=recipe.batch_size,
        generator=generator,
        drop_last=sum(sizes) < len(indices),
        share=world.share,
    )
    differentiated = settings.differentiated(epoch)
    progress.network.train()
    total = 0.0
    for number, ((images, labels, positions), size) in enumerate(zip(batches, sizes, strict=True)):
        lr = learning_rate(recipe, step=epoch * len(sizes) + number, num_steps=recipe.epochs * len(sizes))
        batch = MiniBatch(
            images,
            labels,
            network=progress.network,
            forward=forward,
            attack=settings.attack,
            generator=generator,
            mem=None if mem is None else mem[positions],
            progress=epoch / recipe.epochs,
            ranks=world.ranks(size),
            rows=world.share.rows(size),
            total=size,
        )
        loss = differentiated(settings.method, batch, progress.optimizer, settings.precision)
        value = world.sum(loss).item() / world.size
        if not math.isfinite(value):
            raise NonFiniteBatch(
                f"loss {value} in epoch {epoch + 1}, batch {number + 1} of {len(sizes)}, at learning rate {lr:.3g}: "
                "try a lower lr, precision fp32, or clip_norm 1",
                [index for rank in world.concatenate(positions.tolist()) for index in rank],
            )
        progress.update(lr, clip_norm=settings.clip_norm)
        total += value * size
    return total / sum(sizes)
