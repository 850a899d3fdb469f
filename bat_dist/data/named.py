"""Data of one's own by reference: FILE.py:NAME, package.module:NAME, hf:NAME, torchvision:NAME."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bat_dist.data.cifar import DEFAULT_DIR
from bat_dist.data.hugging_face import hub_splits, train_and_test
from bat_dist.data.own import is_pair_of_arrays, own_source
from bat_dist.data.source import Source
from bat_dist.data.table import DatasetError
from bat_dist.parts import load_part
from bat_dist.wording import alternatives, nearest


def source_of(
    reference: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    test_share: float | None = None,
    download: bool = False,
) -> Source:
    """Both splits of the data that are called so; for the settings see `load_dataset`.

    FILE.py:NAME, package.module:NAME: NAME is, or gives when it is called, what `dataset_of` takes: a training and a
        test set, as a pair or under `train` and `test`; a training set alone, with a test_share; or a `Dataset`.
        It is called with those of data_dir, image_size and num_classes that it takes.
    hf:NAME: a data set of the Hugging Face Hub (`hub_splits`).
    torchvision:NAME: a class of torchvision.datasets, which looks for its files in data_dir (default:
        `~/.cache/bat_dist`).

    Raises DatasetError, and UserError for a file or package that cannot be imported.
    """
    where, _, name = reference.rpartition(":")
    if where == "hf":
        train, test = hub_splits(name, data_dir, download=download)
    elif where == "torchvision":
        train, test = _torchvision_splits(name, Path(data_dir or DEFAULT_DIR).expanduser(), download)
    elif download:
        raise DatasetError(f"{reference} is data of your own, which only its own code can download: leave download out")
    else:
        asked = {"data_dir": data_dir, "image_size": image_size, "num_classes": num_classes}
        train, test = _splits(_called(load_part(reference, what="dataset").made, reference, asked))
    return own_source(train, test, where=reference, test_share=test_share)


def _called(made: Any, reference: str, asked: Mapping[str, Any]) -> Any:
    """What a function or class gives; anything else as it is."""
    if not callable(made):
        return made
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):  # some built-in ones do not tell
        parameters = {}
    given = {name: value for name, value in asked.items() if name in parameters and value is not None}
    if asked["data_dir"] is not None and "data_dir" not in given:
        raise DatasetError(f"{reference} has no parameter data_dir: add one, or leave data_dir out")
    for name, one in parameters.items():
        if name not in given and one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            way_out = (
                f"give {name}" if name in asked else f"only {alternatives(asked)} are given to it, if it takes them"
            )
            raise DatasetError(f"{reference} cannot be called without {name}: {way_out}")
    try:
        return made(**given)
    except DatasetError:
        raise
    except Exception as error:  # it is the user's own code
        raise DatasetError(f"{reference} raised {type(error).__name__}: {error}") from error


def _splits(made: Any) -> tuple[Any, Any]:
    """The training set, and the test set or None."""
    if isinstance(made, Mapping):
        return train_and_test(made)
    if isinstance(made, tuple | list) and len(made) == 2 and not is_pair_of_arrays(made):
        return made[0], made[1]
    return made, None


def _torchvision_splits(name: str, root: Path, download: bool) -> tuple[Any, Any]:
    """The training set, and the test set where the class knows one."""
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not inspect.isclass(kind) or not issubclass(kind, datasets.VisionDataset):
        raise DatasetError(f"torchvision.datasets has no {name!r}{nearest(name, datasets.__all__)}")
    parameters = inspect.signature(kind).parameters
    given: dict[str, Any] = {"root": root} if "root" in parameters else {}
    if download and "download" in parameters:
        given["download"] = True
    splits: list[dict[str, Any]] = [{}]
    if "train" in parameters:
        splits = [{"train": True}, {"train": False}]
    elif "split" in parameters:
        usual = parameters["split"].default  # "trainval" of some
        splits = [{"split": usual if usual in ("train", "trainval") else "train"}, {"split": "test"}]
    try:
        root.mkdir(parents=True, exist_ok=True)
        made = [kind(**given, **split) for split in splits]
    except Exception as error:  # nearly anything: files that are not there, sites that do not answer, other arguments
        way_out = (
            "" if download else ": let them be downloaded (download), or give, as data_dir, the folder of its files"
        )
        raise DatasetError(f"torchvision's {name} cannot be read from {root} ({error}){way_out}") from error
    return made[0], made[1] if len(made) > 1 else None
