"""What an attack refuses: the value, the rule and the way out."""

from numbers import Integral
from typing import Any, get_args

import torch
from torch import Tensor

from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels


def check_settings(*, epsilon: float, step_size: float, **counts: int) -> None:
    """Sizes in (0, 1], counts at least 1. Costs nothing. Raises ValueError."""
    for name, value in (("epsilon", epsilon), ("step_size", step_size)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {value}: pixels are in [0, 1], so 8 of 255 is 8 / 255")
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {count}")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Is the value one of a Literal's? Raises ValueError."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def check_batch(x: Images, y: Labels) -> None:
    """Images in [0, 1], float32 or float64, without NaN; int64 labels, one per image, on the same device.

    Costs one pass over x and, on a GPU, one wait for its result: far less than one of the attack's 2 * num_steps
    passes through the network. That labels name a class of the model is not checked. Raises ValueError.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64 in [0, 1], got {x.dtype}: {_way_out(x.dtype)}")
    if x.numel() == 0:
        raise ValueError(f"x must hold at least one image, got shape {list(x.shape)}: skip empty batches")
    if y.dtype != torch.int64 or y.shape != x.shape[:1] or y.device != x.device:
        raise ValueError(
            f"y must be torch.int64 of shape {list(x.shape[:1])} on {x.device}, one class number per image, "
            f"got {y.dtype} of shape {list(y.shape)} on {y.device}"
        )
    _check_range(x.detach())


def _check_range(x: Tensor) -> None:
    low, high = torch.stack(x.aminmax()).tolist()  # both NaN if there is one in x
    if low != low:
        raise ValueError("x must lie in [0, 1], got NaN: look for it in the data and its augmentation")
    if low < 0 or high > 1:
        raise ValueError(
            f"x must lie in [0, 1], got {low:g} to {high:g}: divide bytes by 255, normalize inside the model"
        )


def _way_out(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return "keep images in float32; precision='bf16' runs the network in it"
    return "divide by 255"
