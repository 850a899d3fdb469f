"""Normalization as the first layer: callers and attacks see images in [0, 1] only."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel. Both are in the state dict, so that a checkpoint is complete by itself.

    mean and std: one finite number per channel (red, green, blue), in units of [0, 1] pixels; std positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        _check_channels("mean", mean)
        _check_channels("std", std)
        if min(std) <= 0:
            raise ValueError(f"std must be positive in every channel, got {tuple(std)}")
        self.register_buffer("mean", torch.tensor(tuple(map(float, mean)), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(tuple(map(float, std)), dtype=torch.float32))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Normalized images, in the memory format of `images`."""
        if not images.is_floating_point():
            raise ValueError(f"images must be floating point in [0, 1], got {images.dtype}: divide by 255 first")
        return (images - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


def _check_channels(name: str, values: Sequence[float]) -> None:
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name} must be three finite numbers (red, green, blue), got {tuple(values)}")
