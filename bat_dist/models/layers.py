"""The pieces that several families are made of."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn


def conv(in_width: int, width: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Convolution without bias (a BatchNorm follows), padded so that stride 1 keeps the size."""
    return nn.Conv2d(in_width, width, kernel, stride=stride, padding=kernel // 2, bias=False)


def conv_bn_relu(in_width: int, width: int, *, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution, BatchNorm, ReLU, to be unpacked into a Sequential."""
    return [conv(in_width, width, stride=stride), nn.BatchNorm2d(width), nn.ReLU()]


def stages(
    block: Callable[[int, int, int], nn.Module], in_width: int, widths: Sequence[int], num_blocks: Sequence[int]
) -> list[nn.Module]:
    """`num_blocks[s]` blocks of `widths[s]` per stage; every stage but the first begins with stride 2.

    block(in_width, width, stride) makes one residual block.
    """
    layers: list[nn.Module] = []
    for stage, (width, count) in enumerate(zip(widths, num_blocks, strict=True)):
        for position in range(count):
            layers.append(block(in_width, width, 2 if stage > 0 and position == 0 else 1))
            in_width = width
    return layers


class GlobalMean(nn.Module):
    """Mean over all positions. Deterministic on CUDA, unlike the gradient of `AdaptiveAvgPool2d`."""

    def forward(self, maps: Float[Tensor, "batch width height columns"]) -> Float[Tensor, "batch width"]:
        """Mean of each map."""
        return maps.mean(dim=(2, 3))


class GlobalMax(nn.Module):
    """Maximum over all positions; equal maxima share the gradient. Deterministic, see `GlobalMean`."""

    def forward(self, maps: Float[Tensor, "batch width height columns"]) -> Float[Tensor, "batch width"]:
        """Maximum of each map."""
        return maps.amax(dim=(2, 3))
