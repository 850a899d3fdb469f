"""Pre-activation ResNet (He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bat_dist.models.layers import GlobalMean, conv, stages


def preact_resnet18() -> tuple[nn.Module, int]:
    """Body and feature width of PreActResNet-18 in the CIFAR form, as the GAIRAT experiments use it.

    There is no BatchNorm and no ReLU after the last block, so features may be negative. (Rice et al. 2020 add
    both: 1,024 parameters more.)
    """
    body = [conv(3, 64), *stages(PreActBlock, 64, (64, 128, 256, 512), (2, 2, 2, 2)), GlobalMean()]
    return nn.Sequential(*body), 512


class PreActBlock(nn.Module):
    """F(a) + shortcut with a = relu(BN(x)), F = conv, BN, relu, conv (Figure 4e).

    The shortcut is x itself, or a 1x1 convolution of a where the shape changes.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = conv(in_width, width, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width)
        changes = stride != 1 or in_width != width
        self.shortcut = conv(in_width, width, kernel=1, stride=stride) if changes else None

    def forward(self, x: Float[Tensor, "batch in_width height columns"]) -> Float[Tensor, "batch width rows cols"]:
        """Height and width shrink by the stride."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))
