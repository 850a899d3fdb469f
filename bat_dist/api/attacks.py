"""Attacks on a batch, as training and evaluation use them."""

from typing import Any

import torch

from bat_dist.attacks import pgd as attack
from bat_dist.attacks.autoattack import autoattack
from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels

__all__ = ["autoattack", "pgd"]


def pgd(
    model: torch.nn.Module,
    x: Images,
    y: Labels,
    *,
    epsilon: float = 8 / 255,
    step_size: float | None = None,
    num_steps: int = 20,
    seed: int = 0,
    **settings: Any,
) -> Images:
    """Adversarial images by projected gradient descent in the l_inf ball (Madry et al. 2018, arXiv:1706.06083).

    Args:
        model: images [batch, 3, height, width] in [0, 1] -> logits [batch, classes]; attacked in eval mode, and left
            as it was.
        x, y: images, float32 or float64 in [0, 1], and their class numbers, int64 [batch], on one device.
        epsilon: the radius of the ball, in [0, 1] pixels.
        step_size: None is epsilon / 4.
        num_steps: each costs one pass forward and one backward.
        seed: of the random start; without effect if a `generator` is given.
        **settings: of `bat_dist.attacks.pgd.pgd`: loss, start, restarts, best_iterate, generator, precision, mode.

    Returns:
        The images, |x_adv - x| <= epsilon, in [0, 1], detached, of x's type and device.

    Raises:
        ValueError: for images outside [0, 1], labels that name no class, and sizes that make no sense.

    Example:
        >>> x_adv = pgd(network, x, y, epsilon=8 / 255, num_steps=20)  # doctest: +SKIP
    """
    settings.setdefault("generator", torch.Generator().manual_seed(seed))
    step_size = epsilon / 4 if step_size is None else step_size
    return attack.pgd(model, x, y, epsilon=epsilon, step_size=step_size, num_steps=num_steps, **settings)
