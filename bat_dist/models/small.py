"""Small networks: one for thousands of cheap trials, one for tests and first steps."""

from jaxtyping import Float
from torch import Tensor, nn

from bat_dist.models.layers import GlobalMax, GlobalMean, conv_bn_relu


def resnet9(width: int) -> tuple[nn.Module, int]:
    """Body and feature width (8 * width) of the fast CIFAR-10 net (Page 2018, "How to train your ResNet").

    The DAWNBench entry with nine weight layers, without its scaling of the logits. Images at least 8x8.
    """
    body = [
        *conv_bn_relu(3, width),
        *conv_bn_relu(width, 2 * width), nn.MaxPool2d(2), Residual(2 * width),
        *conv_bn_relu(2 * width, 4 * width), nn.MaxPool2d(2),
        *conv_bn_relu(4 * width, 8 * width), nn.MaxPool2d(2), Residual(8 * width),
        GlobalMax(),
    ]  # fmt: skip
    return nn.Sequential(*body), 8 * width


def tinynet() -> tuple[nn.Module, int]:
    """Body and feature width of a net of 6,418 parameters (10 classes) for 8x8 digits."""
    body = [*conv_bn_relu(3, 8), *conv_bn_relu(8, 16, stride=2), *conv_bn_relu(16, 32), GlobalMean()]
    return nn.Sequential(*body), 32


class Residual(nn.Module):
    """x + F(x), F = two times conv, BN, relu."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*conv_bn_relu(width, width), *conv_bn_relu(width, width))

    def forward(self, x: Float[Tensor, "batch width height columns"]) -> Float[Tensor, "batch width height columns"]:
        """Same shape as x."""
        return x + self.branch(x)
