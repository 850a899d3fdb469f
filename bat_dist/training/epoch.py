"""One epoch of any method, on one of several ranks.  `step` says why a leave-out trial has a loop of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bat_dist.attacks.noise import image_keys
from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import MiniBatch, TrainingAttack
from bat_dist.methods.table import Method
from bat_dist.training.awp import differentiate_perturbed
from bat_dist.training.progress import Progress
from bat_dist.training.recipe import Precision, Recipe, learning_rates
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
    A last batch that is too small (`batch_sizes`) is dropped. Losses are looked at after the last batch, so that no
    step waits for a GPU; one that is not finite cancels its own update and all later ones on the device. Raises
    NonFiniteBatch for the first of them, on all ranks.
    """
    epoch = progress.epoch
    epoch_seed = seed_of(seed, _EPOCH, epoch)
    generator = torch.Generator().manual_seed(epoch_seed)
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
    rates = learning_rates(recipe, epoch=epoch, num_steps=len(sizes))
    differentiated = settings.differentiated(epoch)
    progress.network.train()
    losses = EpochLosses(world)
    for (images, labels, positions), size, lr in zip(batches, sizes, rates, strict=True):
        batch = MiniBatch(
            images,
            labels,
            network=progress.network,
            forward=forward,
            attack=settings.attack,
            keys=image_keys(epoch_seed, "training", positions),
            mem=None if mem is None else mem[positions],
            progress=epoch / recipe.epochs,
            ranks=world.ranks(size),
            checked=True,
        )
        loss = differentiated(settings.method, batch, progress.optimizer, settings.precision)
        losses.add(loss, positions)
        progress.update(lr, clip_norm=settings.clip_norm, cancel=losses.not_finite)
    values = losses.values(f"epoch {epoch + 1}", rates)
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


class EpochLosses:
    """The losses of an epoch's batches over all ranks; they stay on the device, and are read once, at the end.

    not_finite: on the device, 1 from the first loss on that is not finite, else 0; None before the first loss.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums, self._positions = list[Tensor](), list[Tensor]()
        self.not_finite: Float[Tensor, ""] | None = None

    def add(self, loss: Float[Tensor, ""], positions: Int64[Tensor, " batch"]) -> None:
        """Take this rank's loss of a batch; positions: which samples its rows are."""
        self._sums.append(self._world.sum(loss))
        self._positions.append(positions)
        now = self._sums[-1].isfinite().logical_not_().to(torch.float32)
        self.not_finite = now if self.not_finite is None else torch.maximum(now, self.not_finite)

    def values(self, when: str, rates: Sequence[float]) -> list[float]:
        """The loss of each batch, for which the host waits.  Raises NonFiniteBatch for the first that is not finite.

        when: the epoch, and rates: the learning rate of each batch, for the message.
        """
        values = [value / self._world.size for value in torch.stack(self._sums).tolist()]
        for number, value in enumerate(values):
            if not math.isfinite(value):
                where = f"{when}, batch {number + 1} of {len(values)}, at learning rate {rates[number]:.3g}"
                raise NonFiniteBatch(
                    f"loss {value} in {where}: try a lower lr, precision fp32, or clip_norm 1",
                    [index for rank in self._world.concatenate(self._positions[number].tolist()) for index in rank],
                )
        return values
