"""What both kinds of loader share: order, shuffling and augmentation.

A kind only says how raw images are read, so that both yield the same bits for the same generator.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bat_dist.data.augment import CropFlip, crop_flip, draw_crop_flip, to_float
from bat_dist.data.resized_crop import draw_resized_crops, resized_crop
from bat_dist.errors import UserError

Indices = Sequence[int] | np.ndarray | Tensor


class Batch(NamedTuple):
    """Everything is on the loader's device and belongs to the caller."""

    images: Float[Tensor, "batch 3 height width"]  # in [0, 1], channels_last
    labels: Int64[Tensor, " batch"]
    indices: Int64[Tensor, " batch"]  # positions in the split


@dataclass(frozen=True)
class Share:
    """What one of several ranks has of a batch: consecutive rows, as many as the other ranks or one more."""

    rank: int = 0
    size: int = 1

    def rows(self, batch: int) -> slice:
        """This rank's rows of a batch of that many; the first ranks have one more where it does not divide."""
        each, more = divmod(batch, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))


WHOLE = Share()


class Loader(Protocol):
    """Arguments are checked, and all random draws made, when a method is called, not when it is iterated."""

    def train_epoch(
        self,
        indices: Indices,
        *,
        batch_size: int,
        generator: torch.Generator,
        drop_last: bool = False,
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Every index once, shuffled and augmented: a function of the arguments and the generator's state.

        share: only a rank's rows of each batch of `batch_size`; the ranks' rows together are the whole batches.
        """
        ...

    def eval_epoch(self, indices: Indices | None = None, *, batch_size: int) -> Iterator[Batch]:
        """Every index (all samples by default) once, in the order given, as stored."""
        ...


class LoaderUnavailable(UserError):
    """FFCV cannot be imported on this machine."""


class SplitLoader:
    """The part of a loader that does not depend on where raw images come from."""

    def __init__(
        self,
        labels: Int64[Tensor, " samples"],
        image_shape: tuple[int, int],
        *,
        crop_padding: int,
        flip: bool,
        crop_scale: float | None,
        crop_size: int | None,
        device: str | torch.device,
    ) -> None:
        """image_shape: (height, width). The rest as in `DatasetSpec`."""
        self.device = torch.device(device)
        self._labels = labels.to(self.device)
        self._image_shape = image_shape
        self._crop_padding = crop_padding
        self._flip = flip
        self._crop_scale = crop_scale
        self._crop_shape = (crop_size, crop_size) if crop_size else image_shape

    def _read(
        self, order: Int64[Tensor, " samples"], batch_size: int
    ) -> Generator[UInt8[Tensor, "batch height width 3"]]:
        """Raw images on the device, in `order` (on the CPU); each batch need only be valid until the next."""
        raise NotImplementedError

    def train_epoch(
        self,
        indices: Indices,
        *,
        batch_size: int,
        generator: torch.Generator,
        drop_last: bool = False,
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """See `Loader`; `drop_last` drops the last batch if it is not full.

        All ranks draw what belongs to the whole batches. Raises ValueError if `batch_size` does not divide by the
        number of ranks, or if the last batch would leave a rank with nothing.
        """
        order = checked_order(indices, len(self._labels), batch_size)
        order = order[torch.randperm(len(order), generator=generator)]
        draws = self._drawn(len(order), generator)
        if drop_last:
            order = order[: len(order) // batch_size * batch_size]
            if not len(order):
                raise ValueError(f"drop_last leaves nothing: fewer indices than batch_size {batch_size}")
        own = positions_of(share, len(order), batch_size)
        return self._batches(order[own], batch_size // share.size, draws.part(own))

    def eval_epoch(self, indices: Indices | None = None, *, batch_size: int) -> Iterator[Batch]:
        """See `Loader`."""
        if indices is None:
            indices = np.arange(len(self._labels))
        return self._batches(checked_order(indices, len(self._labels), batch_size), batch_size, None)

    def _drawn(self, count: int, generator: torch.Generator) -> CropFlip:
        flip, scale = self._flip, self._crop_scale
        if scale is None:
            return draw_crop_flip(count, padding=self._crop_padding, flip=flip, generator=generator)
        return draw_resized_crops(count, self._image_shape, min_scale=scale, flip=flip, generator=generator)

    def _batches(self, order: Int64[Tensor, " samples"], batch_size: int, draws: CropFlip | None) -> Iterator[Batch]:
        positions, draws = order.to(self.device), draws and draws.to(self.device)
        with closing(self._read(order, batch_size)) as reading:
            for start, images in zip(range(0, len(order), batch_size), reading, strict=True):
                batch = slice(start, start + batch_size)
                if draws is not None and draws.sizes is not None:
                    images = resized_crop(images, draws.part(batch), shape=self._crop_shape)
                elif draws is not None:
                    images = crop_flip(images, draws.part(batch), padding=self._crop_padding)
                at = positions[batch].clone()
                yield Batch(to_float(images), self._labels.index_select(0, at), at)


def positions_of(share: Share, count: int, batch_size: int) -> slice | Int64[Tensor, " own"]:
    """The positions of the share's rows, in order, when `count` samples come in batches of `batch_size`.

    Raises ValueError if the ranks cannot share them evenly enough.
    """
    if share.size == 1:
        return slice(None)
    if batch_size % share.size:
        raise ValueError(f"batch_size must be divisible by the {share.size} ranks, got {batch_size}")
    if 0 < count % batch_size < share.size:
        raise ValueError(f"the last batch has {count % batch_size} samples for {share.size} ranks: use drop_last")
    batches = torch.arange(count).split(batch_size)
    return torch.cat([batch[share.rows(len(batch))] for batch in batches])


def checked_order(indices: Indices, num_samples: int, batch_size: int) -> Int64[Tensor, " samples"]:
    """Our own copy of `indices`, on the CPU; ValueError unless they are distinct positions in the split."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    given = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices)
    if given.ndim != 1 or not given.size:
        raise ValueError(f"indices must be a list of at least one position, got shape {given.shape}")
    if given.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers, got {given.dtype}: np.flatnonzero(mask) turns a mask into them")
    order = given.astype(np.int64)
    outside = order[(order < 0) | (order >= num_samples)]
    if outside.size:
        raise ValueError(f"indices must lie in [0, {num_samples}), got {outside[0]}")
    counts = np.bincount(order)
    if counts.max() > 1:
        raise ValueError(f"indices must be distinct, got {counts.argmax()} {counts.max()} times")
    return torch.from_numpy(order)


def check_split(images: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError unless these are the arrays of a split."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise ValueError(f"images must be uint8 [samples, height, width, 3], got {images.dtype} {images.shape}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must be int64, one for each of {len(images)} images, got {labels.dtype} {labels.shape}"
        )
