"""Influence of problems that do not fit into memory: what is found, what memory it takes, and what a kill costs.

    python benchmarks/influence_at_scale.py bounded [--num_train 200000] [--num_test 20000] [--num_trials 500]
    python benchmarks/influence_at_scale.py imagenet [--num_parts 3]

bounded: all pairs, from a store of made-up trials on disk, within --memory 500MB. One process computes all parts;
another is killed with SIGKILL after some, and a third goes on. Both must leave the same arrays, and for --num_checked
test samples all pairs, the top and the largest influence must be exactly those of the dense formula. The peak of
resident memory is that of the whole process above what it had after its imports (VmHWM less VmRSS).

imagenet: 1.28 million x 50,000 samples of 1,000 classes, 2,000 trials, which are drawn row by row and never kept. The
columns and all pairs of one class are computed for real; of all 64 thousand million pairs --num_parts parts, and the
rest is extrapolated from these.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bat_dist.artifacts.streamed_trials import read_trials
from bat_dist.jobs.influence import ALL, PartFiles
from bat_dist.memorization.columns import TrialColumns
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence_parts import (
    InfluencePart,
    Wanted,
    by_class,
    find_influences,
    num_pairs,
    parts_of,
    samples_at,
)
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, SetRule, sets_of
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.wording import bytes_of, of_bytes

THRESHOLD, TOP, MAX_PAIRS = 0.2, 10, 1_000_000
EFFECT = 0.6  # of the training sample on which a test sample hangs


class Problem:
    """Made-up trials, each drawn when it is asked for: test sample j hangs on one training sample of its class."""

    def __init__(self, num_trials: int, num_train: int, num_test: int, num_classes: int):
        self.num_trials, self.num_train, self.num_test = num_trials, num_train, num_test
        rng = np.random.default_rng(0)
        self.train_labels = rng.permutation(np.arange(num_train) % num_classes)
        self.test_labels = rng.permutation(np.arange(num_test) % num_classes)
        order, sizes = by_class(self.train_labels), np.bincount(self.train_labels)
        starts = np.cumsum(sizes) - sizes
        of = self.test_labels
        self.needed = order[starts[of] + rng.integers(0, sizes[of])]
        self.accuracy = rng.beta(8, 1, num_test).astype(np.float32)

    def mask(self, trial: int) -> np.ndarray:
        """Which training samples a trial keeps."""
        return np.random.default_rng([1, trial]).random(self.num_train, np.float32) < 0.7

    def test_correct(self, trial: int, mask: np.ndarray) -> np.ndarray:
        """Which test samples its network classifies right."""
        drawn = np.random.default_rng([2, trial]).random(self.num_test, np.float32)
        return drawn < self.accuracy - EFFECT * (~mask[self.needed] & (np.arange(self.num_test) % 4 == 0))

    def train_correct(self, trial: int, mask: np.ndarray) -> np.ndarray:
        """Which training samples; a third of those left out are wrong for one in five."""
        drawn = np.random.default_rng([3, trial]).random(self.num_train, np.float32)
        return mask | (drawn > np.where(np.arange(self.num_train) % 3, 0.05, 0.4))


def memory_now(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def wanted_of(rule: SetRule, *, same_class: bool) -> Wanted:
    """What is kept, of all pairs or of those of one class."""
    return Wanted(THRESHOLD, same_class, MAX_PAIRS, TOP, rule.tested, rule.within_class)


# --- bounded: in a process of its own


def write_store(problem: Problem, place: Path) -> None:
    """The trials as `bat-dist memorize` keeps them."""
    of_train = Field("bool", (problem.num_train,))
    fields = {"mask": of_train, "train_correct": of_train, "test_correct": Field("bool", (problem.num_test,))}
    fields["metrics"] = Field("float64", (2,))
    store = RowStore.open(Folder(place), fields=fields, identity={}, num_rows=problem.num_trials)
    for trial in range(problem.num_trials):
        mask = problem.mask(trial)
        row = {"mask": mask, "train_correct": problem.train_correct(trial, mask), "metrics": np.zeros(2)}
        store.write(trial, {**row, "test_correct": problem.test_correct(trial, mask)})


def compute(problem: Problem, store_place: Path, out: Path, memory: int) -> dict[str, float]:
    """What a driver does alone: trials by columns, memorization, the missing parts, the sets; and what it took."""
    start, begun = memory_now("VmRSS"), time.perf_counter()
    store = RowStore.existing(Folder(store_place))
    assert store is not None
    labels, rule = (problem.train_labels, problem.test_labels), SetRule()
    trials = read_trials(store, *labels, memory=memory)
    assert isinstance(trials.mask, TrialColumns)
    mem = estimate_memorization(trials.mask, trials.train_correct).mem
    read = time.perf_counter()
    wanted = wanted_of(rule, same_class=False)
    parts = parts_of(problem.num_trials, *labels, same_class=False)
    files = PartFiles(Folder(out), "benchmark", len(parts))
    missing = np.flatnonzero(~files.status().complete).tolist()
    orders = tuple(map(by_class, labels))
    for number in missing:
        train, test = (samples_at(order, places) for order, places in zip(orders, parts[number], strict=True))
        matrices = trials.mask[:, train], trials.test_correct[:, test]
        of_part = labels[0][train], labels[1][test], (mem > ATYPICAL_THRESHOLD)[train]
        found = find_influences(wanted, *matrices, *of_part, block_bytes=memory // 8)
        files.write(number, found.arrays())
        print(f"part {number} of {len(parts)}", file=sys.stderr, flush=True)
    done = files.gather(wanted, parts, *labels)
    sets_of(rule, done.largest, mem, trials.mask, trials.test_correct, *labels)
    return {
        "parts": len(missing),
        "reading_seconds": read - begun,
        "seconds": time.perf_counter() - read,
        "start_bytes": start,
        "peak_bytes": memory_now("VmHWM") - start,
        "pairs_found": done.pairs.num_found,
    }


def bounded(args: argparse.Namespace, problem: Problem, place: Path) -> None:
    """Undisturbed, killed and resumed; equal, within the bound, and as the dense formula has it."""
    write_store(problem, place / "store")
    print(f"store written: {of_bytes(sum(f.stat().st_size for f in (place / 'store').rglob('*') if f.is_file()))}")

    def child(out: str) -> list[str]:
        size = [f"--{name}={getattr(args, name)}" for name in ("num_train", "num_test", "num_trials", "num_classes")]
        return [
            sys.executable,
            __file__,
            "compute",
            *size,
            f"--memory={args.memory}",
            f"--place={place}",
            f"--out={out}",
        ]

    took = [measured(child("undisturbed"))]
    with subprocess.Popen(child("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        while len(list((place / "killed").glob("part-*.npz"))) < max(1, int(took[0]["parts"]) // 3):
            if driver.poll() is not None:
                raise SystemExit("it ended before it could be killed: take smaller parts")
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
    took.append(measured(child("killed")))
    one, other = (Folder(place / name).read_npz(ALL) for name in ("undisturbed", "killed"))
    for name, values in one.items():
        np.testing.assert_array_equal(other[name], values, err_msg=name)
    check_against_dense(problem, one, args.num_checked)
    for name, what in zip(("undisturbed", "resumed"), took, strict=True):
        print(f"{name}: {json.dumps(what)}")
    peak = max(what["peak_bytes"] for what in took)
    held = "held" if peak <= bytes_of(args.memory) else "BROKEN"
    print(f"peak {of_bytes(peak)} above the start; the bound is {args.memory}: {held}")


def measured(command: list[str]) -> dict[str, float]:
    """What a process of `compute` says of itself."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def dense_columns(problem: Problem, tests: np.ndarray) -> Iterator[np.ndarray]:
    """Eq. 2 as one would write it, with whole arrays: [some training samples, tests], one after another."""
    masks = np.array([problem.mask(trial) for trial in range(problem.num_trials)])
    correct = np.array([problem.test_correct(t, mask)[tests] for t, mask in enumerate(masks)])
    for start in range(0, problem.num_train, 10_000):
        part = masks[:, start : start + 10_000].astype(np.float64)
        inside, outside = part.T @ correct, (1 - part).T @ correct
        yield (inside.T / part.sum(axis=0) - outside.T / (1 - part).sum(axis=0)).T


def check_against_dense(problem: Problem, found: dict[str, np.ndarray], num_checked: int) -> None:
    """All that is kept of some test samples, against all training samples, exactly."""
    tests = np.sort(np.random.default_rng(5).choice(problem.num_test, num_checked, replace=False))
    influence = np.concatenate(list(dense_columns(problem, tests)))
    floor = found["influence"][-1] if found["num_found"] > MAX_PAIRS else THRESHOLD
    num_pairs_checked = 0
    for column, test in enumerate(tests):
        order = np.lexsort((np.arange(problem.num_train), -influence[:, column]))
        np.testing.assert_array_equal(found["top_train_index"][test], order[:TOP])
        np.testing.assert_array_equal(found["top_influence"][test], influence[order[:TOP], column])
        own = found["test_index"] == test
        sure = order[influence[order, column] > floor]
        np.testing.assert_array_equal(found["train_index"][own][: len(sure)], sure)
        np.testing.assert_array_equal(found["influence"][own][: len(sure)], influence[sure, column])
        num_pairs_checked += len(sure)
    compared = f"{len(tests)} test samples x {problem.num_train:,} training samples"
    print(f"equal to the dense formula: {compared}, {num_pairs_checked:,} pairs above {floor:g}")


# --- imagenet


def imagenet(problem: Problem, num_parts: int, memory: int) -> None:
    """Columns and the pairs of one class for real, some parts of all pairs, and the rest extrapolated."""
    start, begun = memory_now("VmRSS"), time.perf_counter()
    labels, rule = (problem.train_labels, problem.test_labels), SetRule()

    def masks(first: int, stop: int) -> np.ndarray:
        return np.array([problem.mask(trial) for trial in range(first, stop)])

    def tests(first: int, stop: int) -> np.ndarray:
        return np.array([problem.test_correct(trial, problem.mask(trial)) for trial in range(first, stop)])

    shapes = (problem.num_trials, problem.num_train), (problem.num_trials, problem.num_test)
    mask, test_correct = (
        TrialColumns(read, shape, np.dtype(bool), order=by_class(of), group_bytes=memory // 4)
        for read, shape, of in zip((masks, tests), shapes, labels, strict=True)
    )
    print(f"drawn and turned into columns in {time.perf_counter() - begun:.0f} s, {report(start)}", flush=True)
    atypical = np.random.default_rng(6).random(problem.num_train) < 0.3
    begun = time.perf_counter()
    options = {"block_bytes": min(2**27, memory // 8)}
    found = find_influences(wanted_of(rule, same_class=True), mask, test_correct, *labels, atypical, **options)
    pairs = num_pairs(*labels, same_class=True)
    print(f"{pairs:,} pairs of one class: {time.perf_counter() - begun:.0f} s, {report(start)}", flush=True)
    hits = np.isin(problem.needed[::4], found.pairs.train_index)
    print(f"  {found.pairs.num_found:,} pairs above {THRESHOLD}; {hits.mean():.1%} of the planted ones are among them")
    wanted = wanted_of(rule, same_class=False)
    parts = parts_of(problem.num_trials, *labels, same_class=False)
    seconds = []
    for part in chosen_parts(parts, num_parts):
        begun = time.perf_counter()
        train, test = (samples_at(by_class(of), places) for of, places in zip(labels, part, strict=True))
        of_part = labels[0][train], labels[1][test], atypical[train]
        find_influences(wanted, mask[:, train], test_correct[:, test], *of_part, **options)
        seconds.append(time.perf_counter() - begun)
    everything = np.mean(seconds) * len(parts)
    print(
        f"all {len(labels[0]) * len(labels[1]):,} pairs, EXTRAPOLATED from {len(seconds)} of {len(parts):,} parts of "
        f"{min(seconds):.0f} to {max(seconds):.0f} s each: {everything / 3600:.1f} h of one worker, {report(start)}"
    )


def chosen_parts(parts: list[InfluencePart], number: int) -> list[InfluencePart]:
    """Some parts, spread over all."""
    return [parts[place] for place in np.linspace(0, len(parts) - 2, number).astype(int)]


def report(start: int) -> str:
    """The peak of resident memory so far, above what it was at the start."""
    return f"peak {of_bytes(memory_now('VmHWM') - start)} above the start"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bounded", "imagenet", "compute"))
    for name in ("num_train", "num_test", "num_trials", "num_classes"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--num_checked", type=int, default=32)
    parser.add_argument("--num_parts", type=int, default=3)
    parser.add_argument("--memory", default="500MB")
    parser.add_argument("--place", type=Path, help="of compute, which `bounded` calls")
    parser.add_argument("--out")
    args = parser.parse_args()
    usual = {"num_train": 200_000, "num_test": 20_000, "num_trials": 500, "num_classes": 100}
    if args.what == "imagenet":
        usual = {"num_train": 1_280_000, "num_test": 50_000, "num_trials": 2000, "num_classes": 1000}
    for name, value in usual.items():
        setattr(args, name, getattr(args, name) or value)
    problem = Problem(args.num_trials, args.num_train, args.num_test, args.num_classes)
    if args.what == "compute":
        print(json.dumps(compute(problem, args.place / "store", args.place / args.out, bytes_of(args.memory))))
        return
    print(f"{args.num_trials:,} trials x {args.num_train:,} x {args.num_test:,}, load {os.getloadavg()[0]:.1f}")
    if args.what == "imagenet":
        imagenet(problem, args.num_parts, bytes_of(args.memory))
        return
    with tempfile.TemporaryDirectory() as place:
        bounded(args, problem, Path(place))


if __name__ == "__main__":
    main()
