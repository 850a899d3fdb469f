"""The training sets of Sec. 3.2 and App. B: typical samples with part of the atypical ones, and sets of equal size."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int64

Members = Bool[np.ndarray, " samples"]
Indices = Int64[np.ndarray, " chosen"]


def with_share(typical: Members, atypical: Members, percent: float, *, seed: int) -> Indices:
    """All typical samples, and this part of the atypical ones, drawn by `seed`; a larger part holds a smaller one."""
    drawn = np.random.default_rng([seed, len(atypical)]).permutation(np.flatnonzero(atypical))
    return np.union1d(np.flatnonzero(typical), drawn[: round(len(drawn) * percent / 100)])


def without_atypical(atypical: Members) -> Indices:
    """All samples that are not atypical, also those that are not typical either."""
    return np.flatnonzero(~atypical)


def random_removed(typical: Members, atypical: Members, *, seed: int) -> Indices:
    """The control of share 0: of typical and atypical samples as many are left out, but at random."""
    both = np.flatnonzero(typical | atypical)
    kept = np.random.default_rng([seed, len(both)]).permutation(both)[np.count_nonzero(atypical) :]
    return np.sort(kept)


def least_memorized_removed(
    typical: Members, atypical: Members, mem: Float[np.ndarray, " samples"], *, seed: int
) -> Indices:
    """The other control: as many are left out, of the lowest memorization; `seed` decides among equal ones."""
    both = np.random.default_rng([seed, len(mem)]).permutation(np.flatnonzero(typical | atypical))
    ascending = both[np.argsort(mem[both], kind="stable")]
    return np.sort(ascending[np.count_nonzero(atypical) :])


def check_sets(sets: Mapping[str, Members], names: Iterable[str]) -> None:
    """Raise ValueError, saying what to do, if one of these sets (`train_atypical`, ...) is empty."""
    for name in names:
        if not sets[name].any():
            split, kind = name.split("_")
            whole = "training set (without the validation split)" if split == "train" else "test set"
            raise ValueError(f"there is no {kind} sample in the {whole}: run more leave-out trials, or take more data")
