"""Networks by name, and those of the user's own."""

from collections.abc import Sequence
from typing import overload

from bat_dist.models.classifier import ImageClassifier
from bat_dist.models.names import parse_arch
from bat_dist.models.own import OwnClassifier, OwnNetwork
from bat_dist.models.preact_resnet import preact_resnet18
from bat_dist.models.resnet import cifar_resnet, resnet
from bat_dist.models.small import resnet9, tinynet
from bat_dist.models.wide_resnet import wide_resnet

Classifier = ImageClassifier | OwnClassifier


@overload
def build(arch: str, num_classes: int, *, mean: Sequence[float], std: Sequence[float]) -> ImageClassifier: ...
@overload
def build(arch: str | OwnNetwork, num_classes: int, *, mean: Sequence[float], std: Sequence[float]) -> Classifier: ...
def build(arch: str | OwnNetwork, num_classes: int, *, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """A new network by name (see `names.ARCHITECTURES`) or of the user's own, in float32 on the default device.

    `model(x)` gives logits [batch, num_classes] of images x [batch, 3, height, width] in [0, 1];
    `model(x, with_features=True)` gives (logits, features [batch, width]), where features are the input of
    the last linear layer. mean and std: per channel, of pixels in [0, 1]. The weights are drawn from torch's
    global generator: `torch.manual_seed` decides them.
    Raises UserError for a network of the user's own that cannot be made.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if isinstance(arch, OwnNetwork):
        return OwnClassifier(arch, num_classes, mean=mean, std=std)
    family, depth, width = parse_arch(arch)
    match family:
        case "resnet":
            body, num_features = resnet(depth)
        case "cifar_resnet":
            body, num_features = cifar_resnet(depth)
        case "preact_resnet":
            body, num_features = preact_resnet18()
        case "wide_resnet":
            body, num_features = wide_resnet(depth, width)
        case "resnet9":
            body, num_features = resnet9(width)
        case "tinynet":
            body, num_features = tinynet()
    return ImageClassifier(body, num_features, num_classes, mean=mean, std=std)
