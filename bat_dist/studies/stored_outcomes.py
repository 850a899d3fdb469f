"""The outcomes of a folder's leave-out trials, for studies that look at trials and not at samples."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bat_dist.artifacts.scores import MEMORIZATION, TRIALS
from bat_dist.config import differences
from bat_dist.errors import UserError
from bat_dist.memorization.estimators import Outcomes
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore

DRAWN = ("seed", "mask_plan")  # what the trials of one experiment may differ in: how subsets and networks are drawn


class StoredOutcomes(NamedTuple):
    """Outcomes of the complete trials with these numbers, and the identity of their store."""

    outcomes: Outcomes
    numbers: np.ndarray
    identity: Mapping[str, object]
    place: str

    @property
    def mask_plan(self) -> str:
        """How the subsets were drawn, `uniform` or `balanced`."""
        return str(self.identity.get("mask_plan", "uniform"))


def read_outcomes(location: str) -> StoredOutcomes:
    """Read the trials behind the scores in a folder of `bat-dist memorize`, without what they say of test samples.

    Raises UserError if there are no scores or no trials, or if a trial is damaged.
    """
    place = Folder(location)
    scores, store = place.read_npz(MEMORIZATION), RowStore.existing(place / TRIALS)
    numbers = scores.get("trial", np.array([], int))
    if not store or not len(numbers):
        raise UserError(f"{place} holds scores without trials: give a folder in which bat-dist memorize has run some")
    if missing := np.setdiff1d(numbers, np.flatnonzero(store.status().complete)).size:
        raise UserError(f"{place}/{TRIALS} lacks {missing:,} of the trials of its scores: run bat-dist memorize again")
    probability = store.read("train_probability", numbers) if "train_probability" in store.fields else None
    outcomes = Outcomes(
        store.read("mask", numbers), store.read("train_correct", numbers), scores["train_labels"], probability
    )
    return StoredOutcomes(outcomes, numbers, store.identity, location)


def check_comparable(one: StoredOutcomes, other: StoredOutcomes, option: str) -> None:
    """Raise UserError unless both have trials of the same settings and data, and no trial in common."""
    first, second = (
        {name: value for name, value in stored.identity.items() if name not in DRAWN} for stored in (one, other)
    )
    if changes := differences(first, second):
        raise UserError(
            f"{option} {other.place} holds trials of other settings or data than {one.place}, which memorize other "
            f"samples: {'; '.join(changes)}"
        )
    if one.identity == other.identity and (shared := np.intersect1d(one.numbers, other.numbers)).size:
        raise UserError(
            f"{option} {other.place} holds {len(shared):,} of the trials of {one.place} (the same seed, subsets and "
            "numbers), with which no estimate can be compared: use trials with another --seed, or leave the option out"
        )
