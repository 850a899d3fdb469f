"""How many trials each estimator of memorization needs: estimates from few trials against many other trials.

A repetition puts the trials of a store in random order.  Estimates are made from the first n, for each n of a grid; the
reference is the difference of means (Eq. 1) over trials that none of them saw: the last half of the order, or all
trials of another store.  So agreement is not that of a trial with itself, and every estimator and n of a repetition is
judged by the same reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from bat_dist.memorization.estimators import ESTIMATORS, Estimated, Outcomes, difference_of_means
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD

SIZES = (25, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
AIM = 1000  # trials, the paper's number: what others need for the agreement that the difference of means has with it
LEAST = 2 * SIZES[1]  # trials of a store that is divided
PLAIN, BALANCED, OWN = "plain", "balanced", "probability_own"
"""The difference of means; the same from trials with balanced masks; and that of probabilities judged by itself."""


class ReferenceAgreement(NamedTuple):
    """How an estimate agrees with a reference, over samples that both define.

    spearman: rank correlation. jaccard: common atypical samples, of those that either has (NaN for none). equal: share
    of samples that both call atypical, or both not. rmse: root of the mean squared error against what the reference
    estimates; the reference's own sampling variance is subtracted.
    """

    spearman: float
    jaccard: float
    equal: float
    rmse: float


METRICS = ReferenceAgreement._fields
LOWER_IS_BETTER = ("rmse",)


class Measured(NamedTuple):
    """One estimator from n trials in one repetition."""

    repetition: int
    estimator: str
    num_trials: int
    agreement: ReferenceAgreement


@dataclass(frozen=True)
class Reference:
    """A difference of means over many trials, and its sampling variance, by sample; NaN where it is undefined."""

    mem: Float[np.ndarray, " samples"]
    variance: Float[np.ndarray, " samples"]

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "trials samples"], values: Shaped[np.ndarray, "trials samples"]) -> "Reference":
        """That of the values (correctness, or probabilities): unbiased, and so is s_in^2/n_in + s_out^2/n_out."""
        mem, variance = np.zeros(mask.shape[1]), np.zeros(mask.shape[1])
        for side, sign in ((True, 1), (False, -1)):
            inside = mask == side
            n = np.count_nonzero(inside, axis=0)
            total = np.sum(values, axis=0, dtype=float, where=inside)
            squares = np.sum(np.square(values, dtype=np.float32), axis=0, dtype=float, where=inside)
            with np.errstate(invalid="ignore", divide="ignore"):
                mem += sign * total / n
                variance += (squares - total**2 / n) / (n - 1) / n
        return cls(mem, variance)


def compare(estimated: Estimated, reference: Reference) -> ReferenceAgreement:
    """The agreement of an estimate with the reference."""
    from scipy.stats import rankdata

    known = np.isfinite(estimated.mem) & np.isfinite(reference.variance)
    one, other = estimated.mem[known], reference.mem[known]
    atypical, expected = estimated.atypical[known], other > ATYPICAL_THRESHOLD
    either = np.count_nonzero(atypical | expected)
    ranks = rankdata(one), rankdata(other)
    varies = len(one) > 1 and all(np.ptp(rank) > 0 for rank in ranks)
    excess = np.mean((one - other) ** 2 - reference.variance[known]) if len(one) else np.nan
    return ReferenceAgreement(
        float(np.corrcoef(*ranks)[0, 1]) if varies else np.nan,
        np.count_nonzero(atypical & expected) / either if either else np.nan,
        float(np.mean(atypical == expected)) if len(one) else np.nan,
        float(np.sqrt(max(excess, 0))),
    )


def sizes_up_to(most: int) -> list[int]:
    """The grid of n: those of `SIZES` below `most`, and `most`."""
    return [*(size for size in SIZES if size < most), most]


def measure(
    outcomes: Outcomes,
    *,
    mask_plan: str = "uniform",
    reference: Outcomes | None = None,
    balanced: Outcomes | None = None,
    repetitions: int,
) -> Iterator[Measured]:
    """Every estimator from n trials of the outcomes, in each repetition; the same numbers in every call.

    mask_plan: that of `outcomes`. reference: other trials, by which estimates are judged; None takes half of these.
    balanced: further trials with balanced masks, of which the difference of means is judged in the same way.
    Estimators of probabilities are left out where the trials have none.
    """
    most = len(outcomes.mask) if reference else len(outcomes.mask) // 2
    names = [name for name in ESTIMATORS if name != "probability" or outcomes.probability is not None]
    for repetition in range(repetitions):
        rng = np.random.default_rng([0, repetition])
        order = trial_order(mask_plan, len(outcomes.mask), rng)
        judges = reference or outcomes.of(order[most:])
        truth, own = Reference.of(judges.mask, judges.correct), None
        if "probability" in names and judges.probability is not None:
            own = Reference.of(judges.mask, judges.probability)
        for size in sizes_up_to(most):
            few = outcomes.of(order[:size])
            for name in names:
                estimated = ESTIMATORS[name](few)
                yield Measured(repetition, name, size, compare(estimated, truth))
                if name == "probability" and own:
                    yield Measured(repetition, OWN, size, compare(estimated, own))
        if balanced:
            order = trial_order(BALANCED, len(balanced.mask), rng)
            for size in sizes_up_to(min(most, len(balanced.mask))):
                estimated = difference_of_means(balanced.of(order[:size]))
                yield Measured(repetition, BALANCED, size, compare(estimated, truth))


def trial_order(mask_plan: str, num_trials: int, rng: np.random.Generator) -> Int[np.ndarray, " trials"]:
    """A random order of trials whose first n are as good as any n that a run would do.

    Balanced masks are so only for consecutive trials: their order is kept, from a random one on, and goes on with the
    first after the last.
    """
    if mask_plan == BALANCED:
        return np.roll(np.arange(num_trials), -int(rng.integers(num_trials)))
    return rng.permutation(num_trials)


class Needed(NamedTuple):
    """Trials that an estimator needs for the agreement that the difference of means has with `aim` trials.

    median, low, high: the median and the central 95% of the repetitions; inf where an estimator does not reach it.
    """

    estimator: str
    metric: str
    aim: int
    target: float  # mean over repetitions
    median: float
    low: float
    high: float


def trials_needed(measured: Sequence[Measured]) -> list[Needed]:
    """For each estimator and metric, within each repetition: interpolated between the n of the grid, on a log scale.

    The aim is 1000 trials, or the largest n where that is not in the grid.
    """
    curves = by_curve(measured)
    sizes = list(curves[PLAIN, METRICS[0]])
    aim = AIM if AIM in sizes else sizes[-1]
    found = []
    for (estimator, metric), curve in curves.items():
        if estimator == OWN:  # judged by something else
            continue
        targets = curves[PLAIN, metric][aim]
        sign = -1 if metric in LOWER_IS_BETTER else 1
        values = np.array([*curve.values()]).T
        needed = [
            first_reaching([*curve], sign * one, sign * target) for one, target in zip(values, targets, strict=True)
        ]
        # Methods that do not interpolate: what is never reached is infinite.
        low, median = np.quantile(needed, 0.025, method="lower"), np.quantile(needed, 0.5, method="inverted_cdf")
        high = np.quantile(needed, 0.975, method="higher")
        found.append(Needed(estimator, metric, aim, float(np.mean(targets)), *map(float, (median, low, high))))
    return found


def by_curve(measured: Sequence[Measured]) -> Mapping[tuple[str, str], Mapping[int, Float[np.ndarray, " repetitions"]]]:
    """The values of each estimator and metric, by n: one for each repetition."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for one in measured:
        for metric, value in one.agreement._asdict().items():
            found.setdefault((one.estimator, metric), {}).setdefault(one.num_trials, []).append(value)
    return {key: {size: np.array(values) for size, values in curve.items()} for key, curve in found.items()}


def first_reaching(sizes: Sequence[int], values: Float[np.ndarray, " sizes"], target: float) -> float:
    """The n at which the largest value so far reaches the target; the first n if that does, inf if none does."""
    best = np.fmax.accumulate(values)
    reached = np.flatnonzero(best >= target)
    if not len(reached):
        return np.inf
    at = int(reached[0])
    if at == 0:
        return float(sizes[0])
    share = (target - best[at - 1]) / (best[at] - best[at - 1]) if np.isfinite(best[at - 1]) else 1.0
    return float(np.exp(np.interp(share, [0, 1], np.log(sizes[at - 1 : at + 1]))))
