"""Which images an evaluation attacks: those of the test split, unless `split` or `first` say otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from bat_dist.artifacts.scores import read_subsets
from bat_dist.data.datasets import Dataset, Split, fingerprint
from bat_dist.errors import UserError
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.training.splits import hold_out


def attacked(
    dataset: Dataset, settings: EvaluateSettings, facts: Mapping[str, Any]
) -> tuple[Dataset, dict[str, Bool[np.ndarray, " images"]]]:
    """The dataset whose test split is what is attacked, and the typical and atypical ones among these images.

    facts: of the network, which know what its training held out.
    Raises UserError for a validation split that nobody knows, or of other data, and as `read_subsets`.
    """
    base = "test" if settings.split == "test" else "train"
    split = dataset.test if base == "test" else dataset.train
    positions = np.arange(len(split))
    if settings.split == "validation":
        num_val, seed = facts.get("num_val"), facts.get("val_seed")
        if num_val is None or seed is None:
            raise UserError(
                "split validation is what the training of a checkpoint of ours held out: take test or train"
            )
        if facts.get("fingerprint") != dataset.fingerprint:
            raise UserError(
                "split validation needs the data that the checkpoint was trained on, these are others: "
                "leave num_train, num_test and num_classes out, or give those of the training"
            )
        positions = hold_out(dataset.train.labels, num_val, seed=seed).validation
    if settings.first is not None:
        if settings.first > len(positions):
            raise UserError(
                f"first must be at most {len(positions)}, the {settings.split} images, got {settings.first}"
            )
        positions = positions[: settings.first]
    subsets = read_subsets(settings.scores, dataset.fingerprint, base) if settings.scores else {}
    subsets = {name: members[positions] for name, members in subsets.items()}
    if base == "test" and len(positions) == len(split):
        return dataset, subsets
    images = split.images if len(positions) == len(split) else split.images[positions]  # which may not fit into memory
    part = Split(images, split.labels[positions], split.ids[positions])
    return replace(dataset, test=part, fingerprint=fingerprint(dataset.train, part)), subsets
