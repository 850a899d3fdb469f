"""Random crop and flip of whole batches.

Drawing is apart from applying: an epoch's draws are made at once, on the CPU, so that they depend neither on
the device nor on how far a loader has read ahead. Pixels stay uint8 until the end: four times less to move.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


class CropFlip(NamedTuple):
    """Per image: the window's corner (row, column), and whether it is mirrored.

    sizes: (height, width) of windows within the image, which are resized (`resized_crop`). None for windows of the
    image's own size, whose corners are positions in the padded image.
    """

    corners: Int64[Tensor, "batch 2"]
    flips: Bool[Tensor, " batch"]
    sizes: Int64[Tensor, "batch 2"] | None = None

    def to(self, device: torch.device) -> "CropFlip":
        """The draws on `device`: of a whole epoch at once, since each copy makes the host wait for a GPU."""
        sizes = None if self.sizes is None else self.sizes.to(device)
        return CropFlip(self.corners.to(device), self.flips.to(device), sizes)

    def part(self, which: slice | Int64[Tensor, " part"]) -> "CropFlip":
        """The draws of these images."""
        sizes = None if self.sizes is None else self.sizes[which]
        return CropFlip(self.corners[which], self.flips[which], sizes)


def draw_crop_flip(count: int, *, padding: int, flip: bool, generator: torch.Generator) -> CropFlip:
    """Corners uniform over the (2 * padding + 1)^2 windows; flips with probability 1/2 if `flip`."""
    corners = torch.randint(2 * padding + 1, (count, 2), generator=generator)
    flips = torch.randint(2, (count,), generator=generator).bool()
    return CropFlip(corners, flips & flip)


def crop_flip(
    images: UInt8[Tensor, "batch height width 3"], draws: CropFlip, *, padding: int
) -> UInt8[Tensor, "batch height width 3"]:
    """Cut each image's window out of the image padded with zeros, then mirror it left to right where drawn.

    One gather does both: behind the padded batch lies its mirror image, and every window is a row of an
    overlapping view of that memory.
    """
    batch, height, width, channels = images.shape
    padded = images.new_zeros(2, batch, height + 2 * padding, width + 2 * padding, channels)
    inside = padded[:, :, padding : padding + height, padding : padding + width]
    inside[0] = images
    inside[1] = images.flip(2)

    image_stride, row_stride, column_stride = padded.stride()[1:4]
    row, column = draws.corners.unbind(1)
    column = torch.where(draws.flips, 2 * padding - column, column)
    image = torch.arange(batch, device=images.device) + batch * draws.flips
    corner = image * image_stride + row * row_stride + column * column_stride

    window = (height - 1) * row_stride + width * column_stride
    windows = padded.as_strided((padded.numel() - window + 1, height, width * column_stride), (1, row_stride, 1))
    return windows.index_select(0, corner).view(images.shape)


def to_float(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Pixels in [0, 1], in new memory, laid out channels_last (the layout that the bytes already have).

    Divided by a tensor: a GPU multiplies by the inverse of a number, whose last bit is another than the CPU's.
    """
    return images.permute(0, 3, 1, 2).float().div_(torch.full((1,), 255.0, device=images.device))
