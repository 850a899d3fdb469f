"""Residual networks for small images (He et al. 2015, "Deep Residual Learning", arXiv:1512.03385)."""

from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bat_dist.models.layers import GlobalMean, conv, conv_bn_relu, stages

NUM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # Table 1


def resnet(depth: int) -> tuple[nn.Module, int]:
    """Body and feature width of ResNet-18 or -34 in the CIFAR form: 3x3 stem of stride 1 and no max pooling.

    Shortcuts that change the shape are 1x1 convolutions with BatchNorm (option B of the paper).
    """
    block = partial(BasicBlock, weightless=False)
    body = [*conv_bn_relu(3, 64), *stages(block, 64, (64, 128, 256, 512), NUM_BLOCKS[depth]), GlobalMean()]
    return nn.Sequential(*body), 512


def cifar_resnet(depth: int) -> tuple[nn.Module, int]:
    """Body and feature width of the paper's CIFAR-10 network (Section 4.2): depth 6n + 2, widths 16, 32, 64.

    All shortcuts are identities, as in the paper (option A): no weights, new channels are zeros.
    """
    block = partial(BasicBlock, weightless=True)
    body = [*conv_bn_relu(3, 16), *stages(block, 16, (16, 32, 64), [(depth - 2) // 6] * 3), GlobalMean()]
    return nn.Sequential(*body), 64


class BasicBlock(nn.Module):
    """relu(F(x) + shortcut(x)), F = conv, BN, relu, conv, BN (Figure 5, left)."""

    def __init__(self, in_width: int, width: int, stride: int, *, weightless: bool) -> None:
        super().__init__()
        self.conv1 = conv(in_width, width, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        if stride == 1 and in_width == width:
            self.shortcut = nn.Identity()
        elif weightless:
            self.shortcut = PaddedShortcut(width - in_width, stride)
        else:
            self.shortcut = nn.Sequential(conv(in_width, width, kernel=1, stride=stride), nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "batch in_width height columns"]) -> Float[Tensor, "batch width rows cols"]:
        """Height and width shrink by the stride."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class PaddedShortcut(nn.Module):
    """Option A: every second position, and zeros for the new channels, appended after the old ones."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: Float[Tensor, "batch in_width height columns"]) -> Float[Tensor, "batch width rows cols"]:
        """Subsampled and padded; no weights."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
