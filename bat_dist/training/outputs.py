"""What a trained network says of samples, clean and attacked: probabilities, and features before the last layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.numerics import numerics
from bat_dist.attacks.pgd import pgd
from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.training.precision import autocast
from bat_dist.training.recipe import Precision

BATCH_SIZE = 250


@dataclass(frozen=True)
class NetworkOutputs:
    """Softmax outputs and penultimate features of samples, in the order that was asked for."""

    clean: Float32[np.ndarray, "samples classes"]
    attacked: Float32[np.ndarray, "samples classes"]
    features: Float32[np.ndarray, "samples features"]  # of clean images


def outputs_of(
    network: Any,
    loader: Loader,
    indices: Int64[np.ndarray, " samples"],
    *,
    attack: TrainingAttack,
    precision: Precision,
    seed: int,
) -> NetworkOutputs:
    """Outputs on clean images and on those of the attack: eval mode, no augmentation.

    indices: of the loader's split, one at least. An image's start depends on the seed and its position in the split.
    """
    network.eval()
    clean, attacked, features = [], [], []
    for start in range(0, len(indices), BATCH_SIZE):
        batch = indices[start : start + BATCH_SIZE]
        for images, labels, positions in loader.eval_epoch(batch, batch_size=len(batch)):
            keys = image_keys(seed, "outputs", positions)
            x_adv = pgd(network, images, labels, generator=keys, checked=True, **attack.settings())
            with torch.no_grad(), numerics(precision), autocast(images.device, precision):
                logits, penultimate = network(images, with_features=True)
                clean.append(_plain(logits.float().softmax(dim=1)))
                features.append(_plain(penultimate))
                attacked.append(_plain(network(x_adv).float().softmax(dim=1)))
    return NetworkOutputs(*(np.concatenate(parts) for parts in (clean, attacked, features)))


def _plain(values: Tensor) -> Float32[np.ndarray, "samples values"]:
    return values.float().cpu().numpy()
