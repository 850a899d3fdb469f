"""The loader of images that are mapped from a disk: the next batch is read while the network works on this one."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bat_dist.data.memory_loader import shared_tensor
from bat_dist.data.split_loader import SplitLoader, check_split


class MappedLoader(SplitLoader):
    """See `loaders.Loader`. A thread copies each batch's rows out of the file; to a GPU they go from pinned memory."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "samples height width 3"],
        labels: Int64[np.ndarray, " samples"],
        *,
        crop_padding: int,
        flip: bool,
        device: str | torch.device = "cpu",
    ) -> None:
        check_split(images, labels)
        super().__init__(shared_tensor(labels), crop_padding=crop_padding, flip=flip, device=device)
        self._images = np.asarray(images)

    def _read(
        self, order: Int64[Tensor, " samples"], batch_size: int
    ) -> Generator[UInt8[Tensor, "batch height width 3"]]:
        batches = order.split(batch_size)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._rows, batches[0])
            for following in (*batches[1:], None):
                images = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._rows, following)
                yield images.to(self.device, non_blocking=True)

    def _rows(self, at: Int64[Tensor, " batch"]) -> UInt8[Tensor, "batch height width 3"]:
        """The images at these positions, on the host, in memory of their own."""
        rows = torch.empty((len(at), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        # `checked_order` has checked the positions; with mode "raise" numpy would copy the rows twice.
        np.take(self._images, at.numpy(), axis=0, out=rows.numpy(), mode="clip")
        return rows
