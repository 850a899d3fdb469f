"""Plain training of one network in this process: what a leave-out trial does.  `step` says why there are two loops."""

import math
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bat_dist.attacks.graphs import Recordings
from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.table import Method
from bat_dist.training.recipe import Precision, Recipe, learning_rates
from bat_dist.training.sgd import optimizer_of
from bat_dist.training.step import NonFiniteLoss, batch_sizes, differentiate


class Observer(Protocol):
    """What looks on while a network is trained, and changes neither its weights nor a random number."""

    def batch(
        self,
        epoch: int,
        indices: Int64[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
        labels: Int64[Tensor, " batch"],
    ) -> None:
        """A step was taken on these samples of the split, for which the network gave these logits before it."""
        ...

    def epoch(self, epoch: int) -> None:
        """An epoch, counted from 0, is done; the network may be left in eval mode."""
        ...


def fit(
    model: nn.Module,
    loader: Loader,
    indices: Int64[np.ndarray, " subset"],
    *,
    method: Method,
    recipe: Recipe,
    precision: Precision,
    generator: torch.Generator,
    observer: Observer | None = None,
) -> list[float]:
    """Train `model` in place on the samples `indices` of the loader's split.

    Order and augmentation come from `generator` (CPU) alone.  A last batch of a single image is dropped; every other
    image is used once per epoch.  observer: is told of each step and epoch; the weights are the same without it.
    Returns the mean loss of each epoch.  Raises NonFiniteLoss at the end of the first epoch whose loss is not finite.
    """
    sizes = batch_sizes(len(indices), recipe.batch_size)
    optimizer = optimizer_of(model, recipe)
    losses = []
    device = next(model.parameters()).device
    dtype = torch.float64 if device.type == "cpu" else torch.float32  # a GPU's kernel takes no other learning rate

    def train_on(images: Tensor, labels: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
        logits: list[Tensor] = []

        def forward(images: Tensor) -> Tensor:
            logits.append(model(images))
            return logits[-1]

        asked = model if observer is None else forward
        loss = differentiate(method, MiniBatch(images, labels, network=model, forward=asked), optimizer, precision)
        optimizer.step(rate)
        return (loss, *(one.detach() for one in logits))

    def state() -> list[Tensor]:
        of_optimizer = [tensor for kind in optimizer.state.values() for tensor in kind.values()]
        return [*model.parameters(), *model.buffers(), *of_optimizer]

    recordings = Recordings(state)
    for epoch in range(recipe.epochs):
        model.train()
        total = torch.zeros((), dtype=torch.float64)
        rates = torch.tensor(learning_rates(recipe, epoch=epoch, num_steps=len(sizes)), dtype=dtype, device=device)
        batches = loader.train_epoch(
            indices, batch_size=recipe.batch_size, generator=generator, drop_last=sum(sizes) < len(indices)
        )
        for (images, labels, positions), rate in zip(batches, rates, strict=True):
            loss, *logits = recordings("step", train_on, images, labels, rate)
            if observer is not None:
                observer.batch(epoch, positions, logits[0], labels)
            total = total.to(loss.device) + loss * len(labels)
        losses.append(total.item() / sum(sizes))
        if not math.isfinite(losses[-1]):
            raise NonFiniteLoss(
                f"loss {losses[-1]} in epoch {epoch + 1} of {recipe.epochs}: try a lower lr than {recipe.lr}, or fp32"
            )
        if observer is not None:
            observer.epoch(epoch)
    return losses
