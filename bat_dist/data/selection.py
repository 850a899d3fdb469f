"""Which samples of a source are asked for, known before a pixel is read."""

from typing import Literal

import numpy as np
from jaxtyping import Int64

from bat_dist.data.source import Source, choose
from bat_dist.data.table import DatasetError, DatasetSpec


def selected(
    source: Source,
    spec: DatasetSpec,
    num_train: int | None,
    num_test: int | None,
    num_classes: int | None,
    image_size: int | None,
) -> tuple[int, Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """The number of classes, and the positions of the samples that are asked for in each split, as in `load_dataset`.

    Raises DatasetError for what the data do not have.
    """
    if image_size is not None and image_size <= 0:
        raise DatasetError(f"image_size must be positive, got {image_size}: leave it out to keep the images' size")
    count = _count_classes(source, spec, num_classes)
    return count, _choose(source, "train", count, num_train), _choose(source, "test", count, num_test)


def _count_classes(source: Source, spec: DatasetSpec, num_classes: int | None) -> int:
    available = len(source.class_names)
    count = num_classes if num_classes is not None else spec.num_classes or available
    if count < 2:
        raise DatasetError(f"{source.where}: at least 2 classes are needed, got {count}")
    if count > available:
        asked = "asked for" if num_classes is not None else f"the default of {spec.name}"
        raise DatasetError(
            f"num_classes must be at most {available}, the classes in {source.where}; {count} is {asked}"
        )
    return count


def _choose(
    source: Source, split: Literal["train", "test"], num_classes: int, number: int | None
) -> Int64[np.ndarray, " chosen"]:
    labels = source.train.labels if split == "train" else source.test.labels
    per_class = np.bincount(labels, minlength=num_classes)[:num_classes]
    if not per_class.all():
        name = source.class_names[int(np.argmin(per_class))]
        raise DatasetError(
            f"{source.where}: class {name!r} has no image in the {split} split: "
            "add some or remove the class from both splits"
        )
    return choose(labels, num_classes, number, f"num_{split}")
