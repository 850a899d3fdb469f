"""Whether leave-out trials in two precisions say the same: two folders of the same trials, compared in pairs.

    bat-dist memorize ... --precision bf16 --out A; bat-dist memorize ... --precision fp32 --out B
    python benchmarks/trial_precision.py A B

Each trial is in both folders, with the same samples, order and first weights.  If precision made no difference, which
of its two results is called A's would be a matter of chance.  So p is the share of 2,000 random exchanges within the
pairs after which A and B differ as much as they do.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore

FIELDS = ("mask", "train_correct", "test_correct")
Rows = Mapping[str, np.ndarray]


def rows_of(folders: Sequence[str]) -> Sequence[Rows]:
    """The finished trials that both folders have, as arrays [trials, samples]."""
    stores = [RowStore.existing(Folder(folder) / "trials") for folder in folders]
    assert all(stores), "each folder must be one of bat-dist memorize"
    both = np.logical_and.reduce([store.status().complete for store in stores if store])
    found = [{name: store.read(name, np.flatnonzero(both)) for name in FIELDS} for store in stores if store]
    assert np.array_equal(found[0]["mask"], found[1]["mask"]), "the trials have other samples: give both one --seed"
    return found


def mem(mask: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """The difference of means of each sample; NaN for one that is always in, or never."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (correct * mask).sum(0) / mask.sum(0) - (correct * ~mask).sum(0) / (~mask).sum(0)


def differences(a: Rows, b: Rows, exchanged: np.ndarray) -> dict[str, float]:
    """How far A and B are from each other if these trials change sides."""

    def sides(name: str) -> tuple[np.ndarray, np.ndarray]:
        first, second = a[name].astype(float), b[name].astype(float)
        return np.where(exchanged[:, None], second, first), np.where(exchanged[:, None], first, second)

    (first, second), (test, other) = sides("train_correct"), sides("test_correct")
    of_mem = mem(a["mask"], first) - mem(a["mask"], second)
    of_test = test.mean(0) - other.mean(0)
    return {
        "test accuracy": abs(float(of_test.mean())),
        "mean mem": abs(float(np.nanmean(of_mem))),
        "mem of each sample, root mean square": float(np.nanmean(of_mem**2)) ** 0.5,
        "accuracy on each test image, root mean square": float(np.mean(of_test**2)) ** 0.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs=2, help="of bat-dist memorize")
    a, b = rows_of(parser.parse_args().folders)
    count, rng = len(a["mask"]), np.random.default_rng(0)
    for name, rows in (("A", a), ("B", b)):
        accuracy = 100 * rows["test_correct"].mean(1)
        print(f"{name}: {count} trials, test accuracy {accuracy.mean():.2f}% (sd {accuracy.std(ddof=1):.2f})")
    observed = differences(a, b, np.zeros(count, bool))
    chance = [differences(a, b, rng.random(count) < 0.5) for _ in range(2000)]
    for name, value in observed.items():
        as_large = sum(one[name] >= value for one in chance)
        middle = np.median([one[name] for one in chance])
        print(
            f"difference of {name}: {value:.4f}, by chance {middle:.4f}, p = {(1 + as_large) / (1 + len(chance)):.3f}"
        )


if __name__ == "__main__":
    main()
