"""Influence of all training on all test samples: time and memory, against plain numpy sample by sample.

    python benchmarks/influence.py [--num_trials 1000] [--num_train 50000] [--num_test 10000]

Random trials of that size, all pairs (no restriction to classes), standard errors for all pairs over the
threshold. The plain reference is timed on a slice of the training samples and scaled up; on that slice both
must agree exactly.
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy

from bat_dist.memorization.influence import influential_pairs, max_influence
from bat_dist.memorization.influence_blocks import influence_matrix
from bat_dist.memorization.subsets import masks


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    name = models[0] if models else platform.processor()
    return f"{name}, {cores} cores, load {load:.1f} | {versions}, {blas['name']} {blas['version']}"


def peak_gib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(work: Callable) -> tuple[object, float, float]:
    """(result, seconds on the clock, seconds of processor time)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def seconds(wall: float, cpu: float) -> str:
    return f"{wall:.1f} s ({cpu:.1f} s of processor time)"


def plain_numpy(mask: np.ndarray, test_correct: np.ndarray) -> np.ndarray:
    """Eq. 2 as one would write it: for each training sample, means over two selections of trials."""
    return np.array(
        [test_correct[kept].mean(axis=0) - test_correct[~kept].mean(axis=0) for kept in np.ascontiguousarray(mask.T)]
    )


def trials(num_trials: int, num_train: int, num_test: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.empty((num_trials, num_train), dtype=bool)
    for row, drawn in zip(mask, masks("balanced", num_train, 0.7, 0, range(num_trials)), strict=True):
        row[:] = drawn
    accuracy = rng.beta(4, 1, num_test)
    test_correct = np.empty((num_trials, num_test), dtype=bool)
    for row in test_correct:
        row[:] = rng.random(num_test) < accuracy
    return mask, test_correct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("num_trials", 1000),
        ("num_train", 50_000),
        ("num_test", 10_000),
        ("num_plain", 40),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threshold", type=float, default=0.15)
    args = parser.parse_args()

    print(machine())
    (mask, test_correct), wall, _ = timed(lambda: trials(args.num_trials, args.num_train, args.num_test))
    size = f"{args.num_trials} trials x {args.num_train} train x {args.num_test} test"
    print(f"{size}: drawn in {wall:.1f} s, peak {peak_gib():.2f} GiB")

    options = {"same_class": False}
    found, fast, cpu = timed(lambda: influential_pairs(mask, test_correct, threshold=args.threshold, **options))
    print(f"influential_pairs, all pairs: {seconds(fast, cpu)}, peak {peak_gib():.2f} GiB with inputs;")
    print(f"  {found.num_found} of {args.num_train * args.num_test} pairs over {args.threshold:g}")
    thresholds = (0.15, 0.02)
    _, wall, cpu = timed(lambda: max_influence(mask, test_correct, thresholds=thresholds, **options))
    print(f"max_influence with significance: {seconds(wall, cpu)}, peak {peak_gib():.2f} GiB with inputs")

    part = mask[:, : args.num_plain]
    expected, wall, _ = timed(lambda: plain_numpy(part, test_correct))
    np.testing.assert_array_equal(influence_matrix(part, test_correct), expected)
    slow = wall / part.shape[1] * args.num_train
    print(
        f"plain numpy, no standard errors: {wall:.2f} s for {part.shape[1]} training samples, equal values; "
        f"scaled up to {args.num_train}: {slow:.0f} s, {slow / fast:.0f} times as long as influential_pairs"
    )


if __name__ == "__main__":
    main()
