"""The loader that reads a beton with FFCV: its file map, its compiled reader and its ring of buffers.

FFCV's own order, subset and augmentation options are not used: its orders drop the last batch by default and
repeat samples when distributed, its augmentations cannot be seeded, and each Loader costs a compilation. Here
one Loader per split serves every epoch, whatever its subset and batch size.
"""

import functools
from collections.abc import Generator
from pathlib import Path
from queue import Empty, Full
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bat_dist.data.beton import import_ffcv, torch_threads_kept
from bat_dist.data.split_loader import SplitLoader

POLL_SECONDS = 0.5  # how often a waiting side looks whether the other one is still there


class FfcvLoader(SplitLoader):
    """See `loaders.Loader`; `path` is a beton from `beton.ensure_beton`. Compiles for a second or so."""

    def __init__(
        self,
        path: Path,
        *,
        crop_padding: int,
        flip: bool,
        crop_scale: float | None = None,
        crop_size: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        ffcv = import_ffcv()
        with torch_threads_kept():
            self._ffcv = ffcv.Loader(
                str(path),
                batch_size=1,  # each epoch sets its own
                num_workers=1,  # it only copies bytes: one thread is enough, and the cores are torch's
                os_cache=True,
                seed=0,  # not used; without one it would draw from numpy's global generator
                pipelines={"index": None, "label": None},  # in the records, which are in memory anyway
            )
        records = self._ffcv.reader.metadata
        labels = torch.from_numpy(records["f1"].copy())
        height, width, _ = map(int, self._ffcv.reader.handlers["image"].shape)
        how = {"crop_padding": crop_padding, "flip": flip, "crop_scale": crop_scale, "crop_size": crop_size}
        super().__init__(labels, (height, width), **how, device=device)

    def _read(
        self, order: Int64[Tensor, " samples"], batch_size: int
    ) -> Generator[UInt8[Tensor, "batch height width 3"]]:
        self._ffcv.batch_size = batch_size
        epoch = _epoch_type()(self._ffcv, order.numpy())
        try:
            for (images,) in epoch:
                if self.device.type == "cuda":
                    # Not straight from the ring, though it is pinned: FFCV might overwrite what is still being copied.
                    # Memory of torch's own pinned allocator is not reused before the copy is done.
                    pinned = torch.empty(images.shape, dtype=images.dtype, pin_memory=True).copy_(images)
                    yield pinned.to(self.device, non_blocking=True)
                else:  # on the CPU the batch itself, which lies in FFCV's ring and is overwritten later
                    yield images.to(self.device)
        finally:
            epoch.close()


@functools.cache
def _epoch_type() -> Any:
    """FFCV's thread for one epoch, made fit to be left early and to fail aloud."""
    from ffcv.loader.epoch_iterator import EpochIterator

    class Epoch(EpochIterator):
        # The base's loop is replaced whole: it dies of an error unseen, so that the consumer waits forever;
        # left early, it may wait forever itself; and it sets torch's threads while the model is at work.
        def run(self) -> None:
            last: BaseException = StopIteration()
            try:
                for number, indices in enumerate(self.iter_ixes):
                    slot = number % (self.loader.batches_ahead + 2)
                    if not self._hand_over(self.run_pipeline(number, indices, slot, None)):
                        return
            except BaseException as error:  # raised again where the batch was asked for
                last = error
            self._hand_over(last)

        def _hand_over(self, item: Any) -> bool:
            """Put the item into the queue; False if the epoch was closed meanwhile."""
            while not self.terminate_event.is_set():
                try:
                    self.output_queue.put(item, timeout=POLL_SECONDS)
                    return True
                except Full:
                    continue
            return False

        def __next__(self) -> tuple[Tensor, ...]:
            item = self._take()
            if isinstance(item, StopIteration):
                raise item
            if isinstance(item, BaseException):
                raise RuntimeError(f"FFCV failed to read {self.loader.fname}: {item!r}") from item
            return item

        def _take(self) -> Any:
            while True:
                alive = self.is_alive()  # asked first: what a dead thread left behind is then surely in the queue
                try:
                    return self.output_queue.get(timeout=POLL_SECONDS)
                except Empty:
                    if not alive:
                        return RuntimeError("its thread died without a word")

        def close(self) -> None:
            """Stop the thread, wherever it is, and wait for it."""
            self.terminate_event.set()
            while self.is_alive():
                try:
                    self.output_queue.get_nowait()  # it may be waiting for room
                except Empty:
                    self.join(timeout=0.01)
            super().close()

    return Epoch
