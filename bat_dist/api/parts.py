"""Networks and data as people pass them: turned into what the settings of a command hold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bat_dist.errors import UserError
from bat_dist.settings.sections import DataSettings

if TYPE_CHECKING:
    from torch import nn

    from bat_dist.data.datasets import Dataset, Split
    from bat_dist.models.own import OwnNetwork

ANY_NAME = "digits"  # a dataset's name for the checks of settings whose data were passed
FOR_NAMES = ("data_dir", "download")


def name_of(train: Any) -> str:
    """What results call the data: the name of a dataset, or of the class of what was passed."""
    from bat_dist.data.datasets import Dataset

    if isinstance(train, str):
        return train
    if isinstance(train, Dataset):
        return train.name
    while hasattr(train, "indices") and hasattr(train, "dataset"):  # torch's Subset, which is part of another
        train = train.dataset
    return "arrays" if isinstance(train, tuple | list) else type(train).__name__


def chooses_samples(settings: DataSettings) -> bool:
    """Is a setting given that decides which images are read, of which size, or from where?"""
    given = (value for name, value in settings.data.items() if name != "image_storage")
    return any(value is not None and value is not False for value in given)


def data_of(train: Any, test: Any, settings: DataSettings) -> "Dataset":
    """The dataset of a call, of which settings such as num_train choose the samples.

    train, test: a name, of both splits; a `Dataset`; or each a map-style data set or a pair (images, labels), see
    `data.own.dataset_of`. Raises UserError.
    """
    from bat_dist.data.datasets import Dataset, load_dataset
    from bat_dist.data.own import dataset_of

    if isinstance(train, str | Dataset) and test is not None:
        raise UserError("a dataset by name, or a Dataset, has both splits: leave the test set out")
    if isinstance(train, str):
        return load_dataset(train, **settings.data)
    if given := [name for name in FOR_NAMES if getattr(settings, name)]:
        raise UserError(f"{given[0]} is for a dataset by name, and data themselves were passed: leave it out")
    unless_given = (None, "auto")  # the latter of image_storage
    chosen = {k: v for k, v in settings.data.items() if k not in FOR_NAMES and v not in unless_given}
    if isinstance(train, Dataset):
        if chosen:
            raise UserError(
                f"{next(iter(chosen))} is for data that are yet to be read, a Dataset is whole: leave it out"
            )
        return train
    return dataset_of(train, test, name=name_of(train), **chosen)


def arch_of(model: "str | nn.Module | type[nn.Module] | Any") -> "str | OwnNetwork":
    """The setting `arch` for a name, a class, a function that makes a network, or a network.

    Raises UserError for anything else, and for a network whose weights cannot be drawn anew.
    """
    if isinstance(model, str):
        return model
    from bat_dist.models.own import OwnNetwork, own_network

    return model if isinstance(model, OwnNetwork) else own_network(model)


def images_as_dataset(split: "Split", num_classes: int, class_names: Sequence[str] | None) -> "Dataset":
    """A dataset whose test split is this one, and its training split too, since nothing else is known.

    num_classes: those of the network. Raises UserError for labels or names that do not fit them.
    """
    from bat_dist.data.datasets import Dataset, fingerprint
    from bat_dist.data.table import own_spec

    if (highest := int(split.labels.max())) >= num_classes:
        raise UserError(
            f"labels must be 0 to {num_classes - 1}, one of the network's {num_classes} classes, got {highest}: is the "
            "network for other data?"
        )
    names = tuple(map(str, range(num_classes))) if class_names is None else tuple(class_names)
    if len(names) != num_classes:
        raise UserError(f"class_names must name the network's {num_classes} classes, got {len(names)}")
    spec = own_spec("images").of_size(num_classes, split.images.shape[1])
    return Dataset("images", split, split, names, fingerprint(split, split), spec)
