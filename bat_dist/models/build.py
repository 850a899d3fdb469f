"""From a name to a network."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import nn

from bat_dist.config import UserError
from bat_dist.models.classifier import ImageClassifier
from bat_dist.models.names import Arch, parse_arch
from bat_dist.models.preact_resnet import preact_resnet18
from bat_dist.models.resnet import cifar_resnet, resnet
from bat_dist.models.small import resnet9, tinynet
from bat_dist.models.wide_resnet import wide_resnet


def build(name: str, num_classes: int, *, mean: Sequence[float], std: Sequence[float]) -> ImageClassifier:
    """A new network by name (see `names.ARCHITECTURES`), in float32 on the default device.

    `model(x)` gives logits [batch, num_classes] of images x [batch, 3, height, width] in [0, 1];
    `model(x, with_features=True)` gives (logits, features [batch, width]), where features are the input of
    the last linear layer. mean and std: per channel, of pixels in [0, 1]. The weights are drawn from torch's
    global generator: `torch.manual_seed` decides them.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    body, width = _body(parse_arch(name))
    return ImageClassifier(body, width, num_classes, mean=mean, std=std)


@cache
def check_fits(name: str, image_size: int) -> None:
    """Raise UserError if the network shrinks images of this side to nothing; found without computing a number."""
    if _takes(name, image_size):
        return
    large_enough = next((size for size in range(image_size + 1, 257) if _takes(name, size)), None)
    rule = f": it takes those from {large_enough}x{large_enough} on" if large_enough else ""
    raise UserError(
        f"arch {name} does not fit images of {image_size}x{image_size}{rule}; take tinynet, or a larger image_size"
    )


def _takes(name: str, image_size: int) -> bool:
    with torch.device("meta"):
        network = build(name, 2, mean=(0.5,) * 3, std=(0.5,) * 3).eval()
        try:
            network(torch.empty(1, 3, image_size, image_size))
        except RuntimeError:
            return False
    return True


def _body(arch: Arch) -> tuple[nn.Module, int]:
    match arch.family:
        case "resnet":
            return resnet(arch.depth)
        case "cifar_resnet":
            return cifar_resnet(arch.depth)
        case "preact_resnet":
            return preact_resnet18()
        case "wide_resnet":
            return wide_resnet(arch.depth, arch.width)
        case "resnet9":
            return resnet9(arch.width)
        case "tinynet":
            return tinynet()
