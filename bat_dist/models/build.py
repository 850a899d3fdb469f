"""From a name to a network."""

from collections.abc import Sequence

from torch import nn

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
