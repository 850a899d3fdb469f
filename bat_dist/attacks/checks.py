"""What an attack refuses: the value, the rule and the way out."""

from numbers import Integral
from typing import Any, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels, Logits


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


def check_batch(x: Images, y: Labels) -> int:
    """Images in [0, 1], float32 or float64, without NaN; int64 labels from 0 on, one per image, on the same device.

    Returns the largest label, for `check_logits`. Costs one pass over x and, on a GPU, one wait for its result: far
    less than one of the attack's 2 * num_steps passes through the network. Raises ValueError.
    """
    if x.dtype not in (torch.float32, torch.float64):
        network_alone = "keep images in float32; precision='bf16' runs the network in it"
        way_out = network_alone if x.dtype.is_floating_point else "divide by 255"
        raise ValueError(f"x must be float32 or float64 in [0, 1], got {x.dtype}: {way_out}")
    if x.numel() == 0:
        raise ValueError(f"x must hold at least one image, got shape {list(x.shape)}: skip empty batches")
    if y.dtype != torch.int64 or y.shape != x.shape[:1] or y.device != x.device:
        raise ValueError(
            f"y must be torch.int64 of shape {list(x.shape[:1])} on {x.device}, one class number per image, "
            f"got {y.dtype} of shape {list(y.shape)} on {y.device}"
        )
    bounds = torch.stack([*x.detach().aminmax(), *(label.to(x.dtype) for label in y.aminmax())])
    low, high, smallest_label, largest_label = bounds.tolist()
    if low != low:  # aminmax gives NaN twice if there is one in x
        raise ValueError("x must lie in [0, 1], got NaN: look for it in the data and its augmentation")
    if low < 0 or high > 1:
        raise ValueError(
            f"x must lie in [0, 1], got {low:g} to {high:g}: divide bytes by 255, normalize inside the model"
        )
    if smallest_label < 0:
        raise ValueError(f"labels must be classes 0, 1, 2, ..., got {smallest_label:g}: leave such images out")
    return int(largest_label)


def check_ids(ids: Int64[Tensor, " batch"], x: Images) -> None:
    """Is there one whole number per image? Raises ValueError."""
    if ids.dtype != torch.int64 or ids.shape != x.shape[:1] or ids.device != x.device:
        raise ValueError(
            f"ids must be torch.int64 of shape {list(x.shape[:1])} on {x.device}, a number that names each image "
            f"in whatever batch it comes, got {ids.dtype} of shape {list(ids.shape)} on {ids.device}"
        )


def check_logits(logits: Logits, num_images: int, largest_label: int) -> None:
    """Does the model give a logit for each image and each class that a label names? Raises ValueError."""
    if logits.ndim != 2 or len(logits) != num_images:
        raise ValueError(f"a model must give logits of shape [{num_images}, classes] here, got {list(logits.shape)}")
    if largest_label >= logits.shape[1]:
        raise ValueError(
            f"labels must be 0 to {logits.shape[1] - 1}, one of the model's {logits.shape[1]} classes, got "
            f"{largest_label}: is the model for another data set?"
        )
