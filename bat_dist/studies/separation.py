"""How well classes stay apart in the features of the penultimate layer (App. B.2 iii), by three measures.

The paper says "discrimination between classes" and gives no measure; these are ours.  All are of Euclidean distances
and do not change if all features are multiplied by one number, so that networks can be compared.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist, pdist

MOST_SILHOUETTES = 2000  # samples, since it compares all pairs
FOLDS, RIDGE = 5, 1.0

Features = Float[np.ndarray, "samples features"]
Labels = Int[np.ndarray, " samples"]


def distance_ratio(features: Features, labels: Labels) -> float:
    """The mean distance between two class centroids over the mean distance of a sample to the centroid of its class.

    NaN for fewer than two classes, and where all samples lie on their centroids.
    """
    classes, number = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return np.nan
    x = features.astype(float)
    centroids = np.array([x[number == one].mean(axis=0) for one in range(len(classes))])
    within = np.linalg.norm(x - centroids[number], axis=1).mean()
    return float(pdist(centroids).mean() / within) if within > 0 else np.nan


def silhouette(features: Features, labels: Labels, *, most: int = MOST_SILHOUETTES, seed: int = 0) -> float:
    """The mean silhouette (Rousseeuw 1987), in [-1, 1]; of `most` samples, drawn by `seed`, if there are more.

    Of a sample: (b - a) / max(a, b), with its mean distance a to the others of its class and b to those of the nearest
    other class; 0 if it is alone in its class. NaN for fewer than two classes.
    """
    if len(labels) > most:
        drawn = np.sort(np.random.default_rng(seed).choice(len(labels), most, replace=False))
        features, labels = features[drawn], labels[drawn]
    classes, number, size = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        return np.nan
    x, rows = features.astype(float), np.arange(len(labels))
    total = cdist(x, x) @ np.eye(len(classes))[number]  # of each sample to each class
    with np.errstate(invalid="ignore"):
        own = total[rows, number] / (size[number] - 1)
        to_others = total / size
        to_others[rows, number] = np.inf
        nearest = to_others.min(axis=1)
        values = (nearest - own) / np.maximum(own, nearest)
    return float(np.where(size[number] > 1, np.nan_to_num(values), 0.0).mean())


def probe_accuracy(features: Features, labels: Labels, *, seed: int = 0) -> float:
    """The accuracy of a linear probe on samples that it was not fitted to, in 5 folds drawn by `seed`.

    The probe is a ridge classifier (penalty 1) on features of mean 0 and variance 1, with a target of 0 or 1 for each
    class, in closed form. NaN for fewer than two classes or fewer samples than folds.
    """
    classes, number = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or len(labels) < FOLDS:
        return np.nan
    x, folds = features.astype(float), stratified_folds(number, seed=seed)
    right = np.zeros(len(labels), bool)
    for fold in range(FOLDS):
        held = folds == fold
        right[held] = _ridge_predictions(x[~held], number[~held], x[held], len(classes)) == number[held]
    return float(right.mean())


MEASURES: Mapping[str, Callable[[Features, Labels], float]] = {
    "distance_ratio": distance_ratio,
    "silhouette": silhouette,
    "linear_probe": probe_accuracy,
}


def stratified_folds(labels: Labels, *, seed: int) -> Int[np.ndarray, " samples"]:
    """The fold of each sample, from 0 to 4: drawn by `seed`, the samples of a class spread over all of them."""
    order = np.random.default_rng(seed).permutation(len(labels))
    folds = np.empty(len(labels), np.int64)
    folds[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    return folds


def principal_plane(features: Features) -> tuple[Float[np.ndarray, "samples 2"], Float[np.ndarray, "2"]]:
    """The features in the plane of their first two principal components, and the share of the variance in each.

    Of each component the largest loading is positive.  Raises ValueError for fewer than two features or samples.
    """
    if min(features.shape) < 2:
        raise ValueError(f"a plane needs two samples and two features, got shape {features.shape}")
    centered = features.astype(float) - features.mean(axis=0, dtype=float)
    _, scales, axes = np.linalg.svd(centered, full_matrices=False)
    plane = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    variance = scales**2
    return centered @ plane.T, variance[:2] / variance.sum() if variance.sum() > 0 else np.full(2, np.nan)


def _ridge_predictions(x: Features, number: Labels, asked: Features, num_classes: int) -> Labels:
    """The classes of the samples `asked`, by a ridge classifier that is fitted to x."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation == 0] = 1.0
    x, asked = (x - mean) / deviation, (asked - mean) / deviation
    targets = np.eye(num_classes)[number]
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (targets - targets.mean(axis=0)))
    return (asked @ weights + targets.mean(axis=0)).argmax(axis=1)
