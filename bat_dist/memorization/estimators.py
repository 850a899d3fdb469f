"""Other estimators of memorization (Eq. 1) over the same leave-out trials, to be compared with the difference of means.

Notation, for training sample i and trial t of n: m_ti = 1 if trial t trained on i ("in"), else 0 ("out"); c_ti = 1 if
its network classifies i correctly; p_ti the probability that it gives to the class of i.  Means over the trials with i
in and out are written mean_in and mean_out.  The estimand of all but one is

    mem(i) = P(c_ti = 1 | i in) - P(c_ti = 1 | i out),

in which the subset of the other samples and all randomness of the training vary.  `probability_difference` has another
one.  `ESTIMATORS` names all; `bat_dist.studies.efficiency` measures how many trials each needs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from bat_dist.memorization.estimate import check_trials, estimate_memorization
from bat_dist.memorization.proportions import proportion
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD

NUM_STRATA = 3
_BLOCK_VALUES = 2**22  # of a block of samples: [trials, samples] in float32 is then 16 MB

Values = Float[np.ndarray, "trials samples"]
Scores = Float[np.ndarray, " samples"]


@dataclass(frozen=True)
class Outcomes:
    """What n trials say of the training samples: bool mask and correct [trials, samples], labels [samples].

    probability [trials, samples]: of each sample's own class; None in stores that do not keep it.
    """

    mask: Bool[np.ndarray, "trials samples"]
    correct: Bool[np.ndarray, "trials samples"]
    labels: Int[np.ndarray, " samples"]
    probability: Float[np.ndarray, "trials samples"] | None = None

    def __post_init__(self) -> None:
        check_trials(self.mask, correct=self.correct)
        if self.labels.shape != self.mask.shape[1:]:
            raise ValueError(f"labels must be {self.mask.shape[1]} classes, got shape {self.labels.shape}")

    def of(self, trials: Int[np.ndarray, " some"]) -> "Outcomes":
        """Those of some trials, by their positions."""
        chosen = None if self.probability is None else self.probability[trials]
        return Outcomes(self.mask[trials], self.correct[trials], self.labels, chosen)


@dataclass(frozen=True)
class Estimated:
    """Estimates of every training sample; undefined ones (never in, or never out) are NaN.

    probability_atypical: posterior probability of mem > 0.15, of estimators that have one.
    """

    mem: Scores
    probability_atypical: Scores | None = None

    @property
    def atypical(self) -> Bool[np.ndarray, " samples"]:
        """Which samples are held for atypical: mem > 0.15, or where there is a posterior, probably above it."""
        return self.mem > ATYPICAL_THRESHOLD if self.probability_atypical is None else self.probability_atypical > 0.5


def difference_of_means(outcomes: Outcomes) -> Estimated:
    """mean_in(c_i) - mean_out(c_i): the estimator of Feldman & Zhang (2020) and of `bat-dist memorize`.

    Unbiased given the numbers n_in and n_out of trials; variance p1(1-p1)/n_in + p0(1-p0)/n_out.  It divides by the
    numbers of trials that there were; dividing by the expected ones, rn and (1-r)n (Horvitz & Thompson 1952), would be
    unbiased too, with p1/(rn) + p0/((1-r)n) in place of p1(1-p1)/... : far more where networks are mostly right.  So
    the ratio estimator for unequal numbers is this one already.
    """
    return Estimated(estimate_memorization(outcomes.mask, outcomes.correct).mem)


def probability_difference(outcomes: Outcomes) -> Estimated:
    """mean_in(p_i) - mean_out(p_i): the same with the probability of the sample's own class.

    Estimand: E[p_ti | i in] - E[p_ti | i out], which is not mem(i): it is lower where networks are right without being
    certain, and counts a loss of certainty that changes no answer.  Its variance is s_in^2/n_in + s_out^2/n_out with
    the variances of p, and Var(p) <= E(p)(1 - E(p)), that of a coin of the same mean.  It is for rankings; a threshold
    on it is not one on mem.  Raises ValueError if the trials have no probabilities.
    """
    if outcomes.probability is None:
        raise ValueError("these trials have no probabilities: memorize --keep probability keeps them")
    blocks = [
        np.subtract(*_means(outcomes.mask[:, block], outcomes.probability[:, block].astype(np.float32)))
        for block in _blocks(outcomes.mask.shape)
    ]
    return Estimated(np.concatenate(blocks))


def regression_adjusted(outcomes: Outcomes) -> Estimated:
    """The difference of means, with trials made comparable by how well they do on the other samples of the class.

        mu_a = mean_a(c_i) - slope_a (mean_a(x_i) - mean(x_i)),   a = in, out;     mem = mu_in - mu_out

    x_ti is the mean, over the other samples j of the class, of c_tj minus the mean of c_j over the trials of the same
    side of j, so that it does not depend on which samples trial t has; slope_a is that of c_i on x_i within side a.
    This is Lin's estimator (2013, Agnostic notes on regression adjustments to experimental data, Annals of Applied
    Statistics 7): consistent whether or not c is linear in x, with asymptotic variance
    s_in^2(1-R_in^2)/n_in + s_out^2(1-R_out^2)/n_out plus a term for the difference of the slopes, never more than that
    of the difference of means; its bias is O(1/n).  Slopes are estimated for each sample from n_out trials, which costs
    about 1/n_out of the variance: it gains where R_out^2 is larger than that.  Ours: the sum of squares of x within the
    side has the variance of x over all trials added once, or a few trials that are alike would have slopes of any size.
    A class of one sample has no others: its estimate is the difference of means.
    """
    mem = np.empty(outcomes.mask.shape[1])
    for members, block, quality in _qualities(outcomes):
        inside, correct = outcomes.mask[:, members[block]], outcomes.correct[:, members[block]].astype(np.float32)
        sides = [_adjusted_mean(side, correct, quality) for side in (inside, ~inside)]
        mem[members[block]] = sides[0] - sides[1]
    return Estimated(mem)


def stratified(outcomes: Outcomes) -> Estimated:
    """The difference of means within strata of trials that are about equally good, averaged over the strata.

        mem = sum_s w_s (mean_in,s - mean_out,s) / sum_s w_s,     w_s = n_in,s n_out,s / n_s

    Mantel and Haenszel's weights, which a stratum without trials on one side leaves by itself (Greenland & Robins
    1985, Estimation of a common effect parameter from sparse follow-up data, Biometrics 41).  The strata of a sample
    are thirds of the trials by x_ti of `regression_adjusted`, and what is gained is what x explains, less what is lost
    by the weights: with w_s in place of n_s the variance is about 1 + (S - 1)/n_out times that of one stratum.
    """
    mem = np.empty(outcomes.mask.shape[1])
    for members, block, quality in _qualities(outcomes):
        inside, correct = outcomes.mask[:, members[block]], outcomes.correct[:, members[block]]
        order = quality.argsort(axis=0, kind="stable").argsort(axis=0)
        stratum = np.where(np.ptp(quality, axis=0) > 0, order * NUM_STRATA // len(order), 0)
        weighted, weights = np.zeros(inside.shape[1]), np.zeros(inside.shape[1])
        for number in range(NUM_STRATA):
            here = stratum == number
            n_in, n_out = (inside & here).sum(axis=0), (~inside & here).sum(axis=0)
            correct_in = (inside & here & correct).sum(axis=0)
            correct_out = (~inside & here & correct).sum(axis=0)
            weighted += (correct_in * n_out - correct_out * n_in) / np.maximum(n_in + n_out, 1)
            weights += n_in * n_out / np.maximum(n_in + n_out, 1)
        mem[members[block]] = proportion(weighted, weights)
    return Estimated(mem)


def mask_regression(outcomes: Outcomes) -> Estimated:
    """The coefficient of m_i in a regression of c_i on the masks of all samples of its class: a datamodel.

        c_ti = a_i + mem(i) m_ti + sum_{j of the class, j != i} u_ij m_tj + e_ti,    u_ij ~ N(0, s_u^2), e ~ N(0, s_e^2)

    The u are shrunk (ridge with penalty s_e^2 / s_u^2), mem is not: the generalized least squares estimate
    mem(i) = m_i' V^-1 c_i / m_i' V^-1 m_i with centred m and c and V = I + (s_u^2 / s_e^2) M M', M the centred masks of
    the class.  Whether M has the column of i makes no difference to it.  Ilyas et al. (2022, Datamodels,
    arXiv:2202.00622) regress margins of test samples on whole masks by LASSO; with fewer trials than samples only a
    class is left of that here, since most influence is within it (`influence`).  s_u^2 and s_e^2 follow from products
    of the residuals of different trials, as heritability does from relatives (Haseman & Elston 1972, Behavior Genetics
    2), once for each class.  With s_u^2 = 0 this is the difference of means.  One slope for both sides is assumed.
    """
    mem = np.empty(outcomes.mask.shape[1])
    for label in np.unique(outcomes.labels):
        members = np.flatnonzero(outcomes.labels == label)
        mem[members] = ridge_own_coefficients(outcomes.mask[:, members], outcomes.correct[:, members])
    return Estimated(mem)


def shrunk(outcomes: Outcomes) -> Estimated:
    """Posterior mean of mem(i) given the counts of sample i, with a prior that all samples together give.

    (P(c = 1 | in), P(c = 1 | out)) of the samples are draws from a distribution of two probabilities of any shape,
    which is estimated from the counts of all samples (`mixture`); then Bayes' rule for each sample.  The posterior mean
    has the least mean squared error over samples if the prior is right, at the price of a bias towards what is
    frequent; the posterior also gives P(mem > 0.15), by which the atypical samples are chosen.
    """
    return Estimated(*estimate_memorization(outcomes.mask, outcomes.correct).posterior(ATYPICAL_THRESHOLD))


ESTIMATORS: Mapping[str, Callable[[Outcomes], Estimated]] = {
    "plain": difference_of_means,
    "probability": probability_difference,
    "adjusted": regression_adjusted,
    "stratified": stratified,
    "masks": mask_regression,
    "shrunk": shrunk,
}


def ridge_own_coefficients(
    mask: Num[np.ndarray, "trials samples"] | Bool[np.ndarray, "trials samples"],
    correct: Num[np.ndarray, "trials samples"] | Bool[np.ndarray, "trials samples"],
    ratio: float | None = None,
) -> Scores:
    """`mask_regression` of one class: [trials, samples] of its masks and answers.

    ratio: s_u^2 / s_e^2; None estimates it.
    """
    mask, correct = mask - mask.mean(axis=0), correct - correct.mean(axis=0)
    squares, products = (mask**2).sum(axis=0), (mask * correct).sum(axis=0)
    u, s, _ = np.linalg.svd(mask, full_matrices=False)
    if ratio is None:
        ratio = _variance_ratio(u * s, correct - mask * proportion(products, squares))
    weights = (ratio * s**2 / (1 + ratio * s**2))[:, None]
    own, answers = u.T @ mask, u.T @ correct
    return proportion(products - (weights * own * answers).sum(axis=0), squares - (weights * own**2).sum(axis=0))


def _variance_ratio(scores: Values, residual: Values) -> float:
    """s_u^2 / s_e^2 by Haseman and Elston's regression; 0 where trials of similar masks do not have similar residuals.

    scores [trials, components]: scores @ scores.T is M M', the similarity of each pair of trials; residual @ residual.T
    says how alike they turned out.  Sums over all pairs follow from products of the factors, without these matrices.
    """
    residual = residual[:, np.isfinite(residual).all(axis=0)]
    if not residual.shape[1]:
        return 0.0
    alike = residual / np.sqrt(residual.shape[1])
    own_similar, own_alike = (scores**2).sum(axis=1), (alike**2).sum(axis=1)
    pairs = max(1, len(scores) * (len(scores) - 1))
    similar_of_pairs = np.sum(scores.sum(axis=0) ** 2) - own_similar.sum()
    alike_of_pairs = np.sum(alike.sum(axis=0) ** 2) - own_alike.sum()
    products = np.sum((scores.T @ alike) ** 2) - own_similar @ own_alike
    squares = np.sum((scores.T @ scores) ** 2) - own_similar @ own_similar
    covariance = products - similar_of_pairs * alike_of_pairs / pairs
    effect = float(covariance / max(squares - similar_of_pairs**2 / pairs, 1e-12 * pairs))
    noise = float(own_alike.sum() - effect * own_similar.sum()) / len(scores)
    return effect / noise if effect > 0 and noise > 0 else 0.0


def _means(inside: Bool[np.ndarray, "trials samples"], values: Values) -> tuple[Scores, Scores]:
    """The mean over the trials with the sample in, and over those with it out; NaN for no trial."""
    n_in = np.count_nonzero(inside, axis=0)
    total, total_in = values.sum(axis=0, dtype=float), values.sum(axis=0, dtype=float, where=inside)
    return proportion(total_in, n_in), proportion(total - total_in, len(inside) - n_in)


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Ranges of samples whose [trials, samples] are of bounded size."""
    step = max(1, _BLOCK_VALUES // shape[0])
    return (slice(start, start + step) for start in range(0, shape[1], step))


def _qualities(outcomes: Outcomes) -> Iterator[tuple[Int[np.ndarray, " members"], slice, Values]]:
    """x_ti of `regression_adjusted`, class by class in blocks: the class's samples, a part of them, and its x."""
    for label in np.unique(outcomes.labels):
        members = np.flatnonzero(outcomes.labels == label)
        blocks = [*_blocks((len(outcomes.mask), len(members)))]
        sums = np.zeros(len(outcomes.mask))
        for block in blocks:
            sums += _residuals(outcomes, members[block]).sum(axis=1)
        for block in blocks:
            others = sums[:, None] - _residuals(outcomes, members[block])
            if len(members) == 1:
                others[:] = 0  # and not what rounding leaves
            yield members, block, others / max(len(members) - 1, 1)


def _residuals(outcomes: Outcomes, members: Int[np.ndarray, " members"]) -> Values:
    """c_ti minus its mean over the trials on the same side of i; 0 where a side has no other trial."""
    inside, correct = outcomes.mask[:, members], outcomes.correct[:, members].astype(np.float32)
    mean_in, mean_out = _means(inside, correct)
    return correct - np.where(inside, mean_in, mean_out)


def _adjusted_mean(
    side: Bool[np.ndarray, "trials samples"], correct: Values, x: Num[np.ndarray, "trials samples"]
) -> Scores:
    """mean_a(c) - slope_a (mean_a(x) - mean(x)) of one side; the slope is 0 where x is the same in all trials."""
    mean_c, mean_x = _means(side, correct)[0], _means(side, x)[0]
    deviation = np.where(side, x - mean_x, 0)
    squares = (deviation**2).sum(axis=0) + x.var(axis=0)
    slope = (deviation * correct).sum(axis=0) / np.where(squares > 0, squares, 1)
    return mean_c - slope * (mean_x - x.mean(axis=0))
