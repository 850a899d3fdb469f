"""What chance alone does to sets that are cut at a threshold on influence (ours, not the paper's)."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

from bat_dist.wording import counted


@dataclass(frozen=True)
class Noise:
    """What is noise for each test sample: the standard error of an influence that is truly 0, and its number of pairs.

    `se_largest` is that standard error at accuracy 1/2, where it is largest.
    """

    num_trials: int
    se: Float[np.ndarray, " test"]
    num_pairs: Int[np.ndarray, " test"]
    se_largest: float

    @classmethod
    def of(
        cls,
        trials: int,
        n_in: Int[np.ndarray, " train"],
        num_correct: Int[np.ndarray, " test"],
        labels: tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]] | None,
    ) -> "Noise":
        """The noise of all pairs of the given samples or, with the labels of both sides, those of one class.

        n_in: the number of trials with each training sample; num_correct: of those that are correct on each test
        sample.
        """
        defined = (n_in > 0) & (n_in < trials)
        inverse = float(np.mean(1 / n_in[defined] + 1 / (trials - n_in[defined]))) if defined.any() else 1.0
        accuracy = (num_correct + 1) / (trials + 2)
        num_pairs = np.full(len(num_correct), len(n_in))
        if labels is not None:
            of_class = Counter(labels[0].tolist())
            num_pairs = np.array([of_class[label] for label in labels[1].tolist()], dtype=np.int64)
        return cls(trials, np.sqrt(accuracy * (1 - accuracy) * inverse), num_pairs, float(np.sqrt(inverse / 4)))

    def expected_excesses(
        self, threshold: float, z: float = 0.0, among: Bool[np.ndarray, " test"] | slice = slice(None)
    ) -> float:
        """Expected number of test samples with an estimate over threshold + z*se if all influence is 0 (ours).

        Then the subsets are independent of the answers, and the estimates for the pairs of one test sample nearly
        independent of each other; each is taken as normal: sum_j 1 - (1 - P(over))^pairs_j.
        """
        over = ndtr(-(threshold / self.se[among] + z))
        return float(-np.expm1(self.num_pairs[among] * np.log1p(-over)).sum())


def noise_notes(
    noise: Noise, accurate: Bool[np.ndarray, " test"], thresholds: tuple[float, float], z: float | None
) -> list[str]:
    """Warnings on sets cut at (atypical, typical) thresholds; `z` None: by the estimates alone."""
    if not noise.num_pairs.any():
        return []
    notes = _chance_notes(noise, accurate, thresholds, z or 0.0)
    if notes and z is None:
        notes.append("noise: rule='significant' or more trials make the sets depend less on chance")
    return notes if z is None else notes + _power_notes(noise, accurate, thresholds, z)


def _chance_notes(
    noise: Noise, accurate: Bool[np.ndarray, " test"], thresholds: tuple[float, float], z: float
) -> list[str]:
    """How many test samples change sides by chance alone, where that is more than one in a hundred."""
    everyone = np.ones(len(accurate), dtype=bool)
    notes = []
    for threshold, among, fate in (
        (thresholds[1], accurate, "accurate test samples leave the typical set"),
        (thresholds[0], everyone, "test samples enter the atypical set"),
    ):
        expected, size = noise.expected_excesses(threshold, z, among), int(among.sum())
        if size and expected >= 0.01 * size:
            notes.append(
                f"noise: at {counted(noise.num_trials, 'trial')} the standard error of an influence is about "
                f"{np.median(noise.se[among]):.3f}; at threshold {threshold:g}, even with no influence at "
                f"all, about {expected:.0f} of {size} {fate} by chance"
            )
    return notes


def _power_notes(
    noise: Noise, accurate: Bool[np.ndarray, " test"], thresholds: tuple[float, float], z: float
) -> list[str]:
    """The influence that is significant half of the time, where that is large."""
    atypical, typical = thresholds
    start = f"few trials: at {counted(noise.num_trials, 'trial')} "
    seen_atypical = atypical + z * noise.se_largest
    seen_typical = typical + z * np.median(noise.se[accurate]) if accurate.any() else 0.0
    notes = []
    if seen_typical > atypical:
        keep = ("to keep a sample out of", "keeps a sample out of")
        notes.append(start + _must_reach(float(seen_typical), keep, "the test typical set"))
    if seen_atypical > 2 * atypical:
        put = ("to put a sample into", "puts a sample into")
        notes.append(start + _must_reach(seen_atypical, put, "the test atypical set, where accuracy is near 1/2"))
    return notes


def _must_reach(influence: float, deed: tuple[str, str], what: str) -> str:
    """An influence is a difference of two accuracies: there is none above 1."""
    if influence > 1:
        return (
            f"not even an influence of 1, the largest possible, can be told from noise, so hardly any {deed[1]} {what}"
        )
    return f"an influence must reach about {influence:.2f} {deed[0]} {what}"
