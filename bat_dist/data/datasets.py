"""`load_dataset`: a name of the table to two splits, in memory or mapped from a disk, with a fingerprint.

Order is identity: scores are placed by a sample's position in its split, and the fingerprint says whether two
splits agree in it.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from bat_dist.data.cache import write_text
from bat_dist.data.cifar import open_cifar
from bat_dist.data.digits import open_digits
from bat_dist.data.image_folder import open_image_folder
from bat_dist.data.image_storage import ImageStorage, pixels_of
from bat_dist.data.images import check_same_size, warn_of_turned
from bat_dist.data.mapped_images import blocks, file_of
from bat_dist.data.oddities import oddities
from bat_dist.data.selection import selected
from bat_dist.data.source import Source
from bat_dist.data.table import DATASETS, DatasetError, DatasetSpec, check_augmentation, check_dataset, own_name
from bat_dist.data.tiny_imagenet import ClassOrder, open_tiny_imagenet
from bat_dist.parts import whole_reference

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """One split, in dataset order; order is identity."""

    images: UInt8[np.ndarray, "samples height width 3"]
    labels: Int64[np.ndarray, " samples"]
    ids: Shaped[np.ndarray, " samples"]  # str: the original index, or the file's name relative to the split

    def __post_init__(self) -> None:
        """Hold the contract: a split of another type or shape would train, and be wrong."""
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            got = f"{self.images.dtype} {self.images.shape}"
            raise ValueError(f"images must be uint8 [samples, height, width, 3], got {got}")
        if self.labels.dtype != np.int64 or self.ids.dtype.kind != "U":
            raise ValueError(f"labels must be int64 and ids str, got {self.labels.dtype} and {self.ids.dtype}")
        if not (len(self.images),) == self.labels.shape == self.ids.shape:
            shapes = f"{self.images.shape}, {self.labels.shape} and {self.ids.shape}"
            raise ValueError(f"images, labels and ids must be equally many, got {shapes}")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Two splits. `spec` is the table's row with the actual number of classes and image size."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    spec: DatasetSpec

    def augmented(
        self,
        crop_padding: int | None = None,
        flip: bool | None = None,
        crop_scale: float | None = None,
        crop_size: int | None = None,
    ) -> "Dataset":
        """The same samples with other augmentation in training; None keeps what `spec` has.

        crop_scale: random-resized crops, of this share of the image's area up to all of it, without any padding.
        crop_size: height and width that these are resized to.

        Raises DatasetError for a padding that can crop an image away, for both kinds of crops, and for a `crop_size`
        without `crop_scale` or above the image's.
        """
        size = self.spec.image_size
        check_augmentation(crop_padding=crop_padding, crop_scale=crop_scale, crop_size=crop_size, image_size=size)
        asked = {
            "crop_padding": crop_padding if crop_scale is None else 0,
            "flip": flip,
            "crop_scale": crop_scale,
            "crop_size": crop_size if crop_size != size else None,
        }
        return replace(self, spec=replace(self.spec, **{name: v for name, v in asked.items() if v is not None}))


def fingerprint(train: Split, test: Split) -> str:
    """Hexadecimal sha256 of what a trial can depend on: order, labels, pixels. Not of ids, names or paths.

    Hashed are, for train and then for test: the shape of images as text ("5000 32 32 3" and a newline),
    labels as little-endian int64, images as bytes in C order. So it depends on the decoder: should two
    versions of Pillow decode a JPEG differently, the fingerprints differ as the pixels do.
    """
    digest = hashlib.sha256()
    for split in (train, test):
        digest.update((" ".join(map(str, split.images.shape)) + "\n").encode())
        digest.update(np.ascontiguousarray(split.labels, "<i8").data)
        for block in blocks(split.images):
            digest.update(np.ascontiguousarray(block).reshape(-1).data)
    return digest.hexdigest()


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    test_share: float | None = None,
    download: bool = False,
    image_storage: ImageStorage = "auto",
    class_order: ClassOrder = "sorted",
) -> Dataset:
    """Load a dataset; only the samples that are asked for are decoded. What is odd about them is logged.

    name: of the table, or that of data of one's own (`data.named`).
    data_dir: the folder or the zip; digits needs none, CIFAR has a default.
    num_train, num_test: N samples, the first N / classes of each class, in dataset order; None is all.
    num_classes: the first of the dataset's classes; None is the table's number, or all.
    image_size: resize to that square (bilinear); None keeps the size, which must then be one for all.
    test_share: of data without a test split, in an image_folder or one's own, the share of each class that becomes one.
    download: fetch CIFAR, or data of hf: and torchvision:, into data_dir.
    image_storage: "memory" decodes into arrays, "disk" into files of the cache folder that are mapped into memory
        (`mapped_images`), and "auto" into files if the images would take more than a quarter of the memory here.
    class_order: "wnids" has Tiny ImageNet's classes in the order of wnids.txt.

    Raises `DatasetError`, a ValueError, for bad settings and bad files.
    """
    of_own = {"image_size": image_size, "num_classes": num_classes}
    chosen: dict[str, Any] = {"num_train": num_train, "num_test": num_test, **of_own}
    with _opened(name, data_dir, test_share, download, class_order, **of_own) as source:
        place = data_dir and str(Path(data_dir).expanduser().absolute())
        of_splits = {"data_dir": place, "test_share": test_share, "class_order": class_order, **chosen}
        asked = {"name": whole_reference(name), **of_splits}
        return assembled(source, check_dataset(name), **chosen, image_storage=image_storage, asked=asked)


def sizes_of(
    name: str,
    *,
    data_dir: str | Path | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    test_share: float | None = None,
) -> tuple[DatasetSpec, int, int]:
    """The row of the dataset, and the numbers of training and test samples, that `load_dataset` would give.

    At most one image is decoded for this. Raises DatasetError.
    """
    with _opened(name, data_dir, test_share, image_size=image_size, num_classes=num_classes) as source:
        spec = check_dataset(name)
        count, train, test = selected(source, spec, num_train, num_test, num_classes, image_size)
        size = image_size or source.train.pixels(train[:1], None).shape[1]
        return spec.of_size(count, size), len(train), len(test)


def assembled(
    source: Source,
    spec: DatasetSpec,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    image_storage: ImageStorage = "auto",
    asked: Mapping[str, Any] | None = None,
) -> Dataset:
    """The samples of a source that are asked for, as in `load_dataset`; the dataset is called as `spec` is.

    asked: the arguments of `load_dataset` that give the same data on another machine. Raises DatasetError.
    """
    # All settings are checked before a pixel is read.
    count, *positions = selected(source, spec, num_train, num_test, num_classes, image_size)
    images = pixels_of(source, (positions[0], positions[1]), image_size, spec.image_size, image_storage, asked)
    train, test = (
        Split(pixels, samples.labels[at], samples.ids[at])
        for pixels, samples, at in zip(images, (source.train, source.test), positions, strict=True)
    )
    for samples in (source.train, source.test):
        warn_of_turned(samples.turned)
    check_same_size(f"train/{train.ids[0]}", train.images[0], f"test/{test.ids[0]}", test.images[0])
    for line in oddities(train, test):
        log.warning("%s: %s", source.where, line)
    actual = spec.of_size(count, train.images.shape[1])
    if actual.flip and shows_characters(train.images, source.class_names[:count]):
        log.info("%s: grey images of single characters are not mirrored in training; --flip does it", source.where)
        actual = replace(actual, flip=False)
    return Dataset(spec.name, train, test, source.class_names[:count], _kept_fingerprint(train, test), actual)


def shows_characters(images: UInt8[np.ndarray, "samples height width 3"], class_names: Sequence[str]) -> bool:
    """Whether mirroring would make other signs of them: grey images whose classes are single digits or letters."""
    named = all(len(name) == 1 and name.isalnum() for name in class_names)
    return named and all(
        np.array_equal(block[..., 0], block[..., channel]) for block in blocks(images) for channel in (1, 2)
    )


def _kept_fingerprint(train: Split, test: Split) -> str:
    """The fingerprint; of images on the disk it is kept beside these, so that they are not read again for it."""
    files = file_of(train.images), file_of(test.images)
    if files[0] is None or files[1] is None:
        return fingerprint(train, test)
    digests = f"{files[0].digest} {files[1].digest}\n".encode()
    known = hashlib.sha256(digests + train.labels.astype("<i8").tobytes() + test.labels.astype("<i8").tobytes())
    place = files[0].path.parent / f"{known.hexdigest()[:32]}.fingerprint"
    if place.is_file():
        return place.read_text()
    found = fingerprint(train, test)
    with contextlib.suppress(OSError):  # a folder that is only to be read
        write_text(place, found)
    return found


@contextlib.contextmanager
def _opened(
    name: str,
    data_dir: str | Path | None,
    test_share: float | None,
    download: bool = False,
    class_order: ClassOrder = "sorted",
    **of_own: int | None,
) -> Iterator[Source]:
    """The data by name, not yet decoded, after the settings were checked.  of_own: what data of one's own are told."""
    check_dataset(name)
    if re.match(r"\w+:/", str(data_dir or "")):
        raise DatasetError(f"data_dir {data_dir} must be a folder or a zip on a local disk: copy the data there first")
    _check_settings(name, test_share, download, class_order)
    if own_name(name):
        from bat_dist.data.named import source_of  # here, since it loads torch

        yield source_of(name, data_dir=data_dir, test_share=test_share, download=download, **of_own)
        return
    with _open(name, data_dir, test_share, download, class_order) as source:
        yield source


def _open(
    name: str, data_dir: str | Path | None, test_share: float | None, download: bool, class_order: ClassOrder
) -> AbstractContextManager[Source]:
    if name == "digits":
        return open_digits()
    if name == "tiny_imagenet":
        return open_tiny_imagenet(data_dir, class_order)
    if name == "image_folder":
        return open_image_folder(data_dir, test_share)
    return open_cifar(name, data_dir, download)


def _check_settings(name: str, test_share: float | None, download: bool, class_order: str) -> None:
    if test_share is not None and name in DATASETS and name != "image_folder":
        raise DatasetError(f"{name} has a test split of its own: leave test_share out")
    if test_share is not None and not 0 < test_share < 1:
        raise DatasetError(f"test_share must be in (0, 1), got {test_share}")
    if download and name in ("tiny_imagenet", "image_folder"):
        raise DatasetError(f"{name} cannot be downloaded, only CIFAR can: give data_dir")
    if class_order not in get_args(ClassOrder):
        raise DatasetError(f"class_order must be one of {', '.join(get_args(ClassOrder))}, got {class_order!r}")
    if class_order != "sorted" and name != "tiny_imagenet":
        raise DatasetError(f"class_order={class_order!r} is for tiny_imagenet, got dataset {name}: leave it out")
