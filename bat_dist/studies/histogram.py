"""How many training samples are atypical (Sec. 2.1, Fig. 6), and the paper's numbers for whole data sets."""

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD
from bat_dist.results.claims import CLAIMS, Finding
from bat_dist.results.statistics import LEVEL

NUM_TRAIN = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 25_000}
"""Training samples of the data that the paper has a number for; of Tiny ImageNet these are its first 50 classes."""


def share_atypical(mem: Float[np.ndarray, " train"], dataset: str, note: str) -> Finding:
    """The share of the samples with a defined value that are atypical, with Wilson's interval over samples.

    A part of a data set has more atypical samples than all of it, since each has fewer that are like it: the paper's
    number is compared with whole data sets only. note: data and trials.
    """
    defined = mem[~np.isnan(mem)]
    count, claim = int(np.count_nonzero(defined > ATYPICAL_THRESHOLD)), f"share_atypical_{dataset}"
    if claim not in CLAIMS or len(mem) != NUM_TRAIN[dataset]:
        claim = "share_atypical"
    if not len(defined):
        return Finding(claim, np.nan, np.nan, np.nan, f"{note}, no value is defined")
    low, high = binomtest(count, len(defined)).proportion_ci(LEVEL, "wilson")
    return Finding(claim, count / len(defined), low, high, f"{note}, Wilson interval over samples")
