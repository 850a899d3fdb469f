"""Data sets of the Hugging Face Hub, from disk or fetched once.

No code of theirs is run: `datasets` of version 4 and later reads files alone.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Int64

from bat_dist.data.cifar import DEFAULT_DIR
from bat_dist.data.table import DatasetError
from bat_dist.errors import installing

TEST_NAMES = ("test", "validation", "valid", "val")
_LABEL_NAMES = ("label", "labels", "fine_label")  # where several columns hold classes: CIFAR-100 has two

log = logging.getLogger(__name__)


class HubSplit:
    """A table of `datasets` as a map-style data set of (image, label), with the names of its classes.

    label: the column of labels; None looks for the one that is a ClassLabel, and else for one of whole numbers.
    Raises DatasetError unless there is one column of images and one of labels.
    """

    def __init__(self, table: Any, label: str | None = None):
        from datasets import ClassLabel, Image

        features = table.features
        kinds = {name: type(one) for name, one in features.items()}
        self._image = _only([name for name, kind in kinds.items() if kind is Image], features, "an image (Image)")
        classes = [name for name, kind in kinds.items() if kind is ClassLabel]
        numbers = [name for name, one in features.items() if str(getattr(one, "dtype", "")).startswith(("int", "uint"))]
        found = [name for name in _LABEL_NAMES if name in classes][:1] or classes or numbers
        if label is not None:
            found = [label] if label in (*classes, *numbers) else []
        self._label = _only(found, features, "the label (ClassLabel)")
        names = getattr(features[self._label], "names", None)
        if names:
            self.classes = tuple(names)
        self._table = table.select_columns([self._image, self._label]).with_format(None)
        if not features[self._image].decode:
            self._table = self._table.cast_column(self._image, Image())
        self.targets: Int64[np.ndarray, " samples"] = np.asarray(self._table[self._label][:], np.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = self._table[index]
        return row[self._image], row[self._label]


def is_table(data: Any) -> bool:
    """Is it a table of `datasets`, in memory or on disk?"""
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "select_columns")


def hub_splits(name: str, data_dir: str | Path | None, *, download: bool) -> tuple[HubSplit, HubSplit | None]:
    """The training and the test set (or None) of `hf:NAME`, or NAME@COLUMN where COLUMN holds the labels.

    They are read from data_dir, by default `~/.cache/bat_dist/hf/NAME`: a folder that `save_to_disk` wrote, or one of
    parquet or other files that `datasets.load_dataset` reads. download: fetch NAME into it, unless it is there.
    Raises DatasetError.
    """
    name, _, column = name.partition("@")
    place = Path(data_dir or DEFAULT_DIR / "hf" / name).expanduser()
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"hf:{name} needs the package datasets ({error}): {installing('hf')}") from None
    if not place.exists():
        if not download:
            raise DatasetError(
                f"hf:{name} is not in {place}: let it be downloaded (download), or give, as data_dir, a folder that "
                "save_to_disk wrote, or one of parquet files"
            )
        _fetch(datasets, name, place)
    try:
        is_saved = any((place / file).is_file() for file in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(str(place)) if is_saved else datasets.load_dataset(str(place))
    except Exception as error:  # the library has many of its own
        raise DatasetError(f"hf:{name} cannot be read from {place}: {type(error).__name__}: {error}") from error
    splits = found if isinstance(found, Mapping) else {"train": found}
    train, test = train_and_test({split: HubSplit(table, column or None) for split, table in splits.items()})
    return train, test


def train_and_test(splits: Mapping[Any, Any]) -> tuple[Any, Any]:
    """The split `train`, and `test` or else `validation`, `valid` or `val`; None for no test split.

    One whose labels are all -1, as they are where nobody has published them, is passed over.
    Raises DatasetError if there is no `train`.
    """
    if "train" not in splits:
        raise DatasetError(f"the data must have a split train, got {', '.join(map(str, splits)) or 'none'}")
    found = [name for name in TEST_NAMES if name in splits]
    labelled = (name for name in found if np.any(np.asarray(getattr(splits[name], "targets", 0)) != -1))
    test = next(labelled, None)
    return splits["train"], None if test is None else splits[test]


def _only(names: Sequence[str], features: Mapping[str, Any], what: str) -> str:
    if len(names) == 1:
        return names[0]
    columns = ", ".join(f"{name} ({type(one).__name__})" for name, one in features.items())
    raise DatasetError(
        f"one column must hold {what}, and {'several do' if names else 'none does'}: the columns are {columns}; "
        "hf:NAME@COLUMN names that of the labels"
    )


def _fetch(library: ModuleType, name: str, place: Path) -> None:
    """Keep a copy in `place`, so that later calls read the same data, whatever becomes of them at the Hub."""
    partial = place.with_name(f"{place.name}.partial")
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if place.exists():
            return
        log.info("hf:%s is fetched into %s", name, place)
        try:
            library.load_dataset(name).save_to_disk(str(partial))
        except Exception as error:  # of the library, of the network, of the disk
            shutil.rmtree(partial, ignore_errors=True)
            raise DatasetError(f"hf:{name} could not be downloaded: {type(error).__name__}: {error}") from error
        partial.rename(place)
