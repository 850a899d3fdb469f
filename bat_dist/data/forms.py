"""An image or a label in the forms in which data sets give them: PIL images, arrays, tensors, numbers."""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from bat_dist.data.images import as_rgb, check_square
from bat_dist.data.table import DatasetError

FORMS = (
    "a PIL image, a uint8 array or tensor (height x width x 3, 3 x height x width, or grey without the 3), "
    "or one of floats in [0, 1]"
)


def image_of(
    image: Any, what: str, image_size: int | None = None, *, square: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """The image in RGB, resized to the square `image_size` (bilinear); floats are rounded to steps of 1/255.

    what: names the image in messages.  square: refuse an image that is not a square then.
    Raises DatasetError for anything but FORMS.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(_pixels(image, what))
    try:
        pixels = as_rgb(image, image_size)
    except Exception as error:  # Pillow's decoders, which may begin only here, raise nearly anything
        raise DatasetError(f"{what} cannot be decoded: {error}") from error
    if square:
        check_square(what, pixels)
    return pixels


def label_of(label: Any, what: str) -> int:
    """A class's number.  Raises DatasetError for what is no single whole number of at least 0."""
    number = label.detach().cpu().numpy() if isinstance(label, torch.Tensor) else np.asarray(label)
    if number.dtype.kind not in "iu" or number.size != 1:
        shape = f" of shape {number.shape}" if number.ndim else ""
        got = f"{type(label).__name__}{shape}" if number.ndim else repr(label)
        raise DatasetError(f"the label of {what} must be a whole number, that of its class, got {got}")
    if number.item() < 0:
        raise DatasetError(f"the label of {what} must be at least 0, got {number.item()}")
    return int(number.item())


def _pixels(image: Any, what: str) -> np.ndarray:
    """The array as uint8, height x width x 3 or height x width."""
    is_tensor = isinstance(image, torch.Tensor)
    if not is_tensor and not isinstance(image, np.ndarray):
        raise DatasetError(f"{what} must be {FORMS}, got {type(image).__name__}")
    if is_tensor:
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()  # numpy has no bfloat16
    array = _channels_last(image, what, first=is_tensor)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise DatasetError(f"{what} must be {FORMS}, got values of type {array.dtype}: convert them to uint8")
    low, high = float(array.min()), float(array.max())
    if not 0 <= low <= high <= 1:  # NaN is neither
        raise DatasetError(
            f"{what} has values from {low:.3g} to {high:.3g}, and floats must be in [0, 1]: leave out "
            "the normalization (networks have it inside), or divide by 255"
        )
    return np.ascontiguousarray(np.rint(array * 255).astype(np.uint8))


def _channels_last(array: np.ndarray, what: str, *, first: bool) -> np.ndarray:
    """The array with its three channels last, or, where it is grey, without channels.

    first: channels are looked for in the first place first, as tensors have them, else in the last.
    """
    if array.ndim == 2 and array.size:
        return array
    if array.ndim == 3 and array.size:
        for place in (0, 2) if first else (2, 0):
            if array.shape[place] == 1:
                return array.squeeze(place)
            if array.shape[place] == 3:
                return np.moveaxis(array, place, 2)
    raise DatasetError(f"{what} must be {FORMS}, got an array of shape {array.shape}")
