"""Plain training of one network in this process: what a leave-out trial does.  `step` says why there are two loops."""

import math

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from bat_dist.attacks.graphs import Recordings
from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import MiniBatch
from bat_dist.methods.table import Method
from bat_dist.training.recipe import Precision, Recipe, learning_rates
from bat_dist.training.sgd import optimizer_of
from bat_dist.training.step import NonFiniteLoss, batch_sizes, differentiate


def fit(
    model: nn.Module,
    loader: Loader,
    indices: Int64[np.ndarray, " subset"],
    *,
    method: Method,
    recipe: Recipe,
    precision: Precision,
    generator: torch.Generator,
) -> list[float]:
    """Train `model` in place on the samples `indices` of the loader's split.

    Order and augmentation come from `generator` (CPU) alone.  A last batch of a single image is dropped; every other
    image is used once per epoch.
    Returns the mean loss of each epoch.  Raises NonFiniteLoss at the end of the first epoch whose loss is not finite.
    """
    sizes = batch_sizes(len(indices), recipe.batch_size)
    optimizer = optimizer_of(model, recipe)
    losses = []
    model.train()
    device = next(model.parameters()).device
    dtype = torch.float64 if device.type == "cpu" else torch.float32  # a GPU's kernel takes no other learning rate

    def train_on(images: Tensor, labels: Tensor, rate: Tensor) -> tuple[Tensor]:
        loss = differentiate(method, MiniBatch(images, labels, network=model, forward=model), optimizer, precision)
        optimizer.step(rate)
        return (loss,)

    def state() -> list[Tensor]:
        of_optimizer = [tensor for kind in optimizer.state.values() for tensor in kind.values()]
        return [*model.parameters(), *model.buffers(), *of_optimizer]

    recordings = Recordings(state)
    for epoch in range(recipe.epochs):
        total = torch.zeros((), dtype=torch.float64)
        rates = torch.tensor(learning_rates(recipe, epoch=epoch, num_steps=len(sizes)), dtype=dtype, device=device)
        batches = loader.train_epoch(
            indices, batch_size=recipe.batch_size, generator=generator, drop_last=sum(sizes) < len(indices)
        )
        for (images, labels, _), rate in zip(batches, rates, strict=True):
            (loss,) = recordings("step", train_on, images, labels, rate)
            total = total.to(loss.device) + loss * len(labels)
        losses.append(total.item() / sum(sizes))
        if not math.isfinite(losses[-1]):
            raise NonFiniteLoss(
                f"loss {losses[-1]} in epoch {epoch + 1} of {recipe.epochs}: try a lower lr than {recipe.lr}, or fp32"
            )
    return losses
