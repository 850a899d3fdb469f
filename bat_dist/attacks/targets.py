"""Which classes a targeted attack of AutoAttack aims at."""

import torch
from jaxtyping import Int64
from torch import Tensor

from bat_dist.attacks.losses import Logits


def likely_targets(logits: Logits, num_targets: int) -> Int64[Tensor, "batch targets"]:
    """The wrong classes of images that are classified right, the likeliest first."""
    return torch.argsort(logits, dim=1, descending=True)[:, 1 : num_targets + 1]


def check_targets(attack: str, num_classes: int, num_targets: int) -> None:
    """Are there so many wrong classes? Raises ValueError."""
    if num_classes <= num_targets:
        raise ValueError(
            f"{attack} aims at {num_targets} wrong classes, but the model has {num_classes} in all: "
            f"AutoAttack standard needs at least 10; evaluate a smaller one with PGD, CW, APGD-CE and Square"
        )
