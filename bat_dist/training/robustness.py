"""Clean and PGD accuracy while training goes on, shared out over the ranks, the same for any number of them."""

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import nn

from bat_dist.attacks.frozen import wrong
from bat_dist.attacks.linf import uniform_start
from bat_dist.attacks.numerics import numerics
from bat_dist.attacks.pgd import pgd
from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import TrainingAttack, rows_of_start
from bat_dist.training.precision import autocast
from bat_dist.training.recipe import Precision
from bat_dist.training.seeding import seed_of
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

    Eval mode, no augmentation. The attack's start depends on the seed and the sample's place in `indices` alone.
    Without an attack the second is None.
    """
    network.eval()
    clean, attacked = torch.zeros(2, len(indices), dtype=torch.int32)
    for start in range(0, len(indices), BATCH_SIZE):
        batch = indices[start : start + BATCH_SIZE]
        rows = world.share.rows(len(batch))
        own = batch[rows]
        place = slice(start + rows.start, start + rows.stop)
        noise = rows_of_start(uniform_start, rows, len(batch))
        generator = torch.Generator().manual_seed(seed_of(seed, start))
        for images, labels, _ in loader.eval_epoch(own, batch_size=len(own)) if len(own) else ():
            clean[place] = _right(network, images, labels, precision)
            if attack is not None:
                x_adv = pgd(network, images, labels, start=noise, generator=generator, **attack.settings())
                attacked[place] = _right(network, x_adv, labels, precision)
    device = next(network.parameters()).device
    clean, attacked = world.sum(torch.stack([clean, attacked]).to(device)).bool().cpu().numpy()
    return clean, attacked if attack is not None else None


@torch.no_grad()
def _right(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: Precision) -> torch.Tensor:
    with numerics(precision), autocast(images.device, precision):
        return (~wrong(network(images), labels)).int().cpu()
