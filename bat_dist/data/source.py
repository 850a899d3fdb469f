"""What every dataset's file hands over: labels and names at once, pixels only of the samples asked for."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from bat_dist.data.archive import Archive
from bat_dist.data.images import check_square, decode_all, resize_all
from bat_dist.data.table import DatasetError
from bat_dist.wording import counted

Pixels = Callable[[Int64[np.ndarray, " chosen"], int | None], UInt8[np.ndarray, "chosen size size 3"]]


@dataclass(frozen=True)
class Samples:
    """One split, not yet decoded, in dataset order. `pixels(positions, image_size)` decodes.

    origin: a line for each sample at some positions which changes when the sample's file does; None where nothing but
    the pixels tells. turned: files whose EXIF data ask for a rotation, as far as they are decoded.
    """

    labels: Int64[np.ndarray, " samples"]
    ids: Shaped[np.ndarray, " samples"]
    pixels: Pixels
    origin: Callable[[Int64[np.ndarray, " chosen"]], Iterator[str]] | None = None
    turned: list[str] = field(default_factory=list)

    def part(self, positions: Int64[np.ndarray, " chosen"]) -> "Samples":
        """The samples at these positions."""
        origin = self.origin
        return Samples(
            self.labels[positions],
            self.ids[positions],
            lambda chosen, image_size: self.pixels(positions[chosen], image_size),
            origin and (lambda chosen: origin(positions[chosen])),
            self.turned,
        )


@dataclass(frozen=True)
class Source:
    """Both splits of a dataset; `where` names it in messages."""

    where: str
    train: Samples
    test: Samples
    class_names: tuple[str, ...]


def array_samples(
    images: UInt8[np.ndarray, "samples height width 3"],
    labels: Int64[np.ndarray, " samples"],
    ids: Shaped[np.ndarray, " samples"],
) -> Samples:
    """Samples that are in memory already; a `DatasetError` where they are decoded as they are and are no squares."""

    def pixels(
        positions: Int64[np.ndarray, " chosen"], image_size: int | None
    ) -> UInt8[np.ndarray, "chosen size size 3"]:
        if image_size is None:
            check_square(f"image {ids[positions[0]]}", images[positions[0]])
        return resize_all(np.ascontiguousarray(images[positions]), image_size)

    return Samples(np.asarray(labels, np.int64), np.asarray(ids, np.str_), pixels)


def share_out(samples: Samples, share: float, class_names: Sequence[str], where: str) -> tuple[Samples, Samples]:
    """Training and test samples of one split: this share of each class, at least one sample, becomes the test split.

    The SHA-256 of a sample's id decides, so that it is the same share everywhere, and other samples move little.
    Raises DatasetError for a class of fewer than two samples.
    """
    is_test = np.zeros(len(samples.labels), bool)
    ranks = [hashlib.sha256(name.encode()).hexdigest() for name in samples.ids.tolist()]
    for label, name in enumerate(class_names):
        of_class = sorted(np.flatnonzero(samples.labels == label).tolist(), key=lambda position: ranks[position])
        if len(of_class) < 2:
            raise DatasetError(
                f"{where}: class {name!r} has {counted(len(of_class), 'image')}, and test_share needs two: "
                "one to train on and one to test"
            )
        is_test[of_class[: min(max(1, round(share * len(of_class))), len(of_class) - 1)]] = True
    return samples.part(np.flatnonzero(~is_test)), samples.part(np.flatnonzero(is_test))


def file_samples(archive: Archive, folder: str, names: Sequence[str], labels: Sequence[int]) -> Samples:
    """Samples that are image files below `folder` ("train/"); a sample's id is its name there."""
    turned: list[str] = []

    def files(positions: Int64[np.ndarray, " chosen"]) -> list[str]:
        return [f"{folder}{names[position]}" for position in positions]

    return Samples(
        np.array(labels, np.int64),
        np.array(names, np.str_),
        lambda positions, image_size: decode_all(
            archive.read, files(positions), image_size, str(archive.location), turned=turned
        ),
        lambda positions: (f"{name} {archive.version(name)}" for name in files(positions)),
        turned,
    )


def choose(
    labels: Int64[np.ndarray, " samples"], num_classes: int, count: int | None, option: str
) -> Int64[np.ndarray, " chosen"]:
    """Positions, in dataset order, of the first `count / num_classes` samples of each class; None: of all samples.

    Classes are 0..num_classes-1, others are left out. `option` is the setting's name, for messages.
    Raises DatasetError if the classes cannot have equally many.
    """
    if count is None:
        return np.flatnonzero(labels < num_classes)
    available = int(np.bincount(labels, minlength=num_classes)[:num_classes].min())
    most = available * num_classes
    way_out = f"give a multiple of {num_classes} from {num_classes} to {most}, or leave {option} out for all"
    if count <= 0:
        raise DatasetError(f"{option} must be positive, got {count}: {way_out}")
    if count % num_classes:
        raise DatasetError(f"{option} must be divisible by the {num_classes} classes, got {count}: {way_out}")
    if count > most:
        raise DatasetError(
            f"{option} must take equally many samples of each class, got {count}, but the smallest class has "
            f"{available}: {way_out}"
        )
    of_class = [np.flatnonzero(labels == label)[: count // num_classes] for label in range(num_classes)]
    return np.sort(np.concatenate(of_class))
