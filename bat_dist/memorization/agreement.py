"""Cheaper scores from an ensemble of models, and their alignment with memorization (Appendix A.1).

The scores are those of Carlini, Erlingsson and Papernot (2019), Distribution density, tails, and outliers in
machine learning: metrics and applications.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import rel_entr

_BLOCK_VALUES = 2**18
_SUM_TOLERANCE = 1e-2  # softmax in half precision


@dataclass(frozen=True)
class Alignment:
    """Agreement of a score with memorization. Undefined (a constant, an empty class) is NaN.

    `spearman_interval` is a bootstrap percentile interval over samples; `auroc` is that of the score for
    mem > atypical_threshold; `num_samples` were compared and `num_dropped` were not, a value being NaN.
    """

    spearman: float
    spearman_interval: tuple[float, float]
    auroc: float
    num_samples: int
    num_atypical: int
    num_dropped: int


def ensemble_disagreement(
    probs: Float[np.ndarray, "models samples classes"],
) -> Float[np.ndarray, " samples"]:
    """ed(x) = (1/m^2) sum_j sum_p JS(F_j(x), F_p(x)), natural logarithm, j = p included. High = atypical.

    The disagreement of Appendix A.1, between 0 and log 2. In float64, samples in blocks; by relative entropies to the
    midpoint, which stay accurate where models nearly agree.
    """
    _check_probs(probs)
    num_models, num_samples, num_classes = probs.shape
    step = max(1, _BLOCK_VALUES // (num_models * num_classes))
    starts = range(0, num_samples, step)
    return np.concatenate([_disagreement(probs[:, start : start + step]) for start in starts])


def ensemble_confidence(
    probs: Float[np.ndarray, "models samples classes"], labels: Int[np.ndarray, " samples"] | None = None
) -> Float[np.ndarray, " samples"]:
    """Mean over models of the largest probability, or of that of the class `labels` (Appendix A.1). Low = atypical."""
    _check_probs(probs)
    if labels is None:
        return probs.max(axis=2).mean(axis=0, dtype=np.float64)
    num_samples, num_classes = probs.shape[1:]
    if np.shape(labels) != (num_samples,) or np.min(labels) < 0 or np.max(labels) >= num_classes:
        raise ValueError(
            f"labels must be {num_samples} classes from 0 to {num_classes - 1}, got shape {np.shape(labels)}"
        )
    return probs[:, np.arange(num_samples), labels].mean(axis=0, dtype=np.float64)


def alignment(
    score: Float[np.ndarray, " samples"],
    mem: Float[np.ndarray, " samples"],
    *,
    atypical_threshold: float = 0.15,
    num_bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Alignment:
    """How well `score` stands in for memorization; higher = more atypical, so negate a confidence."""
    if np.ndim(score) != 1 or np.shape(score) != np.shape(mem):
        raise ValueError(f"score and mem must have one value per sample, got shapes {np.shape(score)}, {np.shape(mem)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    defined = ~(np.isnan(score) | np.isnan(mem))
    score, mem = score[defined], mem[defined]
    atypical = mem > atypical_threshold
    spearman, interval = spearman_with_interval(score, mem, num_bootstrap, seed, level)
    num_dropped = int(np.count_nonzero(~defined))
    return Alignment(spearman, interval, auroc(score, atypical), len(mem), int(atypical.sum()), num_dropped)


def auroc(score: Float[np.ndarray, " samples"], positive: Bool[np.ndarray, " samples"]) -> float:
    """Probability that a positive sample scores higher, ties counting half; NaN if a class is empty.

    From the sum of the positives' ranks, as Mann and Whitney's U (1947).
    """
    num_positive = int(np.count_nonzero(positive))
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    from scipy.stats import rankdata  # half a second to import, which workers do without

    rank_sum = rankdata(score)[positive].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def _check_probs(probs: Float[np.ndarray, "models samples classes"]) -> None:
    if probs.ndim != 3 or 0 in probs.shape:
        raise ValueError(f"probs must be [models, samples, classes], got shape {probs.shape}")
    if not (probs.min() >= 0 and np.abs(probs.sum(axis=2, dtype=np.float64) - 1).max() <= _SUM_TOLERANCE):
        raise ValueError("probs must be at least 0 and sum to 1 over the classes: give softmax outputs, not logits")


def _disagreement(probs: Float[np.ndarray, "models samples classes"]) -> Float[np.ndarray, " samples"]:
    probs = probs.astype(np.float64)
    probs /= probs.sum(axis=2, keepdims=True)
    total = np.zeros(probs.shape[1])
    for j in range(1, len(probs)):
        others = probs[:j]
        middle = (others + probs[j]) / 2
        divergence = (rel_entr(others, middle) + rel_entr(probs[j], middle)).sum(axis=2) / 2
        total += 2 * divergence.sum(axis=0)  # JS(F_j, F_p) = JS(F_p, F_j)
    return np.maximum(total, 0) / len(probs) ** 2


def spearman_with_interval(
    score: Float[np.ndarray, " samples"],
    mem: Float[np.ndarray, " samples"],
    num_bootstrap: int,
    seed: int,
    level: float,
) -> tuple[float, tuple[float, float]]:
    """Spearman's correlation and its bootstrap percentile interval; NaN for fewer than two samples.

    Resampling is by how often each sample is drawn, so that nothing need be sorted again.
    """
    num_samples = len(score)
    if num_samples < 2:
        return float("nan"), (float("nan"), float("nan"))
    groups = [np.unique(values, return_inverse=True)[1] for values in (score, mem)]
    rng = np.random.default_rng(seed)
    draws = (
        np.bincount(rng.integers(num_samples, size=num_samples), minlength=num_samples) for _ in range(num_bootstrap)
    )
    resampled = np.array([_spearman(groups, times) for times in draws])
    resampled = resampled[~np.isnan(resampled)]
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]) if len(resampled) else (np.nan, np.nan)
    return _spearman(groups, np.ones(num_samples, dtype=np.int64)), (float(low), float(high))


def _spearman(groups: list[Int[np.ndarray, " samples"]], times: Int[np.ndarray, " samples"]) -> float:
    """Spearman's correlation if sample i occurs times[i] times; groups[v] orders variable v's values."""
    sizes = [np.bincount(group, weights=times) for group in groups]
    first, second = (  # rank, ties sharing their mean rank, minus the mean rank
        (np.cumsum(size) - size / 2)[group] - times.sum() / 2 for group, size in zip(groups, sizes, strict=True)
    )
    spread = np.sqrt((times * first**2).sum() * (times * second**2).sum())
    return float((times * first * second).sum() / spread) if spread > 0 else float("nan")
