"""Sec. 3.1 and 3.2: accuracies on typical and atypical sets along the epochs, and what they say of the claims."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from bat_dist.results.claims import Finding
from bat_dist.results.statistics import LEVEL, mean_over_seeds_and_images
from bat_dist.wording import counted

EARLY = 0.2  # the share of the epochs after which "as training goes" begins
FEWEST = 10  # samples of a set: seeds that agree on fewer say nothing of other samples
Flags = Bool[np.ndarray, "seeds images"]


@dataclass(frozen=True)
class Curve:
    """One accuracy (a fraction) along the epochs, for each seed; NaN in epochs without a look."""

    epochs: Sequence[int]
    values: Float[np.ndarray, "seeds epochs"]

    @classmethod
    def of(cls, histories: Sequence[Sequence[Mapping[str, float | None]]], column: str) -> "Curve":
        """The column of these histories, one per seed, in epochs that all of them have."""
        length = min(map(len, histories))
        values = np.array([[row.get(column) for row in one[:length]] for one in histories], float)  # None is NaN
        epochs = np.array([row["epoch"] for row in histories[0][:length]])
        looked = ~np.isnan(values).any(axis=0)
        return cls(epochs[looked].tolist(), values[:, looked])

    @property
    def last(self) -> Float[np.ndarray, " seeds"]:
        """The values after the last epoch."""
        return self.values[:, -1]

    @property
    def early(self) -> Float[np.ndarray, " seeds"]:
        """The values at the end of the first fifth of the epochs."""
        return self.values[:, int(np.searchsorted(self.epochs, EARLY * self.epochs[-1]))]


class Interval(NamedTuple):
    """A mean over seeds with its 95% interval (Student's t); without bounds for one seed."""

    mean: float
    low: float
    high: float


def over_seeds(values: Float[np.ndarray, " seeds"]) -> Interval:
    """The mean over seeds and its interval for other seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, np.nan, np.nan)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - reach, mean + reach)


def atypical_findings(curves: Mapping[tuple[str, str], Curve], *, num_train: int, num_test: int) -> Iterator[Finding]:
    """What Sec. 3.1 claims.  curves: by method and column (`clean_train_atypical`, ...).

    A set of fewer than `FEWEST` samples gives an estimate without an interval.
    """

    def finding(claim: str, values: Float[np.ndarray, " seeds"], samples: int) -> Finding:
        if samples < FEWEST:
            words = based_on(len(values), samples, f"no interval: fewer than {FEWEST} samples")
            return Finding(claim, float(np.mean(values)), np.nan, np.nan, words)
        return Finding(claim, *over_seeds(values), based_on(len(values), samples, "t interval over seeds"))

    fitted = {kind: curves["pgd_at", f"{kind}_train_atypical"] for kind in ("clean", "pgd")}
    yield finding("at_fits_clean", fitted["clean"].last, num_train)
    yield finding("at_fits_adversarial", fitted["pgd"].last, num_train)
    for claim, method, column in (
        ("at_clean_improves", "pgd_at", "clean_test_atypical"),
        ("at_adversarial_constant", "pgd_at", "pgd_test_atypical"),
        ("erm_clean_improves", "erm", "clean_test_atypical"),
    ):
        curve = curves[method, column]
        yield finding(claim, curve.last - curve.early, num_test)


def typical_findings(flags: Mapping[tuple[str, str, str], Flags], shares: Sequence[float]) -> Iterator[Finding]:
    """What Sec. 3.2 claims.

    flags: by method, training set and kind (clean, pgd): which test typical images the last network of each seed
    classifies right. shares: percent of the atypical samples, ascending, with training sets `atypicalSHARE`.
    """
    none, all_of_them = (f"atypical{share:g}" for share in (shares[0], shares[-1]))

    def drop(method: str, kind: str, other: str = all_of_them) -> Float[np.ndarray, "seeds images"]:
        return flags[method, none, kind].astype(float) - flags[method, other, kind]

    yield _two_way("at_clean_drops", drop("pgd_at", "clean"))
    yield _two_way("at_adversarial_drops", drop("pgd_at", "pgd"))
    yield _two_way("erm_does_not_drop", drop("erm", "clean"))
    yield _two_way("only_at_drops", drop("pgd_at", "clean") - drop("erm", "clean"))
    x = np.array(shares) / 100
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # of least squares: the slope is a weighted sum
    parts = [
        weight * flags["pgd_at", f"atypical{share:g}", "pgd"] for weight, share in zip(weights, shares, strict=True)
    ]
    slope = np.sum(parts, axis=0).round(12)  # 0 for images that are right with every share, without rounding errors
    yield _two_way("more_is_worse", slope)
    for claim, control in (("not_the_number", "random_removed"), ("not_any_group", "typical_removed")):
        if ("pgd_at", control, "pgd") in flags:
            yield _two_way(claim, drop("pgd_at", "pgd", control))


def based_on(num_seeds: int, samples: int, how: str) -> str:
    """`3 seeds, 126 samples, t interval over seeds`."""
    return f"{counted(num_seeds, 'seed')}, {counted(samples, 'sample')}, {how}"


def _two_way(claim: str, d: Float[np.ndarray, "seeds images"]) -> Finding:
    num_seeds, num_images = d.shape
    if num_seeds < 2 or num_images < 2:
        return Finding(claim, float(d.mean()), np.nan, np.nan, based_on(num_seeds, num_images, "no interval"))
    found = mean_over_seeds_and_images(d)
    how = "paired t interval over seeds and images"
    return Finding(claim, found.difference, found.low, found.high, based_on(num_seeds, num_images, how))
