"""From image files to arrays: decoding, resizing, one size for all. Only the asked files are read."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import joblib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from bat_dist.data.table import DatasetError
from bat_dist.wording import counted

log = logging.getLogger(__name__)

# torchvision's ImageFolder takes the same suffixes; a file with another one is not an image here.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")  # no plugin that would start another program
_EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_ORIENTATION = 274  # the EXIF tag; 1 is upright
_CHUNK = 256  # images to a task of a thread, at most


def is_image(name: str) -> bool:
    """Whether the file's name is that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def only_images(files: Sequence[str], folder: str, unread: list[str]) -> list[str]:
    """Return the files of a folder whose name is that of an image; the others go to `unread`."""
    unread += [f"{folder}/{file}" for file in files if not is_image(file)]
    return [file for file in files if is_image(file)]


def warn_of_unread(where: object, unread: Sequence[str]) -> None:
    """Log how many files lie beside images and are none by their name: somebody may miss these samples."""
    if unread:
        named = ", ".join(unread[:3]) + (", ..." if len(unread) > 3 else "")
        count, suffixes = counted(len(unread), "file is not", "files are not"), " ".join(IMAGE_SUFFIXES)
        log.warning("%s: %s read, since the name is not that of an image (%s): %s", where, count, suffixes, named)


def decode(
    data: bytes, what: str, image_size: int | None = None, *, turned: list[str] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode one image to RGB as torchvision's loader does: grey is replicated, transparency is dropped.

    `image_size` resizes to that square (bilinear). `what` names the file in a broken one's `DatasetError`, and in
    `turned` if its EXIF data ask for a rotation, which is not done.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if turned is not None and image.getexif().get(_ORIENTATION, 1) != 1:
                turned.append(what)
            return as_rgb(image, image_size)
    except UnidentifiedImageError as error:
        raise DatasetError(f"{what} is not an image, or of a format other than {', '.join(_FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything, decompression bombs included
        raise DatasetError(f"{what} cannot be decoded: {error}") from error


def as_rgb(image: Image.Image, image_size: int | None = None) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels in RGB, resized to that square (bilinear); grey is replicated, transparency is dropped.

    Raises ValueError for pixels that are not of 8 bits, and whatever Pillow raises for a damaged image.
    """
    if image.mode not in _EIGHT_BIT_MODES:
        raise ValueError(f"its pixels are of mode {image.mode}, not 8 bit; convert it")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns on the direct way
    return np.asarray(_resized(image.convert("RGB"), image_size))


def warn_of_turned(turned: list[str]) -> None:
    """Log how many images have a rotation in their EXIF data, and forget them."""
    if turned:
        count = counted(len({*turned}), "image has", "images have")
        log.warning("%s a rotation in the EXIF data, which is not done (as in torchvision): %s", count, min(turned))
        turned.clear()


def decode_all(
    read: Callable[[str], bytes], names: Sequence[str], image_size: int | None, where: str, *, turned: list[str]
) -> UInt8[np.ndarray, "samples size size 3"]:
    """Decode the named files of `where` in their order, in threads; `turned` is that of `decode`.

    A `DatasetError` unless all are squares of one size.
    """
    first = decode(read(names[0]), f"{names[0]} in {where}", image_size, turned=turned)
    check_square(names[0], first)
    images = np.empty((len(names), *first.shape), np.uint8)
    num_threads = min(8, joblib.cpu_count())
    each = min(_CHUNK, -(-len(names) // (4 * num_threads)))

    def fill(start: int) -> None:
        for position in range(start, min(start + each, len(names))):
            name = names[position]
            image = decode(read(name), f"{name} in {where}", image_size, turned=turned) if position else first
            check_same_size(names[0], first, name, image)
            images[position] = image

    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(fill, range(0, len(names), each)):  # the first error in order, the rest is cancelled
            pass
    return images


def resize_all(
    images: UInt8[np.ndarray, "samples height width 3"], image_size: int | None
) -> UInt8[np.ndarray, "samples size size 3"]:
    """Resize decoded images to a square (bilinear); None leaves them as they are."""
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    return np.stack([np.asarray(_resized(Image.fromarray(image), image_size)) for image in images])


def check_square(name: str, image: UInt8[np.ndarray, "height width 3"]) -> None:
    """Raise a `DatasetError` that names the image unless it is a square."""
    if image.shape[0] != image.shape[1]:
        raise DatasetError(f"{name} is {_size(image)}, not square: give image_size to resize all images")


def check_same_size(
    name: str,
    image: UInt8[np.ndarray, "height width 3"],
    other_name: str,
    other: UInt8[np.ndarray, "other_height other_width 3"],
) -> None:
    """Raise a `DatasetError` that names both files unless the two images have one size."""
    if image.shape != other.shape:
        raise DatasetError(
            f"images differ in size: {name} is {_size(image)}, {other_name} is {_size(other)} (width x "
            "height): give image_size to resize all of them"
        )


def _resized(image: Image.Image, image_size: int | None) -> Image.Image:
    if image_size is None or image.size == (image_size, image_size):
        return image
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR)


def _size(image: UInt8[np.ndarray, "height width 3"]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
