"""A loader is made once for a split, and then asked for epochs."""

import functools
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from bat_dist.data.datasets import Dataset, Split
from bat_dist.data.mapped_images import file_of
from bat_dist.data.split_loader import Batch, Indices, Loader, LoaderUnavailable, Share
from bat_dist.data.table import augmentation_of

__all__ = ["KINDS", "Batch", "Indices", "Loader", "LoaderUnavailable", "Share", "check_cache", "dataset_loader"]

KINDS = ("ffcv", "memory")
SMALL_BYTES = 64 * 2**20
"""Pixels of a split up to which FFCV is not worth the six seconds of CPU time that its import takes."""
SHARE_OF_GPU = 0.25
"""Part of a worker's memory on its GPU that one split's pixels may fill.  Two splits of that size leave half of it for
the network, its gradients and activations, which is what the memory is for; CIFAR's 154 MB want 0.6 GB."""

log = logging.getLogger(__name__)


def dataset_loader(
    kind: str,
    dataset: Dataset,
    split_name: str,
    *,
    device: str | torch.device = "cpu",
    gpu_share: float = 1.0,
    cache_dir: str | Path | None = None,
) -> Loader:
    """The loader of a dataset's "train" or "test" split, augmented as its row of the table says.

    kind: "ffcv" keeps the split as a beton in `cache_dir` (see `ensure_beton`), "memory" keeps it on the device. "auto"
    is memory for a split that is small or fits a GPU well, else what this process has; batches are equal, so processes
    may differ. Images that are mapped from a disk are read from there by "memory" and "auto", unless they fit a GPU
    well. gpu_share: the part of its GPU that this process was given.
    Raises `LoaderUnavailable` if "ffcv" is asked for and not installed.
    """
    split: Split = getattr(dataset, split_name)
    how = augmentation_of(dataset.spec)
    on_disk, num_bytes = file_of(split.images) is not None, split.images.nbytes
    if kind == "auto" and not on_disk:
        fits = num_bytes <= SMALL_BYTES or fits_gpu(num_bytes, torch.device(device), gpu_share)
        kind = "memory" if fits else kind_at_hand()
    if kind in ("auto", "memory") and on_disk and not fits_gpu(num_bytes, torch.device(device), gpu_share):
        from bat_dist.data.mapped_loader import MappedLoader

        return MappedLoader(split.images, split.labels, **how, device=device)
    if kind in ("auto", "memory"):
        from bat_dist.data.memory_loader import MemoryLoader

        return MemoryLoader(split.images, split.labels, **how, device=device)
    if kind == "ffcv":
        from bat_dist.data.beton import ensure_beton
        from bat_dist.data.ffcv_loader import FfcvLoader

        name = dataset.fingerprint
        path = ensure_beton(split.images, split.labels, fingerprint=name, split_name=split_name, cache_dir=cache_dir)
        return FfcvLoader(path, **how, device=device)
    raise ValueError(f"unknown loader {kind!r}: choose one of {', '.join(KINDS)}")


def fits_gpu(num_bytes: int, device: torch.device, gpu_share: float) -> bool:
    """Whether pixels fit a GPU and leave room for the rest (`SHARE_OF_GPU`), which is said; never for another device.

    gpu_share: the part of the GPU, in (0, 1], that this process was given. What others occupy is not free for it.
    """
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    room = min(free, gpu_share * total)
    fits = num_bytes <= SHARE_OF_GPU * room
    sizes = f"{num_bytes / 2**20:,.0f} MiB of images, {room / 2**20:,.0f} MiB of the GPU's memory for this process"
    log.info("loader %s: %s", "memory" if fits else "auto, not memory on the GPU", sizes)
    return fits


def check_cache(kind: str, dataset: Dataset, split_names: Sequence[str], *, on_gpu: bool = False) -> None:
    """Raise UserError, before any work, if loaders of this kind would need a cache that this machine cannot write.

    on_gpu: the loaders will be on a GPU. Whether auto needs a cache then, its worker finds out, for a look at a GPU's
    memory takes some of it, and the GPU itself where its mode is exclusive.
    """
    if kind == "memory" or (kind == "auto" and (on_gpu or find_spec("ffcv") is None)):
        return
    from bat_dist.data import beton

    for name in split_names:
        images = getattr(dataset, name).images
        if kind == "ffcv" or (images.nbytes > SMALL_BYTES and file_of(images) is None):
            beton.check_cache(images, fingerprint=dataset.fingerprint, split_name=name)


@functools.cache
def kind_at_hand() -> str:
    """Return "ffcv" where FFCV can be imported, else "memory", which is said once."""
    from bat_dist.data.beton import import_ffcv

    try:
        import_ffcv()
    except LoaderUnavailable:
        log.info("loader memory: FFCV is not installed here (its batches would be equal)")
        return "memory"
    return "ffcv"
