"""CIFAR-10 and CIFAR-100 as torchvision reads them: its md5 sums are checked before a file is unpickled."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from bat_dist.data.source import Samples, Source, array_samples
from bat_dist.data.table import DatasetError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

DEFAULT_DIR = Path("~/.cache/bat_dist")


@contextmanager
def open_cifar(name: str, data_dir: str | Path | None, download: bool) -> Iterator[Source]:
    """Open `cifar10` or `cifar100` in `data_dir` (default `~/.cache/bat_dist`); ids are the original indices.

    `data_dir` holds torchvision's folder, `cifar-10-batches-py` or `cifar-100-python`, or is that folder.
    `download` fetches it there unless it is there, one process at a time.
    """
    from torchvision.datasets import CIFAR10, CIFAR100  # here, since it loads torch

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    root = Path(data_dir or DEFAULT_DIR).expanduser()
    if root.is_file():
        raise DatasetError(
            f"data_dir {root} is a file, but {name} is read from the folder {kind.base_folder}/: give the "
            "folder that holds it; a zip of images is read with dataset image_folder"
        )
    root = root.parent if root.name == kind.base_folder else root
    if download:
        _download(kind, name, root)
    train, test = _load(kind, name, root, train=True), _load(kind, name, root, train=False)
    yield Source(f"{name} in {root}", _samples(train), _samples(test), tuple(train.classes))


def _download(kind: "type[CIFAR10]", name: str, root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            _read(kind, root, train=False, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DatasetError(
            f"{name} could not be downloaded from {kind.url} to {root} ({error}): {_way_out(kind)}"
        ) from error


def _load(kind: "type[CIFAR10]", name: str, root: Path, *, train: bool) -> "CIFAR10":
    try:
        return _read(kind, root, train=train, download=False)
    except (OSError, RuntimeError) as error:
        folder = root / kind.base_folder
        files = [file for file, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
        missing = [file for file in files if not (folder / file).is_file()]
        fault = f"a file in {folder} is damaged or another version (its md5 is not the published one)"
        if missing:
            fault = f"{folder} has no file {missing[0]}"
        raise DatasetError(f"{name}: {fault}: {_way_out(kind)}") from error


def _read(kind: "type[CIFAR10]", root: Path, *, train: bool, download: bool) -> "CIFAR10":
    with warnings.catch_warnings():
        # The files were pickled by Python 2; numpy 2.4.0 to 2.4.4 warn of the dtypes in them (numpy#31177).
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        return kind(root, train=train, download=download)


def _way_out(kind: "type[CIFAR10]") -> str:
    return (
        f"let it be downloaded (download), or unpack {kind.filename} from {kind.url} and give, as data_dir, "
        f"the folder that holds {kind.base_folder}/"
    )


def _samples(split: "CIFAR10") -> Samples:
    return array_samples(split.data, np.asarray(split.targets), np.arange(len(split.targets)))
