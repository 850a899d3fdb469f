"""Intervals of memorization that hold after every number of trials at once, and what they decide.

An interval for a fixed number of trials (`newcombe_interval`) does not hold for one who looks again after each trial
and stops when it suits. A confidence sequence does: with probability 1 - alpha, *all* the intervals of a sample, after
1, 2, 3, ... trials, contain its memorization, so that a run may end at any time, for any reason, and be extended later.

The trials of the `uniform` plan are independent of each other. Given which of them have sample i in their training
set, its correctness in those is Bernoulli(p), and in the others Bernoulli(q), with mem = p - q (Eq. 1). For counts k of
n trials and a prior w on [0, 1], the mixture's likelihood ratio

    M(p) = integral of x^k (1 - x)^(n - k) dw(x)  /  p^k (1 - p)^(n - k)

is a martingale with mean 1 at the true p (Robbins 1970, Statistical methods related to the law of the iterated
logarithm), and so is M_in(p) M_out(q) at the true pair. By Ville's inequality it ever reaches 1/alpha with probability
alpha at most: {(p, q): M_in(p) M_out(q) < 1/alpha} holds the true pair at all times. The interval of mem is the range
of p - q over that set (Howard, Ramdas, McAuliffe & Sekhon 2021, arXiv:1810.08240, on confidence sequences; Turner &
Grunwald 2023, arXiv:2203.09785, on the effect between two Bernoulli streams).

The promise is made for each sample by itself, not for all of them at once, and for the `uniform` plan: under `balanced`
the trials are not independent.
"""

import numpy as np
from jaxtyping import Float, Int, Int8
from scipy.special import betaln, xlog1py, xlogy

from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD

Counts = Int[np.ndarray, " samples"]
Ends = tuple[Float[np.ndarray, " samples"], Float[np.ndarray, " samples"]]

LEVEL = 0.95  # of each sample's interval, over all times
PRIOR = ((0.8, 20.0, 0.5), (0.2, 0.5, 0.5))
"""Weight and parameters of the beta distributions that the prior mixes, of p and of q alike.

Any prior keeps the promise; this one makes the intervals short where networks are nearly always right, as they are on
what they were trained on and on typical samples. The second part is Jeffreys' prior, which costs the other samples
little: log 5 in the logarithm of M. `docs/memorization.md` has the comparison.
"""
_BISECTIONS = 50
_BLOCK = 2**16  # samples


def confidence_sequence(
    correct_in: Counts, n_in: Counts, correct_out: Counts, n_out: Counts, level: float = LEVEL
) -> Ends:
    """Lower and upper end of each sample's interval for mem = p - q, valid at all numbers of trials at once.

    correct_in, n_in: in how many of the trials with the sample the network was right on it, and of how many;
    correct_out, n_out: the same without it. A side with no trials says nothing of its accuracy: without any the ends
    are -1 and 1.
    Raises ValueError for a level outside (0, 1), and for counts that are no counts.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    counts = np.stack(np.broadcast_arrays(correct_in, n_in, correct_out, n_out)).astype(np.float64)
    if (counts < 0).any() or (counts[0] > counts[1]).any() or (counts[2] > counts[3]).any():
        raise ValueError("counts must be from 0 on, and no more trials correct than there were")
    low, high = np.empty(counts.shape[1]), np.empty(counts.shape[1])
    for start in range(0, counts.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        (k1, n1, k0, n0), index = np.unique(counts[:, block], axis=1, return_inverse=True)
        log_likelihood = _log_marginal(k1, n1) + _log_marginal(k0, n0) + np.log1p(-level)
        low[block] = _lower_end(k1, n1, k0, n0, log_likelihood)[index]
        high[block] = -_lower_end(k0, n0, k1, n1, log_likelihood)[index]
    return low, high


def decided(
    low: Float[np.ndarray, " samples"], high: Float[np.ndarray, " samples"], sigma: float = ATYPICAL_THRESHOLD
) -> Int8[np.ndarray, " samples"]:
    """What intervals say of mem > sigma: 1 that it is so, -1 that it is not, 0 nothing yet.

    With intervals of `confidence_sequence`, a sample is ever decided wrongly with probability 1 - level at most.
    """
    return (low >= sigma).astype(np.int8) - (high <= sigma).astype(np.int8)


def guarantee(mask_plan: str, level: float = LEVEL) -> str:
    """What is promised of intervals and decisions, in words."""
    text = (
        f"with probability {level:.4g} all intervals of a sample, after any number of trials, contain its memorization"
        f", so that it is ever decided wrongly with probability {1 - level:.2g} at most; this is said of each sample "
        "by itself, not of all at once"
    )
    if mask_plan == "uniform":
        return text
    return f"{text}; it is proved for mask_plan uniform, and with {mask_plan} masks it was found by simulation only"


def _log_marginal(k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The logarithm of the likelihood of k correct of n, in one order of them, averaged over PRIOR."""
    parts = [np.log(weight) + betaln(k + a, n - k + b) - betaln(a, b) for weight, a, b in PRIOR]
    return np.logaddexp.reduce(parts)


def _lower_end(
    k1: np.ndarray, n1: np.ndarray, k0: np.ndarray, n0: np.ndarray, log_likelihood: np.ndarray
) -> np.ndarray:
    """The least p - q of the pairs whose log-likelihood is above the one given.

    The likelihood is concave, and the pairs on the border of such a set for which p - q is least maximize
    log-likelihood - force * (p - q) for some force >= 0 (Lagrange). For a given force p and q follow from a
    quadratic equation each, and the log-likelihood falls as the force grows: the force is found by bisection.
    """
    total = n1 + n0 + 1
    weak, strong = np.zeros(k1.shape), np.full(k1.shape, 1 - 1e-15)  # the force is total * x / (1 - x)
    for _ in range(_BISECTIONS):
        x = (weak + strong) / 2
        p, not_q = _pushed_down(k1, n1, total * x / (1 - x)), _pushed_down(n0 - k0, n0, total * x / (1 - x))
        found = xlogy(k1, p) + xlog1py(n1 - k1, -p) + xlog1py(k0, -not_q) + xlogy(n0 - k0, not_q)
        inside = found > log_likelihood
        weak, strong = np.where(inside, x, weak), np.where(inside, strong, x)
    force = total * strong / (1 - strong)
    return _pushed_down(k1, n1, force) - 1 + _pushed_down(n0 - k0, n0, force)


def _pushed_down(k: np.ndarray, n: np.ndarray, force: np.ndarray) -> np.ndarray:
    """The p in [0, 1] that maximizes k log p + (n - k) log(1 - p) - force * p, for force > 0.

    It is the smaller root of force * p^2 - (n + force) * p + k, in the form that loses no digits.
    """
    return 2 * k / (n + force + np.sqrt((n - force) ** 2 + 4 * force * (n - k)))
