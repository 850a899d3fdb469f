"""Which classes a targeted attack of AutoAttack aims at."""

import torch
from jaxtyping import Int64
from torch import Tensor

from bat_dist.attacks.losses import Logits


def likely_targets(logits: Logits, num_targets: int) -> Int64[Tensor, "batch targets"]:
    """The wrong classes of images that are classified right, the likeliest first."""
    return torch.argsort(logits, dim=1, descending=True)[:, 1 : num_targets + 1]
