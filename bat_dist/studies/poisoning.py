"""App. B.3: poisoning scores (Eq. 6) of the atypical samples under networks that were trained without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt8

Softmax = Float[np.ndarray, "samples classes"]
Labels = Int64[np.ndarray, " samples"]
HIGH, LOW, NEITHER = "high", "low", "neither"


@dataclass(frozen=True)
class PoisoningSamples:
    """The atypical training samples, the highest mean score first.

    index: place in the training split. y1: the given label; y2: the wrong class that is most probable on the clean
    image, the mean over seeds. scores: Eq. 6 for each seed. of: `high`, `low` or `neither`.
    """

    index: Int64[np.ndarray, " samples"]
    y1: Labels
    y2: Labels
    scores: Float[np.ndarray, "samples seeds"]
    of: Shaped[np.ndarray, " samples"]

    @property
    def q(self) -> Float[np.ndarray, " samples"]:
        """The poisoning score, the mean over seeds."""
        return self.scores.mean(axis=1)

    def members(self, of: Literal["high", "low"]) -> Bool[np.ndarray, " samples"]:
        """Which samples are of the high or of the low set."""
        return self.of == of


def poisoning_samples(outputs: Sequence[Mapping[str, np.ndarray]], labels: Labels, most: int) -> PoisoningSamples:
    """Rank the atypical samples by their scores, and take the `most` highest and lowest.

    outputs: for each seed `train_index` [samples], and `train_clean` and `train_attacked` [samples, classes], softmax
    outputs. labels: of the whole training split. Where there are fewer than 2 * `most` samples, the upper and the
    lower half are taken; equal scores stand in the order of the data.
    Raises ValueError for fewer than two samples or classes, and if the seeds do not tell of the same samples.
    """
    index = outputs[0]["train_index"]
    if any(not np.array_equal(one["train_index"], index) for one in outputs):
        raise ValueError("the networks of different seeds were asked about different samples")
    if len(index) < 2:
        raise ValueError(f"two atypical samples are needed, one of high and one of low score, got {len(index)}")
    y1 = labels[index]
    scores = np.stack([poisoning_score(one["train_attacked"], y1) for one in outputs], axis=1).astype(np.float64)
    y2 = likeliest_other(np.mean([one["train_clean"] for one in outputs], axis=0), y1)
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    each = min(most, len(order) // 2)
    of = np.full(len(order), NEITHER, dtype="<U7")
    of[:each], of[len(order) - each :] = HIGH, LOW
    return PoisoningSamples(index[order], y1[order], y2[order], scores[order], of)


def poisoning_score(probs: Softmax, labels: Labels) -> Float[np.ndarray, " samples"]:
    """q(x) = max over t != y of F_t(x), of softmax outputs on adversarial images (Eq. 6)."""
    return _others(probs, labels).max(axis=1)


def likeliest_other(probs: Softmax, labels: Labels) -> Labels:
    """y2 = argmax over t != y1 of F_t(x) (App. B.3); of equal ones the first."""
    return _others(probs, labels).argmax(axis=1)


def nearest_typical(
    image: UInt8[np.ndarray, "height width 3"], images: UInt8[np.ndarray, "samples height width 3"]
) -> int:
    """The place of the image at the smallest Euclidean distance of pixels; of equal ones the first."""
    difference = images.astype(np.float64) - image
    return int(np.argmin((difference**2).sum(axis=(1, 2, 3))))


def _others(probs: Softmax, labels: Labels) -> Softmax:
    if probs.shape[1] < 2:
        raise ValueError(f"a poisoning score is of a wrong class: two classes are needed, got {probs.shape[1]}")
    others = probs.copy()
    others[np.arange(len(labels)), labels] = -1
    return others
