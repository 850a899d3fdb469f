"""The loader of images that are mapped from a disk: the next batch is read while the network works on this one."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bat_dist.data.memory_loader import MemoryLoader


class MappedLoader(MemoryLoader):
    """See `loaders.Loader`. A thread copies each batch's rows out of the file; to a GPU they go from pinned memory."""

    def _held(self, images: UInt8[Tensor, "samples height width 3"]) -> UInt8[Tensor, "samples height width 3"]:
        return images

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
        shape, on_gpu = (len(at), *self._images.shape[1:]), self.device.type == "cuda"
        rows = torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu)
        # `checked_order` has checked the positions; with mode "raise" numpy would copy the rows twice.
        np.take(self._images.numpy(), at.numpy(), axis=0, out=rows.numpy(), mode="clip")
        return rows
