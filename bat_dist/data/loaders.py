"""A loader is made once for a split, and then asked for epochs."""

import functools
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from bat_dist.data.datasets import Dataset, Split
from bat_dist.data.split_loader import Batch, Indices, Loader, LoaderUnavailable, Share

__all__ = ["KINDS", "Batch", "Indices", "Loader", "LoaderUnavailable", "Share", "check_cache", "dataset_loader"]

KINDS = ("ffcv", "memory")
SMALL_BYTES = 64 * 2**20
"""Pixels of a split up to which FFCV is not worth the six seconds of CPU time that its import takes."""

log = logging.getLogger(__name__)


def dataset_loader(
    kind: str,
    dataset: Dataset,
    split_name: str,
    *,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
) -> Loader:
    """The loader of a dataset's "train" or "test" split, augmented as its row of the table says.

    kind: "ffcv" keeps the split as a beton in `cache_dir` (see `ensure_beton`), "memory" keeps it on the device. "auto"
    is memory for a small split, else what this process has; batches are equal, so processes may differ.
    Raises `LoaderUnavailable` if "ffcv" is asked for and not installed.
    """
    split: Split = getattr(dataset, split_name)
    padding, flip = dataset.spec.crop_padding, dataset.spec.flip
    if kind == "auto":
        kind = "memory" if split.images.nbytes <= SMALL_BYTES else kind_at_hand()
    if kind == "memory":
        from bat_dist.data.memory_loader import MemoryLoader

        return MemoryLoader(split.images, split.labels, crop_padding=padding, flip=flip, device=device)
    if kind == "ffcv":
        from bat_dist.data.beton import ensure_beton
        from bat_dist.data.ffcv_loader import FfcvLoader

        name = dataset.fingerprint
        path = ensure_beton(split.images, split.labels, fingerprint=name, split_name=split_name, cache_dir=cache_dir)
        return FfcvLoader(path, crop_padding=padding, flip=flip, device=device)
    raise ValueError(f"unknown loader {kind!r}: choose one of {', '.join(KINDS)}")


def check_cache(kind: str, dataset: Dataset, split_names: Sequence[str]) -> None:
    """Raise UserError, before any work, if loaders of this kind would need a cache that this machine cannot write."""
    if kind == "memory" or (kind == "auto" and find_spec("ffcv") is None):
        return
    from bat_dist.data import beton

    for name in split_names:
        images = getattr(dataset, name).images
        if kind == "ffcv" or images.nbytes > SMALL_BYTES:
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
