"""Memorization and influence from trials: ours, by blocks, against the dense formula in float32."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import influential_pairs
from bat_dist.memorization.influence_blocks import influence_matrix
from bat_dist.memorization.subsets import masks
from benchmarks.measurement import Context, Quantities, Sides

THRESHOLD = 0.15
SLICE = 40  # training samples on which both are compared


def trials(num_trials: int, num_train: int, num_test: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random masks, and correctness of training and test samples, of trials that have no signal."""
    rng = np.random.default_rng(0)
    mask = np.array(list(masks("balanced", num_train, 0.7, 0, range(num_trials))), dtype=bool)
    correct = [rng.random((num_trials, count)) < rng.beta(4, 1, count) for count in (num_train, num_test)]
    return mask, correct[0], correct[1]


def dense(mask: np.ndarray, train_correct: np.ndarray, test_correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Memorization [train] and influence [train, test] as Feldman & Zhang's formulas are written with numpy in float32.

    Means over the trials with a sample and over those without it, by products with the masks (arXiv:2008.03703, Eq. 1
    and 2).
    """
    kept, left = mask.astype(np.float32), (~mask).astype(np.float32)
    seen, asked = train_correct.astype(np.float32), test_correct.astype(np.float32)
    num_kept, num_left = kept.sum(axis=0), left.sum(axis=0)
    mem = (seen * kept).sum(axis=0) / num_kept - (seen * left).sum(axis=0) / num_left
    influence = kept.T @ asked / num_kept[:, None] - left.T @ asked / num_left[:, None]
    return mem, influence


@contextmanager
def influence(context: Context) -> Iterator[Sides]:
    """All pairs.

    peak: GB (10^9 bytes) of this process's memory, inputs included.  wrong: the largest error in a slice.
    """
    size = context.pick((1000, 50_000, 10_000), (200, 5000, 1000), (30, 200, 100))
    mask, train_correct, test_correct = trials(*size)

    def ours(number: int) -> Quantities:
        reset_peak()
        start = time.perf_counter()
        estimate_memorization(mask, train_correct)
        influential_pairs(mask, test_correct, threshold=THRESHOLD, same_class=False)
        seconds, peak = time.perf_counter() - start, peak_bytes() / 1e9
        few = mask[:, :SLICE]
        exact = influence_matrix(few, test_correct)
        expected = [test_correct[kept].mean(axis=0) - test_correct[~kept].mean(axis=0) for kept in few.T]
        return {"seconds": seconds, "peak": peak, "wrong": float(np.abs(exact - np.array(expected)).max())}

    def theirs(number: int) -> Quantities:
        reset_peak()
        _, found = dense(mask, train_correct, test_correct)
        (np.abs(found) > THRESHOLD).nonzero()
        return {"peak": peak_bytes() / 1e9}

    yield {"ours": ours, "dense": theirs}


def reset_peak() -> None:
    """Forget this process's peak of memory, where Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The largest memory that this process had since `reset_peak`."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])
