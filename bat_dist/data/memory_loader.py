"""The loader that keeps its whole split on the device: no files, no threads, nothing to install."""

import warnings
from collections.abc import Generator

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bat_dist.data.split_loader import SplitLoader, check_split


class MemoryLoader(SplitLoader):
    """See `loaders.Loader`. On the CPU the images are used in place, read-only or not, and never written."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "samples height width 3"],
        labels: Int64[np.ndarray, " samples"],
        *,
        crop_padding: int,
        flip: bool,
        crop_scale: float | None = None,
        crop_size: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        check_split(images, labels)
        how = {"crop_padding": crop_padding, "flip": flip, "crop_scale": crop_scale, "crop_size": crop_size}
        super().__init__(shared_tensor(labels), images.shape[1:3], **how, device=device)
        self._images = self._held(shared_tensor(images))

    def _held(self, images: UInt8[Tensor, "samples height width 3"]) -> UInt8[Tensor, "samples height width 3"]:
        """The images where batches are taken from."""
        return images.to(self.device)

    def _read(
        self, order: Int64[Tensor, " samples"], batch_size: int
    ) -> Generator[UInt8[Tensor, "batch height width 3"]]:
        for at in order.to(self.device).split(batch_size):
            yield self._images.index_select(0, at)


def shared_tensor(array: np.ndarray) -> Tensor:
    """A tensor over the array's own memory, which may be read-only (Ray's store): never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)
