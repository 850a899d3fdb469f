"""Whether decoded images are held in memory, or in a file that is mapped into it."""

import hashlib
import json
import logging
import resource
import time
from collections.abc import Iterator, Mapping
from os import sysconf
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
from jaxtyping import Int64, UInt8
from PIL import features

from bat_dist.data.cache import told_if_not_writable
from bat_dist.data.images import check_same_size
from bat_dist.data.mapped_images import MappedImages, PixelFile, mapped, pixel_folder
from bat_dist.data.pixel_file import LAYOUT, digest_of, write_pixels
from bat_dist.data.source import Samples, Source
from bat_dist.wording import of_bytes

ImageStorage = Literal["auto", "memory", "disk"]
SHARE_OF_MEMORY = 0.25
"""Part of this machine's memory up to which auto holds decoded images in it.  A job on Ray has them a second time, in
Ray's store, and the networks need the rest."""
LARGE_SIZE = 1024  # pixels of a side: images whose size nobody says are rarely larger
SECONDS_BETWEEN_LINES = 10.0
_CGROUPS = Path("/sys/fs/cgroup")

log = logging.getLogger(__name__)

Positions = Int64[np.ndarray, " chosen"]
Pixels = UInt8[np.ndarray, "chosen height width 3"]


def pixels_of(
    source: Source,
    positions: tuple[Positions, Positions],
    image_size: int | None,
    usual_size: int | None,
    storage: ImageStorage,
    asked: Mapping[str, Any] | None,
) -> tuple[Pixels, Pixels]:
    """The decoded images of the training and the test split at these positions: arrays, or `MappedImages`.

    usual_size: the side of the images where image_size is None, if it is known before one is decoded.
    asked: the arguments of `load_dataset` that give the same data, for workers on other machines.
    Raises DatasetError and UserError.
    """
    number, here = sum(map(len, positions)), memory_here()
    if storage == "memory" or (storage == "auto" and not _is_large(source, positions, image_size or usual_size, here)):
        return source.train.pixels(positions[0], image_size), source.test.pixels(positions[1], image_size)
    first = source.train.pixels(positions[0][:1], image_size)[0]
    splits = {"train": source.train, "test": source.test}
    paths = [
        pixel_folder() / f"{_key(samples, at, image_size, source.where, split)}.u8"
        for (split, samples), at in zip(splits.items(), positions, strict=True)
    ]
    there = all(samples.origin and digest_of(path) for samples, path in zip(splits.values(), paths, strict=True))
    what = f"{source.where}: {number:,} images of {first.shape[0]} pixels: {of_bytes(number * first.size)}"
    where = f"{'mapped from' if there else 'decoded once into'} {pixel_folder()}"
    log.info("%s, %s; %s of memory here", what, where, of_bytes(here))
    train, test = (
        _on_disk(path, samples, at, image_size, source.where, split, asked)
        for path, (split, samples), at in zip(paths, splits.items(), positions, strict=True)
    )
    return train, test


def _is_large(source: Source, positions: tuple[Positions, Positions], size: int | None, here: int) -> bool:
    """Whether the decoded images would take more than their share of the memory; few are not looked at for this."""
    number, room = sum(map(len, positions)), SHARE_OF_MEMORY * here
    if size is None and number * 3 * LARGE_SIZE**2 > room:
        size = source.train.pixels(positions[0][:1], None).shape[1]
    return size is not None and number * 3 * size**2 > room


def memory_here() -> int:
    """The bytes of memory that this process may use: the machine's, or less where a cgroup or RLIMIT_DATA says so."""
    limits = [sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES"), *_cgroup_limits(Path("/proc/self/cgroup"), _CGROUPS)]
    own, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return min([*limits, own] if own != resource.RLIM_INFINITY else limits)


def _cgroup_limits(membership: Path, root: Path) -> Iterator[int]:
    """The limits of the groups that this process is in, and of those around them; of version 1 and 2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        inner = Path(path.lstrip("/"))
        for folder in (inner, *inner.parents):
            try:
                yield int((top / folder / name).read_text())
            except (OSError, ValueError):  # no such file; "max"
                continue


def _on_disk(
    path: Path,
    samples: Samples,
    positions: Positions,
    image_size: int | None,
    where: str,
    split: str,
    asked: Mapping[str, Any] | None,
) -> MappedImages:
    """One split in a file, which is written if it is not there."""
    first = samples.pixels(positions[:1], image_size)[0]
    names, shape = samples.ids[positions], (len(positions), *first.shape)
    told = time.monotonic()

    def read(start: int, stop: int) -> Pixels:
        nonlocal told
        images = samples.pixels(positions[start:stop], image_size)
        check_same_size(f"{split}/{names[0]}", first, f"{split}/{names[start]}", images[0])
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.info("%s: %s of %s %s images decoded", where, f"{stop:,}", f"{len(positions):,}", split)
        return images

    with told_if_not_writable(path.parent, of="decoded images", instead="--image_storage memory"):
        digest = write_pixels(path, shape, read, anew=samples.origin is None)
    return mapped(PixelFile(path, shape, digest, split, asked))


def _key(samples: Samples, positions: Positions, image_size: int | None, where: str, split: str) -> str:
    """What the pixels follow from, as a name: the files, the size, the decoder's version."""
    decoder = [PIL.__version__, features.version("jpg"), features.version("webp")]
    digest = hashlib.sha256(json.dumps([LAYOUT, decoder, image_size, split]).encode())
    # Of data that do not say what their pixels follow from, the name tells only which file it is.
    for line in [where, *samples.ids[positions]] if samples.origin is None else samples.origin(positions):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:32]
