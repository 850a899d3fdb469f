"""Whether decoded images are held in memory, or in a file that is mapped into it."""

import hashlib
import json
import logging
import math
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
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
from bat_dist.data.pixel_file import LAYOUT, Shape, digest_of, named_by, shape_of, write_pixels
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
    train = _SplitOnDisk(source.where, "train", source.train, positions[0], image_size, asked)
    test = _SplitOnDisk(source.where, "test", source.test, positions[1], image_size, asked)
    found = [split.found() for split in (train, test)]
    size, num_bytes = train.shape[1], math.prod(train.shape) + math.prod(test.shape)
    what = f"{source.where}: {number:,} images of {size} pixels: {of_bytes(num_bytes)}"
    how = "decoded once into" if any(images is None for images in found) else "mapped from"
    log.info("%s, %s %s; %s of memory here", what, how, pixel_folder(), of_bytes(here))
    on_disk = [
        images if images is not None else split.decoded() for images, split in zip(found, (train, test), strict=True)
    ]
    return on_disk[0], on_disk[1]


def _is_large(source: Source, positions: tuple[Positions, Positions], size: int | None, here: int) -> bool:
    """Whether the decoded images would take more than their share of the memory; few are not looked at for this."""
    number, room = sum(map(len, positions)), SHARE_OF_MEMORY * here
    if size is None and number * 3 * LARGE_SIZE**2 > room:
        size = source.train.pixels(positions[0][:1], None).shape[1]
    return size is not None and number * 3 * size**2 > room


def memory_here() -> int:
    """The bytes of memory that this process may use: the machine's, or less where a cgroup or RLIMIT_DATA says so."""
    limits = [sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES"), *cgroup_limits(Path("/proc/self/cgroup"), _CGROUPS)]
    own, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return min([*limits, own] if own != resource.RLIM_INFINITY else limits)


def cgroup_limits(membership: Path, root: Path) -> Iterator[int]:
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


@dataclass(frozen=True)
class _SplitOnDisk:
    """One split's images at these positions, which are in a file or will be.  The others: see `pixels_of`."""

    where: str
    split: str
    samples: Samples
    positions: Positions
    image_size: int | None
    asked: Mapping[str, Any] | None

    @cached_property
    def path(self) -> Path:
        """Named by what the pixels follow from: the files, the size, the decoder's version."""
        decoder = [PIL.__version__, features.version("jpg"), features.version("webp")]
        digest = hashlib.sha256(json.dumps([LAYOUT, decoder, self.image_size, self.split]).encode())
        # Where nothing but the pixels tells what they are, this is a name for the time until they are written.
        origin, chosen = self.samples.origin, self.positions
        for line in origin(chosen) if origin else (self.where, *self.samples.ids[chosen]):
            digest.update(f"{line}\n".encode())
        return pixel_folder() / f"{digest.hexdigest()[:32]}.u8"

    @cached_property
    def shape(self) -> Shape:
        known = shape_of(self.path) if self.samples.origin else None
        return known or (len(self.positions), *self._pixels(0, 1).shape[1:])

    def found(self) -> MappedImages | None:
        """The images, if the file is there and known to be of these."""
        digest = self.samples.origin and digest_of(self.path)
        return mapped(PixelFile(self.path, self.shape, digest, self.split, self.asked)) if digest else None

    def decoded(self) -> MappedImages:
        """The images, after the file has been written."""
        names = self.samples.ids[self.positions]
        first = self._pixels(0, 1)[0]
        told = time.monotonic()

        def read(start: int, stop: int) -> Pixels:
            nonlocal told
            images = self._pixels(start, stop)
            check_same_size(f"{self.split}/{names[0]}", first, f"{self.split}/{names[start]}", images[0])
            if time.monotonic() - told > SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                log.info("%s: %s of %s %s images decoded", self.where, f"{stop:,}", f"{len(names):,}", self.split)
            return images

        with told_if_not_writable(self.path.parent, of="decoded images", instead="--image_storage memory"):
            digest = write_pixels(self.path, self.shape, read, by_content=self.samples.origin is None)
        path = self.path if self.samples.origin else named_by(self.path, digest)
        return mapped(PixelFile(path, self.shape, digest, self.split, self.asked))

    def _pixels(self, start: int, stop: int) -> Pixels:
        return self.samples.pixels(self.positions[start:stop], self.image_size)
