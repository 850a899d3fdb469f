"""Random-resized crop (Szegedy et al. 2015, arXiv:1409.4842, Sec. 6): a window of random area and shape, resized.

Windows follow the rules of torchvision's `RandomResizedCrop`, drawn for a whole epoch at once. Applied, they give what
torchvision's `resized_crop(..., antialias=True)` gives for each image, as whole batches and on any device.

An output pixel is a mean of the few pixels under a triangle around its place in the window, axis by axis. Places and
heights of triangles are whole numbers, and the sums of products are written as single operations on single elements:
neither the division into batches, nor the number of threads, nor TF32, nor autocast changes a bit. As a product with
a matrix for each image it would be less to write, but the order of the sums would be the library's choice.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from bat_dist.data.augment import CropFlip

RATIO = 4 / 3
"""The largest aspect ratio, width / height, of a window; the smallest is its inverse."""
TRIES = 10
"""How often a window is drawn until it fits into the image; after that the largest one in the middle is taken."""
SCRATCH_BYTES = 16 * 2**20
"""A batch is resized in chunks of images whose float32 pixels take no more, unless a single image does.  Up to four
such arrays exist at a time."""


def draw_resized_crops(
    count: int, image_shape: tuple[int, int], *, min_scale: float, flip: bool, generator: torch.Generator
) -> CropFlip:
    """Windows of an area uniform in [`min_scale`, 1] of the image's, and flips with probability 1/2 if `flip`.

    image_shape: (height, width) of the images. The logarithm of the aspect ratio is uniform too, and so is the corner
    among those at which the window lies within the image. Windows that do not fit are drawn again.
    """
    whole = torch.tensor(image_shape)
    sizes = torch.tensor(_fallback(*image_shape)).repeat(count, 1)
    corners = (whole - sizes) // 2
    missing = torch.arange(count)

    def uniform(number: int, low: float, high: float) -> Float[Tensor, " number"]:
        return low + (high - low) * torch.rand(number, dtype=torch.float64, generator=generator)

    for _ in range(TRIES):
        area = math.prod(image_shape) * uniform(len(missing), min_scale, 1)
        ratio = uniform(len(missing), -math.log(RATIO), math.log(RATIO)).exp()
        drawn = torch.stack([area / ratio, area * ratio], dim=1).sqrt().round().long()
        fits = ((drawn > 0) & (drawn <= whole)).all(dim=1)
        drawn, found, missing = drawn[fits], missing[fits], missing[~fits]
        sizes[found] = drawn
        places = (whole - drawn + 1) * torch.rand(len(drawn), 2, dtype=torch.float64, generator=generator)
        corners[found] = places.long()
    flips = torch.randint(2, (count,), generator=generator).bool()
    return CropFlip(corners, flips & flip, sizes)


def _fallback(height: int, width: int) -> tuple[int, int]:
    """The largest (height, width) within the image whose aspect ratio is allowed."""
    return min(height, round(width * RATIO)), min(width, round(height * RATIO))


def resized_crop(
    images: UInt8[Tensor, "batch height width 3"], draws: CropFlip, *, shape: tuple[int, int]
) -> UInt8[Tensor, "batch out_height out_width 3"]:
    """Cut out each image's window, resize it, and mirror it left to right where drawn.

    shape: (height, width) of the result. A window that is larger is antialiased. Pixels are rounded once, at the end,
    so that training sees images of 256 levels as evaluation does.
    """
    batch, height, width, channels = images.shape
    assert draws.sizes is not None
    (top, left), sizes = draws.corners.unbind(1), draws.sizes.unbind(1)
    rows = _taps(top, sizes[0], shape[0], of=height)
    columns = _taps(left, sizes[1], shape[1], of=width, mirrored=draws.flips)
    resized = images.new_empty(batch, *shape, channels)
    chunk = max(1, SCRATCH_BYTES // (4 * channels * max(height, shape[0]) * shape[1]))
    for start in range(0, batch, chunk):
        part = slice(start, start + chunk)
        # Columns first: what must be transposed before them are bytes.
        across = _resample(images[part].transpose(1, 2), *(of[:, part] for of in columns))
        resized[part] = _resample(across.transpose(1, 2), *(of[:, part] for of in rows)).round_()
    return resized


def _taps(
    start: Int64[Tensor, " batch"],
    size: Int64[Tensor, " batch"],
    out: int,
    *,
    of: int,
    mirrored: Bool[Tensor, " batch"] | None = None,
) -> tuple[Int64[Tensor, "taps batch out"], Float[Tensor, "taps batch out"]]:
    """Along one axis: the positions of the pixels that each of `out` output pixels is made of, and their weights.

    start, size: the window on this axis, in pixels. of: pixels of the image. mirrored: where to begin at the window's
    end. Distances are in units of 1 / (2 * out) pixels, in which all of them are whole numbers; a triangle reaches a
    pixel of the image or one of the output to either side, whichever is larger.
    """
    start, size, places = start[:, None], size[:, None], torch.arange(out, device=start.device)
    if mirrored is not None:
        places = torch.where(mirrored[:, None], out - 1 - places, places)
    centre = (2 * places + 1) * size
    reach = 2 * size.clamp(min=out)
    first = (centre - reach - out).div(2 * out, rounding_mode="floor") + 1
    tap = first + torch.arange(math.ceil(2 * max(of, out) / out), device=start.device)[:, None, None]
    height = (reach - ((2 * tap + 1) * out - centre).abs()).clamp(min=0)
    height *= (tap >= 0) & (tap < size)
    return start + tap.clamp(min=0).minimum(size - 1), height.float() / height.sum(dim=0).float()


def _resample(
    images: Shaped[Tensor, "batch size other 3"],
    positions: Int64[Tensor, "taps batch out"],
    weights: Float[Tensor, "taps batch out"],
) -> Float[Tensor, "batch out other 3"]:
    """Along the second axis: the weighted sums of the pixels at `positions`, in float32."""
    batch, size, *rest = images.shape
    lines = images.reshape(batch * size, -1)
    line = (positions + size * torch.arange(batch, device=images.device)[:, None]).flatten(1)
    total = images.new_zeros(len(line[0]), lines.shape[1], dtype=torch.float32)
    for at, weight in zip(line, weights.flatten(1), strict=True):
        # Not addcmul_, whose last bit depends on whether the hardware fuses it.
        total += lines.index_select(0, at).float().mul_(weight[:, None])
    return total.view(batch, -1, *rest)
