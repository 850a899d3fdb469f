"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146), without dropout."""

from torch import nn

from bat_dist.models.layers import GlobalMean, conv, stages
from bat_dist.models.preact_resnet import PreActBlock


def wide_resnet(depth: int, width: int) -> tuple[nn.Module, int]:
    """Body and feature width of WRN-depth-width (Table 1): three groups of (depth - 4) / 6 blocks.

    WRN-28-10 and WRN-34-10 are the networks of TRADES, MART, GAIRAT and Rice et al. (of TRADES without the
    extra first group, which its forward pass never uses).
    """
    widths = (16 * width, 32 * width, 64 * width)
    groups = stages(PreActBlock, 16, widths, [(depth - 4) // 6] * 3)
    body = [conv(3, 16), *groups, nn.BatchNorm2d(widths[-1]), nn.ReLU(), GlobalMean()]
    return nn.Sequential(*body), widths[-1]
