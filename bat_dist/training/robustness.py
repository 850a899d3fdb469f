"""Clean and PGD accuracy while training goes on, shared out over the ranks, the same for any number of them."""

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import nn

from bat_dist.attacks.frozen import wrong
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.numerics import numerics
from bat_dist.attacks.pgd import pgd
from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.training.precision import autocast
from bat_dist.training.recipe import Precision
from bat_dist.training.world import World

BATCH_SIZE = 250


def clean_and_pgd_correct(
    network: nn.Module,
    loader: Loader,
    indices: Int64[np.ndarray, " chosen"],
    *,
    attack: TrainingAttack | None,
    precision: Precision,
    seed: int,
    world: World,
) -> tuple[Bool[np.ndarray, " chosen"], Bool[np.ndarray, " chosen"] | None]:
    """Which of the samples `indices` of the loader's split the network classifies right: clean, and attacked.

    Eval mode, no augmentation. An image's start depends on the seed and its position in the split alone.
    Without an attack the second is None.
    """
    network.eval()
    device = next(network.parameters()).device
    clean, attacked = torch.zeros(2, len(indices), dtype=torch.int32, device=device)
    for start in range(0, len(indices), BATCH_SIZE):
        batch = indices[start : start + BATCH_SIZE]
        rows = world.share.rows(len(batch))
        own = batch[rows]
        place = slice(start + rows.start, start + rows.stop)
        for images, labels, positions in loader.eval_epoch(own, batch_size=len(own)) if len(own) else ():
            clean[place] = _right(network, images, labels, precision)
            if attack is not None:
                keys = image_keys(seed, "accuracy", positions)
                x_adv = pgd(network, images, labels, generator=keys, checked=True, **attack.settings())
                attacked[place] = _right(network, x_adv, labels, precision)
    clean, attacked = world.sum(torch.stack([clean, attacked])).bool().cpu().numpy()
    return clean, attacked if attack is not None else None


@torch.no_grad()
def _right(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: Precision) -> torch.Tensor:
    with numerics(precision), autocast(images.device, precision):
        return (~wrong(network(images), labels)).int()
