"""Nonparametric empirical Bayes for pairs of binomial counts: what all samples say of one.

Sample i has k1 of n1 and k0 of n0 correct answers, k1 ~ Bin(n1, p1) and k0 ~ Bin(n0, p0), and (p1, p0) is a draw from a
distribution G on the unit square.  G is estimated by maximum likelihood (Kiefer & Wolfowitz 1956, Annals of
Mathematical Statistics 27) on a grid, by the EM algorithm (Laird 1978, Journal of the American Statistical Association
73); see Koenker & Mizera (2014), Convex optimization, shape constraints, compound decisions, and empirical Bayes rules,
ibid. 109.  EM starts from a uniform G and ends after a fixed number of steps, which keeps G smooth where the counts do
not say more.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import xlog1py, xlogy

GRID, STEPS = 81, 100
MOST_FITTED = 2**15  # kinds of samples (k1, n1, k0, n0) from which G is estimated
BLOCK = 2**14  # kinds of samples whose likelihoods are in memory at once
VALUES = np.sin(np.linspace(0, np.pi / 2, GRID)) ** 2
"""The grid of either probability: their arcsines are equally far apart, as the binomial's precision asks for."""

Counts = Int[np.ndarray, " samples"]
Likelihood = Float[np.ndarray, "samples grid"]


def posterior_of_counts(
    k1: Counts, n1: Counts, k0: Counts, n0: Counts, threshold: float
) -> tuple[Float[np.ndarray, " samples"], Float[np.ndarray, " samples"]]:
    """Posterior mean of p1 - p0, and posterior probability of p1 - p0 > threshold, of each sample.

    A sample without any trial has the mean and the probability of G.  Where more than `MOST_FITTED` counts differ, G is
    estimated from as many, evenly spaced in their order; memory beside the arguments is bounded.
    """
    different, place, times = np.unique(np.stack([k1, n1, k0, n0]), axis=1, return_inverse=True, return_counts=True)
    kinds = different.shape[1]
    fitted = np.linspace(0, kinds - 1, min(kinds, MOST_FITTED)).astype(int)
    weights = fitted_mixture(*_likelihoods(different[:, fitted]), times[fitted])
    differ = VALUES[:, None] - VALUES
    mean, above = np.empty(kinds), np.empty(kinds)
    for start in range(0, kinds, BLOCK):
        block = slice(start, start + BLOCK)
        one, zero = _likelihoods(different[:, block])
        total = marginal(one, weights, zero)
        mean[block] = marginal(one, weights * differ, zero) / total
        above[block] = marginal(one, weights * (differ > threshold), zero) / total
    return mean[place.reshape(-1)], above[place.reshape(-1)]


def _likelihoods(counts: Int[np.ndarray, "4 samples"]) -> tuple[Likelihood, Likelihood]:
    """Those of p1 and of p0."""
    return likelihood(counts[0], counts[1]), likelihood(counts[2], counts[3])


def fitted_mixture(one: Likelihood, zero: Likelihood, times: Counts) -> Float[np.ndarray, "grid grid"]:
    """G: the weight of each (p1, p0) of the grid; they sum to 1.

    one, zero: the likelihoods of each sample's p1 and p0. times: how many samples there are of each kind.
    """
    weights = np.full((GRID, GRID), 1 / GRID**2)
    for _ in range(STEPS):
        weights *= one.T @ (zero * (times / marginal(one, weights, zero))[:, None]) / times.sum()
    return weights


def marginal(
    one: Likelihood, weights: Float[np.ndarray, "grid grid"], zero: Likelihood
) -> Float[np.ndarray, " samples"]:
    """The sum over the grid of a sample's two likelihoods times the weight."""
    return np.einsum("ng,ng->n", one @ weights, zero)


def likelihood(k: Counts, n: Counts) -> Likelihood:
    """p^k (1-p)^(n-k) at each p of the grid, relative to its largest there."""
    logs = xlogy(k[:, None], VALUES) + xlog1py((n - k)[:, None], -VALUES)
    return np.exp(logs - logs.max(axis=1, keepdims=True))
