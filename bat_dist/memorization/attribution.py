"""Data attribution: TRAK's self-influence, and how well an attribution predicts trials (the LDS).

Park, Georgiev, Ilyas, Leclerc and Madry (2023), TRAK: attributing model behavior at scale, arXiv:2303.14186.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bat_dist.memorization.influence import influence_blocks

SMALLEST = 1e-3  # probabilities are kept this far from 0 and 1 in margins: float16 has few digits there
_BLOCK_VALUES = 2**22

Mask = Bool[np.ndarray, "trials train"]
OfTrials = Float[np.ndarray, "trials test"]


class TrakFeatures(NamedTuple):
    """What TRAK knows of the networks of an ensemble, by member; projected gradients have `dim` entries.

    features: Phi (Phi^T Phi)^-1, with the projected gradients Phi of the training samples' margins. test_gradients:
    those of the test samples. out_to_loss: 1 - p, p being the probability of a training sample's own class (Q in the
    paper).
    """

    features: Float[np.ndarray, "members train dim"]
    test_gradients: Float[np.ndarray, "members test dim"]
    out_to_loss: Float[np.ndarray, "members train"]


class MeanScore(NamedTuple):
    """A mean over test samples with the bounds of its 95% interval; `number` of them were defined."""

    mean: float
    low: float
    high: float
    number: int


def self_influence(
    leverage: Float[np.ndarray, "members train"], out_to_loss: Float[np.ndarray, "members train"]
) -> Float[np.ndarray, " train"]:
    """TRAK's score of each training sample for itself (Eq. 16 of Park et al., with test sample = training sample).

    The mean over members of the leverage phi_i^T (Phi^T Phi)^-1 phi_i, times the mean of 1 - p_i.  High = atypical.
    """
    return leverage.mean(axis=0, dtype=np.float64) * out_to_loss.mean(axis=0, dtype=np.float64)


def trak_matrix(found: TrakFeatures) -> Float[np.ndarray, "train test"]:
    """TRAK's score of each training sample for each test sample, where the matrix fits in memory."""
    products = [one @ other.T for one, other in zip(found.features, found.test_gradients, strict=True)]
    return np.mean(products, axis=0) * found.out_to_loss.mean(axis=0)[:, None]


def trak_predictions(mask: Mask, found: TrakFeatures) -> OfTrials:
    """The sum of TRAK's scores over the training samples of each trial, for each test sample.

    `mask @ trak_matrix(found)` without that matrix: memory grows by trials * dim instead of train * test.
    """
    weights = mask * found.out_to_loss.mean(axis=0, dtype=np.float32)
    return np.mean(
        [(weights @ one) @ other.T for one, other in zip(found.features, found.test_gradients, strict=True)], axis=0
    )


def influence_predictions(
    mask: Mask, estimated_mask: Mask, test_correct: Bool[np.ndarray, "estimated test"]
) -> OfTrials:
    """The sum of Feldman and Zhang's influences (Eq. 2) over the training samples of each trial of `mask`.

    The influences are estimated from other trials: `estimated_mask` and `test_correct`.  Training samples whose
    influence is undefined count as 0.
    """
    predicted = np.zeros((len(mask), test_correct.shape[1]))
    for block in influence_blocks(estimated_mask, test_correct, same_class=False):
        predicted[:, block.test_index] += mask[:, block.train_index].astype(np.float64) @ block.influence
    return predicted


def margins(probability: Float[np.ndarray, "trials test"]) -> OfTrials:
    """log p / (1 - p) of the own class's probability, the outcome that Park et al. predict."""
    p = probability.astype(np.float64).clip(SMALLEST, 1 - SMALLEST)
    return np.log(p / (1 - p))


def linear_datamodeling_scores(predicted: OfTrials, outcome: OfTrials) -> Float[np.ndarray, " test"]:
    """The LDS of each test sample: Spearman's correlation, over trials, of what was predicted with what happened.

    Definition 2.3 of Park et al. (2023), with the store's trials as the random subsets.  NaN where the prediction or
    the outcome is the same in all trials.  Raises ValueError for different shapes or fewer than two trials.
    """
    if predicted.shape != outcome.shape or predicted.ndim != 2 or len(predicted) < 2:
        raise ValueError(f"predictions and outcomes must be [trials, test], got {predicted.shape} and {outcome.shape}")
    from scipy.stats import rankdata  # half a second to import, which workers do without

    step, middle, found = max(1, _BLOCK_VALUES // len(predicted)), (len(predicted) + 1) / 2, []
    for start in range(0, predicted.shape[1], step):
        one, other = (rankdata(v[:, start : start + step], axis=0) - middle for v in (predicted, outcome))
        spread = np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
        with np.errstate(invalid="ignore"):
            found.append((one * other).sum(axis=0) / spread)
    return np.concatenate(found)


def mean_over_samples(scores: Float[np.ndarray, " test"]) -> MeanScore:
    """The mean of the defined scores, with Student's t interval for other test samples but the same trials."""
    from scipy.stats import t

    defined = scores[~np.isnan(scores)]
    if len(defined) < 2:
        return MeanScore(float(defined.mean()) if len(defined) else np.nan, np.nan, np.nan, len(defined))
    reach = float(t.ppf(0.975, len(defined) - 1) * defined.std(ddof=1) / np.sqrt(len(defined)))
    mean = float(defined.mean())
    return MeanScore(mean, mean - reach, mean + reach, len(defined))
