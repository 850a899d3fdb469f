"""Memorization scores as a training run takes them: from our files, or from one in Feldman & Zhang's format."""

import hashlib
import logging
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from bat_dist.artifacts.scores import MEMORIZATION
from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.memorization.exchange import load_feldman_zhang
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TYPICAL_THRESHOLD
from bat_dist.storage.files import Folder, split_location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingScores:
    """A score of every training sample, NaN where undefined; above `sigma` a sample is atypical.

    typical_below: the samples that accuracies call typical; those between belong to neither subset.
    """

    values: Float[np.ndarray, " samples"]
    sigma: float
    typical_below: float
    name: str

    @property
    def subsets(self) -> dict[str, Bool[np.ndarray, " samples"]]:
        """`typical` and `atypical` training samples."""
        return {"typical": self.values < self.typical_below, "atypical": self.values > self.sigma}

    @property
    def digest(self) -> str:
        """A hash over all values, in order."""
        return hashlib.sha256(np.ascontiguousarray(self.values, "<f8").tobytes()).hexdigest()[:16]


def read_scores(
    location: str,
    dataset: Dataset,
    *,
    score: str = "disagreement",
    sigma: float | None = None,
    atypical_share: float | None = None,
    undefined: Literal["neutral", "typical"] = "neutral",
) -> TrainingScores:
    """The scores in a file: `memorization.npz`, `ensemble_scores.npz` (of which `score`), or Feldman & Zhang's.

    sigma: 0.15 for memorization (Sec. 2.1) unless given, or chosen so that `atypical_share` of the samples lie above.
    undefined: what samples without a defined score are; "typical" puts the lowest defined score in their place.
    A cheaper score has a scale of its own: without either, the share of `memorization.npz` beside it is taken.
    Raises UserError if the file is missing, damaged, of other data, or if no threshold can be known.
    """
    folder, name = split_location(location)
    arrays = folder.read_npz(name)
    is_memorization = not arrays.keys().isdisjoint(("tr_mem", "mem"))
    if "tr_mem" in arrays:
        train, test = dataset.train.labels, dataset.test.labels
        try:
            values = load_feldman_zhang(
                BytesIO(folder.read(name)), train_labels=train, test_labels=test, allow_undefined=True
            ).mem
        except ValueError as error:
            raise UserError(f"scores {folder}/{name}: {error}") from None
    elif str(arrays.get("fingerprint")) != dataset.fingerprint:
        raise UserError(
            f"scores {location}: of other data than the dataset, or of another order of it; "
            "give the same --dataset, --num_train and --num_test as for bat-dist memorize"
        )
    elif is_memorization:
        values = arrays["mem"]
    elif score in arrays:
        values = arrays[score]
    else:
        raise UserError(f"scores {location} holds neither mem nor {score}: take a file of bat-dist memorize")
    values = _defined(values, undefined, location)
    if is_memorization:
        sigma = _threshold(values, atypical_share) if atypical_share is not None else sigma
        sigma = ATYPICAL_THRESHOLD if sigma is None else sigma
        return TrainingScores(values, sigma, min(TYPICAL_THRESHOLD, sigma), "mem")
    if sigma is None:
        sigma = _threshold(values, atypical_share or _share_of_memorization(folder, location, dataset))
    return TrainingScores(values, sigma, np.nextafter(sigma, np.inf), score)


def _defined(values: Float[np.ndarray, " samples"], undefined: str, location: str) -> Float[np.ndarray, " samples"]:
    """Say how many are NaN, and put the lowest value in their place if they are to be typical."""
    missing = np.isnan(values)
    if missing.all():
        raise UserError(f"scores {location}: none is defined; run more trials")
    if missing.any():
        log.warning(
            "scores %s: %d of %d are undefined and count as %s", location, missing.sum(), len(values), undefined
        )
    return np.where(missing, np.nanmin(values), values) if undefined == "typical" else values


def _threshold(values: Float[np.ndarray, " samples"], share: float) -> float:
    """The value above which (nearly) that share of the defined values lies."""
    return float(np.nanquantile(values, 1 - share, method="lower"))


def _share_of_memorization(folder: Folder, location: str, dataset: Dataset) -> float:
    if folder.exists(MEMORIZATION):
        arrays = folder.read_npz(MEMORIZATION)
        if str(arrays.get("fingerprint")) == dataset.fingerprint:
            defined = arrays["mem"][~np.isnan(arrays["mem"])]
            return float(np.mean(defined > ATYPICAL_THRESHOLD))
    raise UserError(
        f"scores {location} have a scale of their own, and no {MEMORIZATION} is beside them to tell which share is "
        "atypical: give --atypical_share (0.11 is CIFAR-10's in the paper) or --sigma"
    )
