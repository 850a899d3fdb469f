"""The datasets' table. A dataset's name sets classes, image size, epsilon and augmentation.

Neither numpy nor torch, so that `--help` and the checking of settings answer at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from bat_dist.errors import UserError
from bat_dist.parts import is_reference
from bat_dist.wording import alternatives


class DatasetError(UserError):
    """Bad data or a bad request for data; the message names the value, the rule and the way out."""


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset's row. Pixels are in [0, 1] wherever a number here is measured in pixels.

    `None` stands for "what the data holds"; `load_dataset` returns the row with the actual numbers.
    """

    name: str
    num_classes: int | None
    image_size: int | None  # height = width
    mean: tuple[float, float, float]  # per channel, RGB
    std: tuple[float, float, float]
    epsilon: float  # radius of the l_inf ball
    step_size: float  # of PGD in training
    crop_padding: int  # random crop: zeros added on each side; of images of `image_size`, or of 32 pixels
    flip: bool  # random horizontal flip
    crop_scale: float | None = None  # random-resized crop: smallest share of the image's area; None: crop_padding
    crop_size: int | None = None  # height = width of random-resized crops; None: the image's

    def of_size(self, num_classes: int | None, image_size: int | None) -> "DatasetSpec":
        """The row with the actual numbers, None for those that the row has; the padding grows with the image."""
        size, usual = image_size or self.image_size, self.image_size or USUAL_SIZE
        padding = round(self.crop_padding * (size or usual) / usual)
        num_classes = num_classes or self.num_classes
        return replace(self, num_classes=num_classes, image_size=size, crop_padding=padding)

    @property
    def about(self) -> str:
        """The row in words, for lists of names: `10 classes, 8x8 pixels, epsilon 16/255`."""
        parts = ["your own images, in folders or a zip: TRAIN/CLASS/IMAGE"]
        if self.num_classes and self.image_size:
            parts = [f"{self.num_classes} classes, {self.image_size}x{self.image_size} pixels"]
            if self.name in PER_CLASS:
                train, test = (self.num_classes * number for number in PER_CLASS[self.name][1:])
                parts.append(f"{train:,} training and {test:,} test images")
        return ", ".join([*parts, f"epsilon {round(255 * self.epsilon)}/255"])

    @property
    def own_augmentation(self) -> dict[str, float | bool]:
        """The augmentation as far as it is not the table's: what tells one training from another.

        Random-resized crops are told by `crop_scale` alone, since they leave no padding.
        """
        row = DATASETS.get(self.name, OWN)
        names = AUGMENTATION if self.crop_scale is None else AUGMENTATION[1:]
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(row, name)}


USUAL_SIZE = 32
AUGMENTATION = ("crop_padding", "flip", "crop_scale", "crop_size")

_ROWS = (
    # scikit-learn's copy of UCI's "Optical Recognition of Handwritten Digits". Mean and std: of our train
    # split, see digits.py. No flip: a mirrored digit is another sign. Padding: an eighth of the size, as for
    # CIFAR. Epsilon is ours: one of the 16 steps of grey.
    DatasetSpec(
        name="digits",
        num_classes=10,
        image_size=8,
        mean=(0.3058, 0.3058, 0.3058),
        std=(0.3753, 0.3753, 0.3753),
        epsilon=16 / 255,
        step_size=4 / 255,
        crop_padding=1,
        flip=False,
    ),
    # Krizhevsky 2009. Mean and std: over all pixels of the 50,000 training images, the values in common use
    # (the std 0.20 that is also seen is the average of single images' std). Epsilon and step: Madry et al.
    # 2018. Crop and flip: the paper, Sec. 5.
    DatasetSpec(
        name="cifar10",
        num_classes=10,
        image_size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        epsilon=8 / 255,
        step_size=2 / 255,
        crop_padding=4,
        flip=True,
    ),
    DatasetSpec(
        name="cifar100",
        num_classes=100,
        image_size=32,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        epsilon=8 / 255,
        step_size=2 / 255,
        crop_padding=4,
        flip=True,
    ),
    # Le & Yang 2015. The first 50 of 200 classes and epsilon 4/255: the paper, Sec. 5.1. Mean and std: of all
    # 200 classes, the values in common use.
    DatasetSpec(
        name="tiny_imagenet",
        num_classes=50,
        image_size=64,
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
        epsilon=4 / 255,
        step_size=1 / 255,
        crop_padding=4,
        flip=True,
    ),
    # One's own images; epsilon and the rest as for CIFAR, the padding that of an image of 32 pixels. Mean and std are
    # fixed, not measured: a sample that is left out of a trial must not reach the model through the normalization, and
    # a model must mean the same with another num_train.
    DatasetSpec(
        name="image_folder",
        num_classes=None,
        image_size=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        epsilon=8 / 255,
        step_size=2 / 255,
        crop_padding=4,
        flip=True,
    ),
)
DATASETS = {spec.name: spec for spec in _ROWS}
OWN = DATASETS["image_folder"]  # the row of data of one's own, whose name is another
OWN_FORMS = ("FILE.py:NAME", "package.module:NAME", "hf:NAME", "torchvision:NAME")
PER_CLASS = {"cifar10": (10, 5000, 1000), "cifar100": (100, 500, 100), "tiny_imagenet": (200, 500, 50)}
"""Classes, then training and test samples of each, where these are known without the data (Tiny ImageNet's `val`)."""


def own_spec(name: str) -> DatasetSpec:
    """The row of data of one's own, under the name that tables and results call them by.

    Raises DatasetError for a name of the table, and for one that is more than letters, digits and `._/-`.
    """
    if name in DATASETS:
        raise DatasetError(f"{name!r} is a dataset of bat_dist: call data of your own by another name")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name):
        raise DatasetError(f"a dataset's name must be of letters, digits and ._/- alone, got {name!r}")
    return replace(OWN, name=name)


def own_name(reference: str) -> str | None:
    """What tables and identities call data of one's own: NAME, of FILE.py:NAME, package.module:NAME, hf:NAME, ...

    None for what is no such reference, as the names of the table are.
    """
    if not is_reference(reference):
        return None
    where, _, name = reference.rpartition(":")
    return name.partition("@")[0] if where == "hf" else name


def check_augmentation(
    *, crop_padding: int | None, crop_scale: float | None, crop_size: int | None, image_size: int | None = None
) -> None:
    """Raise DatasetError for crops of both kinds, or for values that are none of a crop; image_size: if it is known."""
    if image_size and crop_padding is not None and crop_padding >= image_size:
        raise DatasetError(f"crop_padding must be less than the {image_size} pixels of an image, got {crop_padding}")
    if crop_scale is not None and not 0 < crop_scale <= 1:
        raise DatasetError(f"crop_scale must be in (0, 1], got {crop_scale}: 0.08 is usual, and 1 never crops")
    if crop_scale is not None and crop_padding:
        raise DatasetError(
            f"crop_scale {crop_scale:g} crops without zeros around the image, got crop_padding {crop_padding} too: "
            "leave one of them out"
        )
    if crop_size is not None and crop_scale is None:
        raise DatasetError(
            f"crop_size {crop_size} is the size of random-resized crops: give crop_scale too, or leave crop_size out"
        )
    if image_size and crop_size is not None and not 0 < crop_size <= image_size:
        raise DatasetError(f"crop_size must be in [1, {image_size}], the pixels of an image, got {crop_size}")


def augmentation_of(settings: Any) -> Mapping[str, Any]:
    """The settings of the augmentation, as `Dataset.augmented` takes them."""
    return {name: getattr(settings, name) for name in AUGMENTATION}


def check_dataset(name: str) -> DatasetSpec:
    """Return the row of this name, or that of data of one's own.

    Raises a `DatasetError` that names the nearest valid name where there is none.
    """
    if name in DATASETS:
        return DATASETS[name]
    if own := own_name(str(name)):
        return own_spec(own)
    (nearest,) = get_close_matches(str(name).lower().replace("-", "_"), DATASETS, n=1, cutoff=0.0)
    raise DatasetError(
        f"unknown dataset {name!r}: did you mean {nearest!r}? The datasets are {', '.join(DATASETS)}, and your own: "
        f"{alternatives(OWN_FORMS)}"
    )
