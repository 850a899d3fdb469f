"""What `--scale small` stands for: all of an experiment or a study in minutes on two cores, on digits."""

from collections.abc import Mapping
from typing import Any

SCORES = "scores"  # folder of the leave-out trials, of an experiment and of studies
DATASET, NETWORK = "digits", "tinynet"
MEMORIZE: Mapping[str, Any] = {
    **{"num_trials": 240, "subset_ratio": 0.5, "epochs": 20, "batch_size": 16},
    **{"precision": "fp32", "loader": "memory"},
}
TRAIN: Mapping[str, Any] = {
    **{"recipe": "fast", "epochs": 40, "batch_size": 32, "lr": 0.1, "num_steps": 3},
    **{"precision": "fp32", "loader": "memory"},
}
# Studies are about networks that fit their training samples, also under attack.
TRAIN_OF_STUDIES: Mapping[str, Any] = {**TRAIN, "epochs": 60, "crop_padding": 0}
EVALUATE: Mapping[str, Any] = {"check_images": 0}
_NUM_TRAIN = {"digits": 300}  # of all 1,297 hardly one is atypical: each has others like it


def num_train(dataset: str) -> int | None:
    """How many training samples are taken where the user does not say; None is all."""
    return _NUM_TRAIN.get(dataset)
