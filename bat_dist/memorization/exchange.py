"""The npz file in which Feldman & Zhang publish memorization and influence, and which public scripts read.

Keys: `tr_mem`, `tr_labels`, `tt_labels`; for every class K `tr_classidx_K` and `tt_classidx_K`
(ascending indices of the class in both splits) and `infl_matrix_classK` (train x test within the class).
The file carries no fingerprint: its order is held against a dataset through the labels.
"""

import zipfile
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float, Int

from bat_dist.memorization.columns import TrialColumns
from bat_dist.memorization.estimate import check_trials
from bat_dist.memorization.influence import InfluencePairs
from bat_dist.memorization.influence_blocks import check_labels, influence_matrix

File = str | Path | BinaryIO
Labels = Int[np.ndarray, " samples"]
# The file holds an influence for every pair of a class, 200 MB for CIFAR-10; a larger one is not written.
MAX_BYTES = 1 << 30
_KEYS = "tr_mem, tr_labels, tt_labels, and tr_classidx_K, tt_classidx_K, infl_matrix_classK per class K"


@dataclass(frozen=True)
class FeldmanZhang:
    """Scores in the dataset's order; `influence[K]` is [train, test] within class K, both ascending."""

    mem: Float[np.ndarray, " train"]
    train_labels: Int[np.ndarray, " train"]
    test_labels: Int[np.ndarray, " test"]
    influence: dict[int, Float[np.ndarray, "train test"]]

    @property
    def classes(self) -> list[int]:
        """Labels that occur in either split, ascending."""
        return np.union1d(self.train_labels, self.test_labels).tolist()

    def train_index(self, label: int) -> Int[np.ndarray, " train"]:
        """Training samples of a class, ascending: the rows of its influence matrix."""
        return np.flatnonzero(self.train_labels == label)

    def test_index(self, label: int) -> Int[np.ndarray, " test"]:
        """Test samples of a class, ascending: the columns of its influence matrix."""
        return np.flatnonzero(self.test_labels == label)

    def pairs_above(self, threshold: float) -> InfluencePairs:
        """Pairs whose influence is above the threshold, largest first; their standard errors are unknown, NaN.

        -inf gives all pairs whose influence is defined.
        """
        columns = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        for label, matrix in self.influence.items():
            train, test = np.nonzero(matrix > threshold)
            columns.append((self.train_index(label)[train], self.test_index(label)[test], matrix[train, test]))
        train, test, influence = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.lexsort((test, train, -influence))
        return InfluencePairs(train[order], test[order], influence[order], np.full(len(order), np.nan), len(order))


def feldman_zhang(
    mem: Float[np.ndarray, " train"],
    mask: Bool[np.ndarray, "trials train"] | TrialColumns,
    test_correct: Bool[np.ndarray, "trials test"] | TrialColumns,
    train_labels: Int[np.ndarray, " train"],
    test_labels: Int[np.ndarray, " test"],
) -> FeldmanZhang:
    """The content of such a file from our trials: memorization, and the influence within each class (float32)."""
    check_trials(mask, test_correct=test_correct)
    check_labels(mask, test_correct, train_labels, test_labels)
    if mem.shape != mask.shape[1:]:
        raise ValueError(f"mem must have shape {mask.shape[1:]}, got {mem.shape}")
    scores = FeldmanZhang(mem, train_labels, test_labels, {})
    for label in scores.classes:
        train, test = np.flatnonzero(train_labels == label), np.flatnonzero(test_labels == label)
        scores.influence[label] = influence_matrix(mask[:, train], test_correct[:, test]).astype(np.float32)
    return scores


def save_feldman_zhang(file: File, scores: FeldmanZhang) -> None:
    """Write the npz. Undefined values stay NaN, where the published code makes one up."""
    arrays: dict[str, Any] = {
        "tr_mem": scores.mem,
        "tr_labels": scores.train_labels,
        "tt_labels": scores.test_labels,
    }
    for label in scores.classes:
        arrays[f"tr_classidx_{label}"] = scores.train_index(label)
        arrays[f"tt_classidx_{label}"] = scores.test_index(label)
        arrays[f"infl_matrix_class{label}"] = scores.influence[label]
    np.savez(file, **arrays)


def load_feldman_zhang(
    file: File,
    *,
    train_labels: Int[np.ndarray, " train"] | None = None,
    test_labels: Int[np.ndarray, " test"] | None = None,
    allow_undefined: bool = False,
) -> FeldmanZhang:
    """Read and check the npz; ValueError if it is damaged, or not of the dataset whose labels are given.

    `allow_undefined` accepts NaN, which files of ours hold for samples that were never in or never out.
    """
    arrays = _read(file)
    train = _labels(arrays, "tr_labels", train_labels)
    test = _labels(arrays, "tt_labels", test_labels)
    found = FeldmanZhang(_scores(arrays, "tr_mem", (len(train),), allow_undefined), train, test, {})
    for label in found.classes:
        rows, columns = found.train_index(label), found.test_index(label)
        _check_index(arrays, f"tr_classidx_{label}", rows)
        _check_index(arrays, f"tt_classidx_{label}", columns)
        shape = (len(rows), len(columns))
        found.influence[label] = _scores(arrays, f"infl_matrix_class{label}", shape, allow_undefined)
    return found


def _read(file: File) -> dict[str, np.ndarray]:
    try:
        with Path(file).open("rb") if isinstance(file, str | Path) else nullcontext(file) as opened:
            loaded = np.load(opened, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an npz of several")
            ours = ("tr_mem", "tr_labels", "tt_labels", "tr_classidx_", "tt_classidx_", "infl_matrix_")
            return {key: loaded[key] for key in loaded.files if key.startswith(ours)}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        name = file if isinstance(file, str | Path) else "the file"
        raise ValueError(f"{name} is not an npz of plain arrays: {error}") from error


def _get(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        raise ValueError(f"key {key} is missing: a Feldman-Zhang file holds {_KEYS}")
    return arrays[key]


def _labels(arrays: dict[str, np.ndarray], key: str, expected: Labels | None) -> Labels:
    """The labels of a split; ValueError if they are none, or not those expected of the dataset."""
    labels = _get(arrays, key)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0:
        raise ValueError(f"{key} must be whole numbers, one per sample, got {labels.dtype} of shape {labels.shape}")
    if expected is not None and labels.shape != np.shape(expected):
        raise ValueError(f"{key} has {len(labels)} samples, the dataset {len(expected)}: the file is of another set")
    if expected is not None and len(wrong := np.flatnonzero(labels != expected)):
        raise ValueError(
            f"{key} differs from the dataset's labels at {len(wrong)} of {len(labels)} samples, first at "
            f"{wrong[0]}: the file is of another set, or in another order"
        )
    return labels.astype(np.int64)


def _scores(arrays: dict[str, np.ndarray], key: str, shape: tuple[int, ...], allow_undefined: bool) -> np.ndarray:
    values = _get(arrays, key)
    if values.shape != shape or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{key} must be floating point of shape {shape}, got {values.dtype} of shape {values.shape}")
    undefined = int(np.isnan(values).sum())
    if undefined and not allow_undefined:
        raise ValueError(f"{key} has {undefined} undefined values (NaN): allow_undefined=True takes them as they are")
    if undefined < values.size and np.nanmax(np.abs(values)) > 1 + 1e-6:
        raise ValueError(f"{key} must be in [-1, 1], got values from {np.nanmin(values)} to {np.nanmax(values)}")
    return values


def _check_index(arrays: dict[str, np.ndarray], key: str, expected: Int[np.ndarray, " samples"]) -> None:
    found = _get(arrays, key)
    if np.array_equal(found, expected):
        return
    if np.array_equal(np.sort(found, axis=None), expected):
        raise ValueError(f"{key} is not sorted: its rows or columns would be taken for other samples'")
    raise ValueError(f"{key} must be the {len(expected)} samples with that label, got {found.size} other indices")
