"""Data of one's own: torch map-style data sets, or arrays, of images and labels become a `Dataset`.

They are read sample by sample, and only the samples that are asked for are kept.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from torch.utils.data import Subset

from bat_dist.data.datasets import Dataset, Split, assembled
from bat_dist.data.forms import image_of, label_of
from bat_dist.data.hugging_face import HubSplit, is_table
from bat_dist.data.image_storage import ImageStorage
from bat_dist.data.images import check_same_size
from bat_dist.data.source import Samples, Source, array_samples, share_out
from bat_dist.data.table import DatasetError, own_spec

USUAL_TEST_SHARE = 0.2  # of each class, where `dataset_of` is given no test set
PROBED = 16  # samples that are read twice, to see that they are the same each time
SECONDS_BETWEEN_LINES = 10.0  # that tell how far the reading of a large data set is
_WAY_OUT = "take what is random (crops, flips, noise) out of its transform; training crops and flips by itself"

log = logging.getLogger(__name__)


class MapStyle(Protocol):
    """What PyTorch calls a map-style data set: its number of samples, and each sample, (image, label), by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def dataset_of(
    train: Any,
    test: Any = None,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    test_share: float | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    num_classes: int | None = None,
    image_storage: ImageStorage = "auto",
) -> Dataset:
    """Read data of one's own as a `Dataset`, with the numbers (epsilon 8/255, ...) that an image_folder has.

    train, test: each a map-style data set of (image, label) as torchvision's are, a table of `datasets` (Hugging Face),
        or a pair of arrays or tensors, (images, labels).  An image is a PIL image, a uint8 array or tensor (height x
        width x 3, 3 x height x width, or grey without the 3), or one of floats in [0, 1], which are rounded to steps of
        1/255.  A label is the number of its class, from 0.  Random transforms are refused: crops and flips are
        training's own.
    name: what tables and results call the data.
    class_names: in the order of the labels; None takes the data's own (`classes`), or else the labels themselves.
    image_size: resize to that square (bilinear); None keeps the size, which must then be one for all.
    test_share: without `test`, the share of each class that is held out as the test split; None is a fifth.
    num_train, num_test, num_classes, image_storage: as in `load_dataset`; all images are read each time.

    A sample's id is its file's name below the data's root, where the data tell it as ImageFolder does (`samples`), and
    else its position.  Raises DatasetError.
    """
    spec = own_spec(name)
    if test is None and test_share is None and not isinstance(train, Dataset):
        test_share = USUAL_TEST_SHARE
        log.info("%s: %g of each class is held out as the test split, since there is none", name, test_share)
    source = own_source(train, test, where=name, class_names=class_names, test_share=test_share)
    chosen: dict[str, Any] = {
        "num_train": num_train,
        "num_test": num_test,
        "num_classes": num_classes,
        "image_size": image_size,
    }
    return assembled(source, spec, **chosen, image_storage=image_storage)


def own_source(
    train: Any,
    test: Any = None,
    *,
    where: str,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
) -> Source:
    """Both splits, not yet decoded; the arguments are those of `dataset_of`, and `where` names the data in messages.

    `train` may be a `Dataset` too, of which both splits are taken.
    Raises DatasetError, also if there is neither a test set nor a share to make one of, or both.
    """
    if test_share is not None and (test is not None or isinstance(train, Dataset)):
        raise DatasetError(f"{where} has a test set of its own: leave test_share out")
    if isinstance(train, Dataset):
        both = [array_samples(split.images, split.labels, split.ids) for split in (train.train, train.test)]
        return Source(where, both[0], both[1], train.class_names)
    if test_share is not None and not 0 < test_share < 1:
        raise DatasetError(f"test_share must be in (0, 1), got {test_share}")
    read = _Split(_map_style(train, f"the training set of {where}"), f"the training set of {where}")
    if test is None:
        if test_share is None:
            raise DatasetError(f"{where} has no test set: test_share 0.2 makes one of a fifth of each class")
        names = _class_names([read], where, class_names)
        ours, held_out = share_out(read.samples(), test_share, names, where)
        return Source(where, ours, held_out, names)
    other = _Split(_map_style(test, f"the test set of {where}"), f"the test set of {where}")
    return Source(where, read.samples(), other.samples(), _class_names([read, other], where, class_names))


def split_of(data: Any, *, what: str) -> Split:
    """One split, decoded whole, from data as `dataset_of` takes them; its labels need not name every class.

    what: names it in messages. Raises DatasetError.
    """
    samples = _Split(_map_style(data, what), what).samples()
    return Split(samples.pixels(np.arange(len(samples.labels)), None), samples.labels, samples.ids)


class _Pair:
    """A pair of arrays, (images, labels), as a map-style data set."""

    def __init__(self, images: Any, labels: Any, what: str):
        if len(images) != len(labels):
            raise DatasetError(f"{what} must have as many labels as images, got {len(labels):,} and {len(images):,}")
        self.images, self.targets = images, labels

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.targets[index]


def is_pair_of_arrays(data: Any) -> bool:
    """Is it (images, labels), both of all samples?  Labels may be a list too."""
    if not isinstance(data, tuple | list) or len(data) != 2 or getattr(data[0], "ndim", 0) == 0:
        return False
    return isinstance(data[1], tuple | list) or getattr(data[1], "ndim", 0) > 0


def _map_style(data: Any, what: str) -> MapStyle:
    if is_pair_of_arrays(data):
        data = _Pair(data[0], data[1], what)
    if is_table(data):
        data = HubSplit(data)
    try:
        number = len(data)
    except (TypeError, AttributeError, NotImplementedError):
        number = -1
    if number < 0 or not hasattr(type(data), "__getitem__"):
        raise DatasetError(
            f"{what} must have a length and give (image, label) by position, as a torch.utils.data.Dataset or a list "
            f"does; got {type(data).__name__} (list(...) reads what an iterator gives)"
        )
    if number == 0:
        raise DatasetError(f"{what} is empty")
    return data


class _Split:
    """One split, read sample by sample.  `what` names it in messages; reading raises DatasetError."""

    def __init__(self, data: MapStyle, what: str):
        self._data, self._what, self._number = data, what, len(data)
        self._root, positions = data, np.arange(self._number)
        while isinstance(self._root, Subset):  # which tells nothing of what it is a part of
            self._root, positions = self._root.dataset, np.asarray(self._root.indices)[positions]
        self._positions = positions
        probed = np.unique(np.linspace(0, self._number - 1, PROBED).astype(int)).tolist()
        self.labels = self._read_labels(self._probe(probed))

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The data's own, as torchvision's have them."""
        names = getattr(self._root, "classes", None)
        return tuple(map(str, names)) if isinstance(names, tuple | list) else None

    def samples(self) -> Samples:
        """The split, its pixels not yet read."""
        return Samples(self.labels, self.ids(), self.pixels)

    def named(self, position: int) -> str:
        """What messages call a sample."""
        return f"sample {position} of {self._what}"

    def _sample(self, position: int) -> tuple[Any, int]:
        """The image, in whatever form, and the label."""
        try:
            sample = self._data[position]
        except Exception as error:  # it is the user's own code
            length = f"; its length is {self._number:,}" if isinstance(error, IndexError) else ""
            raise DatasetError(
                f"{self.named(position)} cannot be read: {type(error).__name__}: {error}{length}"
            ) from error
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            got = f"{len(sample)} values" if isinstance(sample, tuple | list) else type(sample).__name__
            raise DatasetError(f"{self.named(position)} must be a pair (image, label), got {got}")
        return sample[0], label_of(sample[1], self.named(position))

    def _probe(self, positions: list[int]) -> dict[int, int]:
        """The labels of a few samples.  Raises DatasetError if one of them is not the same when it is read again."""
        labels = {}
        for position in positions:
            (image, label), (again, label_again) = self._sample(position), self._sample(position)
            images = image_of(image, self.named(position)), image_of(again, self.named(position))
            if label != label_again or not np.array_equal(*images):
                raise DatasetError(f"{self.named(position)} is another one each time that it is read: {_WAY_OUT}")
            labels[position] = label
        return labels

    def _read_labels(self, probed: Mapping[int, int]) -> Int64[np.ndarray, " samples"]:
        """Those that the data tell without an image being read, if they are what comes with the images; else these."""
        for name in ("targets", "labels"):
            try:
                labels = np.asarray(getattr(self._root, name))[self._positions].astype(np.int64, casting="safe")
                if labels.shape == (self._number,) and all(labels[at] == label for at, label in probed.items()):
                    return labels
            except (AttributeError, TypeError, ValueError, IndexError):  # it is something else, or of another length
                continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of images that were opened, and are not decoded yet
            return np.array([self._sample(position)[1] for position in self._counted(range(self._number))], np.int64)

    def ids(self) -> Shaped[np.ndarray, " samples"]:
        """The files' names below the root, as ImageFolder tells them, else positions in the whole data set."""
        root: Any = self._root
        try:
            files = [PurePath(root.samples[at][0]) for at in self._positions.tolist()]
            return np.array([file.relative_to(root.root).as_posix() for file in files], np.str_)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError):
            return self._positions.astype(np.str_)

    def pixels(
        self, positions: Int64[np.ndarray, " chosen"], image_size: int | None
    ) -> UInt8[np.ndarray, "chosen size size 3"]:
        """The images at these positions, decoded and resized."""
        first = image_of(self._sample(int(positions[0]))[0], self.named(positions[0]), image_size, square=True)
        images = np.empty((len(positions), *first.shape), np.uint8)
        for place, position in enumerate(self._counted(positions.tolist())):
            image, label = self._sample(position)
            if label != self.labels[position]:
                raise DatasetError(
                    f"the label of {self.named(position)} is {label} now and {self.labels[position]} before or in "
                    "the data's `targets` or `labels`: let all agree, at each reading"
                )
            pixels = image_of(image, self.named(position), image_size)
            check_same_size(self.named(positions[0]), first, self.named(position), pixels)
            images[place] = pixels
        return images

    def _counted(self, positions: Sequence[int]) -> Iterator[int]:
        """The positions, and now and then a line that says how far the reading is."""
        last = time.monotonic()
        for done, position in enumerate(positions):
            if time.monotonic() - last > SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                log.info("%s: %s of %s samples read", self._what, f"{done:,}", f"{len(positions):,}")
            yield position


def _class_names(splits: Sequence[_Split], where: str, given: Sequence[str] | None) -> tuple[str, ...]:
    """Those given, else the data's own, else the labels, which must then have no gaps."""
    own = [split.class_names for split in splits]
    if given is None and len({names for names in own if names is not None}) > 1:
        raise DatasetError(
            f"{where}: the classes of the training and the test set differ ({_some(own[0])} and {_some(own[1])}), so "
            "that a label is not the same in both: give both sets the same classes"
        )
    highest = max(int(split.labels.max()) for split in splits)
    names = tuple(map(str, given)) if given is not None else next((names for names in own if names is not None), None)
    if names is not None:
        if highest >= len(names):
            raise DatasetError(
                f"{where}: labels must be from 0 to {len(names) - 1}, since there are {len(names)} class names, "
                f"got {highest}"
            )
        return names
    present = np.unique(splits[0].labels)
    if len(present) != highest + 1:
        missing = int(np.setdiff1d(np.arange(min(highest + 1, len(present) + 1)), present)[0])
        raise DatasetError(
            f"{where}: the training set has no sample of class {missing}, and labels go up to {highest}: number the "
            "classes 0, 1, 2, ... without gaps"
        )
    return tuple(map(str, range(highest + 1)))


def _some(names: tuple[str, ...] | None) -> str:
    return ", ".join((names or ())[:3]) + (", ..." if len(names or ()) > 3 else "")
