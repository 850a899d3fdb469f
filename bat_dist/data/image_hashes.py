"""Hashes of images, by which equal ones are found; kept beside a file of pixels, so that these are not read for it."""

from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt64

from bat_dist.data.cache import write_bytes


def image_hashes(images: UInt8[np.ndarray, "images height width 3"]) -> UInt64[np.ndarray, " images"]:
    """64 bits of each image's BLAKE2b, by which equal images are found."""
    found = (blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(found), "<u8")


def hashes_of_file(path: Path, number: int, blocks: Iterable[np.ndarray]) -> UInt64[np.ndarray, " samples"]:
    """`image_hashes` of all images in a file of pixels; they are computed again where they are lost or damaged.

    number: of the images. blocks: the images in their order, some at a time.
    """
    with suppress(OSError, ValueError, EOFError):  # not there, or damaged
        found = np.load(_place(path))
        if found.dtype == np.uint64 and found.shape == (number,):
            return found
    found = np.concatenate([image_hashes(block) for block in blocks])
    with suppress(OSError):  # a cache that is only to be read
        keep_hashes(path, found)
    return found


def keep_hashes(path: Path, hashes: UInt64[np.ndarray, " samples"]) -> None:
    """Write the hashes of the images in a file of pixels beside it, at once."""
    data = BytesIO()
    np.save(data, hashes)
    write_bytes(_place(path), data.getvalue())


def _place(path: Path) -> Path:
    return path.with_suffix(".hashes.npy")
