"""Images that are a file on the disk, mapped into memory: an array whose pickle is the file's name.

The operating system reads the pages that are looked at and drops them when memory is wanted, and all processes of a
machine share them.
"""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8

from bat_dist.data.cache import default_cache_dir
from bat_dist.data.image_hashes import hashes_of_file, image_hashes
from bat_dist.data.pixel_file import CHUNK_BYTES, Shape, digest_of
from bat_dist.errors import UserError


@dataclass(frozen=True)
class PixelFile:
    """A file that `pixel_file.write_pixels` wrote.

    digest: of its shape and pixels. asked: the arguments of `load_dataset` that decode them; None for data that are
    given as objects. split: "train" or "test".
    """

    path: Path
    shape: Shape
    digest: str
    split: str
    asked: Mapping[str, Any] | None = None


class MappedImages(np.ndarray):
    """Images of a `PixelFile`, uint8 [samples, height, width, 3], read-only.

    Parts of it are plain arrays. A pickle of it holds no pixels: see `reopened`.
    """

    file: PixelFile | None  # None for what numpy makes of it

    def __array_finalize__(self, _other: Any) -> None:
        """Called by numpy for every new array: only `mapped` knows the file."""
        self.file = None

    def __getitem__(self, index: Any) -> Any:
        """The part as a plain array."""
        return np.asarray(self)[index]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the name of the file in the place of its bytes."""
        return np.asarray(self).__reduce_ex__(protocol) if self.file is None else (reopened, (self.file,))


def mapped(file: PixelFile) -> MappedImages:
    """The images of a file that is there whole."""
    images = np.memmap(file.path, np.uint8, "r", shape=file.shape).view(MappedImages)
    images.file = file
    return images


def reopened(file: PixelFile) -> MappedImages:
    """The images in another process, perhaps on another machine.

    The file is looked for at its place, then in this machine's cache folder; where it is in neither, the images are
    decoded again from data_dir into that folder, by one process of the machine.
    Raises UserError if that is not possible, or gives other pixels.
    """
    if (images := _found(file)) is not None:
        return images
    reason = "and they are not data by name, which could be decoded here"
    if file.asked is not None:
        from bat_dist.data.datasets import load_dataset  # here, since it imports this module

        try:
            pixel_folder().mkdir(parents=True, exist_ok=True)
            with FileLock(pixel_folder() / f"{file.path.stem}.{socket.gethostname()}.lock"):
                if (images := _found(file)) is not None:
                    return images
                again = getattr(load_dataset(**file.asked, image_storage="disk"), file.split).images
        except (UserError, OSError) as error:
            reason = f"and cannot be decoded here: {error}"
        else:
            if again.file.digest == file.digest:
                return again
            reason = f"and what data_dir {file.asked['data_dir']} has here are other pixels"
    raise UserError(
        f"the images of the {file.split} split are not on {socket.gethostname()}, in {file.path} or {pixel_folder()}, "
        f"{reason}. Let $BAT_DIST_CACHE name a folder that all machines share, or have data_dir on each of them"
    )


def _found(file: PixelFile) -> MappedImages | None:
    paths = (file.path, pixel_folder() / file.path.name)
    path = next((path for path in paths if digest_of(path) == file.digest), None)
    return mapped(replace(file, path=path)) if path else None


def pixel_folder() -> Path:
    """Where files of pixels are kept on this machine."""
    return default_cache_dir().absolute() / "pixels"


def file_of(images: np.ndarray) -> PixelFile | None:
    """The file, if the images are all that it holds."""
    return images.file if isinstance(images, MappedImages) else None


def hashes_of(images: UInt8[np.ndarray, "samples height width 3"]) -> np.ndarray:
    """`image_hashes`; of a file as they were kept when it was written."""
    file = file_of(images)
    return hashes_of_file(file.path, len(images), blocks(images)) if file else image_hashes(images)


def blocks(images: UInt8[np.ndarray, "samples height width 3"]) -> Iterator[np.ndarray]:
    """The images in their order, some megabytes at a time."""
    step = max(1, CHUNK_BYTES // images[0].size)
    for start in range(0, len(images), step):
        yield images[start : start + step]
