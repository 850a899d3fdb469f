"""Score files of a result folder: memorization, influence, typical sets, ensemble scores."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Float16, Int, Int64, UInt16

from bat_dist.errors import UserError
from bat_dist.memorization.agreement import Alignment
from bat_dist.memorization.columns import TrialColumns, correct_by_trial, count_by_trial
from bat_dist.memorization.estimate import Memorization, predicted_left_out
from bat_dist.memorization.influence import InfluencePairs, TopInfluence
from bat_dist.memorization.sequential import decided
from bat_dist.memorization.stopping import OrderedTrials
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TypicalSets
from bat_dist.storage.files import Folder, split_location
from bat_dist.storage.rows import RowStore

if TYPE_CHECKING:
    from bat_dist.data.datasets import Dataset

TRIALS, ENSEMBLE = "trials", "ensemble"  # folders of the stores
MEMORIZATION, INFLUENCE, ENSEMBLE_SCORES = "memorization.npz", "influence.npz", "ensemble_scores.npz"
INFLUENCE_TOP, FELDMAN_ZHANG = "influence_top.npz", "feldman_zhang.npz"
MEMORIZATION_TABLE, SCORES_TABLE = "memorization.csv", "scores.parquet"


@dataclass(frozen=True)
class Trials:
    """The complete rows of a trial store, in order of their numbers.

    Matrices of a large store are columns of a scratch file (`streamed_trials`), from which `matrix[:, samples]` reads.
    """

    numbers: np.ndarray
    mask: Bool[np.ndarray, "trials train"] | TrialColumns
    train_correct: Bool[np.ndarray, "trials train"] | TrialColumns
    test_correct: Bool[np.ndarray, "trials test"] | TrialColumns
    metrics: Float[np.ndarray, "trials 2"]  # final loss, seconds
    train_predicted: UInt16[np.ndarray, "trials train"] | TrialColumns | None = None  # not in stores of first releases
    # Of each sample's own class, in stores of `--keep probability` alone.
    train_probability: Float16[np.ndarray, "trials train"] | None = None
    test_probability: Float16[np.ndarray, "trials test"] | None = None

    @classmethod
    def read(cls, store: RowStore, numbers: Int64[np.ndarray, " trials"] | None = None) -> "Trials":
        """Read the trials of a store with these numbers, by default all complete ones.  Raises UserError if none is."""
        numbers = np.flatnonzero(store.status().complete) if numbers is None else numbers
        if not len(numbers):
            raise UserError(f"{store.folder} has no complete trials: run bat-dist memorize first")
        names = ("mask", "train_correct", "test_correct", "metrics", "train_predicted")
        names += ("train_probability", "test_probability")
        return cls(numbers, **{name: store.read(name, numbers) for name in names if name in store.fields})

    @property
    def accuracy_in(self) -> Float[np.ndarray, " trials"]:
        """Accuracy of each trial's model on the samples it was trained on."""
        return self._correct[0] / self._num_in

    @property
    def accuracy_out(self) -> Float[np.ndarray, " trials"]:
        """Accuracy of each trial's model on the training samples left out."""
        return self._correct[1] / (self.mask.shape[1] - self._num_in)

    @cached_property
    def test_accuracy(self) -> Float[np.ndarray, " trials"]:
        """Accuracy of each trial's model on the test split."""
        return count_by_trial(self.test_correct) / self.test_correct.shape[1]

    @cached_property
    def _num_in(self) -> Int[np.ndarray, " trials"]:
        return count_by_trial(self.mask)

    @cached_property
    def _correct(self) -> tuple[Int[np.ndarray, " trials"], Int[np.ndarray, " trials"]]:
        return correct_by_trial(self.mask, self.train_correct)


@dataclass(frozen=True)
class SampleNames:
    """Labels and ids of both splits and the fingerprint: what every score file carries to name its samples."""

    train_labels: np.ndarray
    test_labels: np.ndarray
    train_ids: np.ndarray
    test_ids: np.ndarray
    fingerprint: np.ndarray

    @classmethod
    def of(cls, dataset: "Dataset") -> "SampleNames":
        """The names of a dataset's samples."""
        train, test = dataset.train, dataset.test
        return cls(train.labels, test.labels, train.ids, test.ids, np.array(dataset.fingerprint))


@dataclass(frozen=True)
class LeaveOutScores:
    """What leave-out trials say about the samples; an imported file has neither trials nor test sets.

    enough: how their number was decided, if a rule did.
    """

    memorization: Memorization
    pairs: InfluencePairs
    trials: Trials | None = None
    sets: TypicalSets | None = None
    top: TopInfluence | None = None
    enough: OrderedTrials | None = None


@dataclass(frozen=True)
class EnsembleScores:
    """Cheaper scores of every training sample by name, higher = more atypical; agreement with `mem`, if known."""

    scores: dict[str, np.ndarray]
    mem: Float[np.ndarray, " train"] | None
    alignments: dict[str, Alignment]


def write_memorization(
    folder: Folder,
    names: SampleNames,
    memorization: Memorization,
    trials: Trials | None,
    enough: OrderedTrials | None = None,
) -> None:
    """Write `memorization.npz`; an imported score has no trials, and no counts, from which `mem_shrunk` follows.

    enough: how their number was decided, if a rule did; then intervals that hold at all times, and what they decide,
    are written too.
    """
    more = {}
    if trials is not None:
        shrunk, probability = memorization.posterior(ATYPICAL_THRESHOLD)
        more |= {
            "mem_shrunk": shrunk,
            "probability_atypical": probability,
            "trial": trials.numbers,
            "train_accuracy_in": trials.accuracy_in,
            "train_accuracy_out": trials.accuracy_out,
            "test_accuracy": trials.test_accuracy,
        }
    if enough is not None:
        anytime = enough.prefix.intervals()
        verdicts = decided(*anytime, enough.rule.sigma)
        more |= {"anytime_low": anytime[0], "anytime_high": anytime[1], "decided": verdicts}
    low, high = memorization.interval()
    folder.write_npz(
        MEMORIZATION,
        mem=memorization.mem,
        mem_se=memorization.mem_se,
        mem_low=low,
        mem_high=high,
        n_in=memorization.n_in,
        n_out=memorization.n_out,
        **asdict(names),
        **more,
    )


def write_memorization_tables(folder: Folder, dataset: "Dataset", scores: LeaveOutScores) -> None:
    """Write a line for each training sample, where unknown values are empty.

    `scores.parquet` is in the dataset's order, `memorization.csv` begins with the most memorized sample.
    """
    import pandas as pd  # here: others who read scores can do without it

    table = pd.DataFrame(_columns(dataset, scores))
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    folder.write(SCORES_TABLE, buffer.getvalue())
    table = table.sort_values("mem", ascending=False, kind="stable", na_position="last")
    folder.write(MEMORIZATION_TABLE, table.to_csv(index=False).encode())


def _columns(dataset: "Dataset", scores: LeaveOutScores) -> Mapping[str, np.ndarray]:
    """What is known of each training sample, in the dataset's order."""
    found, trials, train = scores.memorization, scores.trials, dataset.train
    low, high = found.interval()
    columns = {
        "sample": np.arange(len(train)),
        "id": train.ids,
        "label": train.labels,
        "class": np.array(dataset.class_names)[train.labels],
        "mem": found.mem,
        "mem_low": low,
        "mem_high": high,
    }
    if trials is not None:
        columns |= {name: getattr(found, name) for name in ("accuracy_in", "accuracy_out", "n_in", "n_out")}
    if trials is not None and trials.train_predicted is not None:
        names = np.array([*dataset.class_names, ""])  # the last for -1
        predicted, share = predicted_left_out(trials.mask, trials.train_predicted, len(dataset.class_names))
        columns |= {"predicted_left_out": names[predicted], "predicted_share": share}
    return columns


def write_influence(folder: Folder, pairs: InfluencePairs, fingerprint: str) -> None:
    """Write `influence.npz`: pairs above the threshold, largest first."""
    folder.write_npz(
        INFLUENCE,
        train_index=pairs.train_index,
        test_index=pairs.test_index,
        influence=pairs.influence,
        influence_se=pairs.influence_se,
        fingerprint=np.array(fingerprint),
    )


def write_influence_top(folder: Folder, top: TopInfluence, fingerprint: str) -> None:
    """Write `influence_top.npz`: for each test sample the training samples of the largest influence on it."""
    folder.write_npz(INFLUENCE_TOP, **vars(top), fingerprint=np.array(fingerprint))


def write_typicality(folder: Folder, sets: TypicalSets, fingerprint: str) -> None:
    """Write `typicality.npz`: the four sets, a bool for each sample."""
    arrays = {name: getattr(sets, name) for name in sets.sizes()}
    folder.write_npz("typicality.npz", **arrays, fingerprint=np.array(fingerprint))


def write_ensemble_scores(folder: Folder, names: SampleNames, scores: Mapping[str, np.ndarray]) -> None:
    """Write `ensemble_scores.npz`: one value per training sample for each score; higher is more atypical."""
    folder.write_npz(ENSEMBLE_SCORES, **scores, **asdict(names))


def read_memorization(folder: Folder, fingerprint: str) -> dict[str, np.ndarray]:
    """The arrays of `memorization.npz`.  Raises UserError if it is missing, damaged, or of other data."""
    return _arrays_of(fingerprint, folder, MEMORIZATION)


def read_ensemble_scores(folder: Folder, fingerprint: str) -> dict[str, np.ndarray]:
    """The arrays of `ensemble_scores.npz`.  Raises UserError if it is missing, damaged, or of other data."""
    return _arrays_of(fingerprint, folder, ENSEMBLE_SCORES)


def read_influence(folder: Folder, fingerprint: str) -> InfluencePairs:
    """The pairs of `influence.npz`.  Raises UserError if it is missing, damaged, or of other data."""
    arrays = _arrays_of(fingerprint, folder, INFLUENCE)
    columns = {name: arrays[name] for name in ("train_index", "test_index", "influence", "influence_se")}
    return InfluencePairs(**columns, num_found=len(arrays["influence"]))


def read_all_influence(folder: Folder, fingerprint: str) -> InfluencePairs:
    """The pairs of `influence.npz` and, if it exists, of `influence_top.npz`.  Raises UserError as `read_influence`."""
    pairs = read_influence(folder, fingerprint)
    if not folder.exists(INFLUENCE_TOP):
        return pairs
    arrays = _arrays_of(fingerprint, folder, INFLUENCE_TOP)
    return pairs.with_top(TopInfluence(arrays["train_index"], arrays["influence"], arrays["influence_se"]))


def write_indices(folder: Folder, name: str, indices: Int64[np.ndarray, " chosen"], fingerprint: str) -> None:
    """Write which training samples a run of `bat-dist train --train_subset NAME` takes."""
    folder.write_npz(name, indices=np.sort(indices), fingerprint=np.array(fingerprint))


def read_indices(location: str, dataset: "Dataset") -> Int64[np.ndarray, " chosen"]:
    """Read `indices` of training samples from a .npz, in ascending order.

    Raises UserError if the file is missing or of other data, or if they are no positions in the training split.
    """
    folder, name = split_location(location)
    arrays = folder.read_npz(name)
    if "indices" not in arrays or str(arrays.get("fingerprint")) != dataset.fingerprint:
        raise UserError(f"{location} has no `indices` with the `fingerprint` of these data in this order")
    indices = arrays["indices"]
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"{location}: indices must be a list of whole numbers, got {indices.dtype} {indices.shape}")
    found = np.unique(indices).astype(np.int64)
    if len(found) < len(indices) or not len(found) or found[0] < 0 or found[-1] >= len(dataset.train):
        raise UserError(
            f"{location}: indices must be different positions from 0 to {len(dataset.train) - 1}, and one at least"
        )
    return found


def read_subsets(location: str, fingerprint: str, split: Literal["train", "test"]) -> dict[str, np.ndarray]:
    """Read which samples of a split are `typical` and which `atypical`, bool [samples], from a `typicality.npz`.

    Raises UserError if they are missing, or of other data.
    """
    folder, name = split_location(location)
    arrays = folder.read_npz(name)
    if str(arrays.get("fingerprint")) != fingerprint:
        raise UserError(f"{location} is no typicality.npz of these data, or of another order of them")
    try:
        return {name: arrays[f"{split}_{name}"] for name in ("typical", "atypical")}
    except KeyError:
        raise UserError(f"{location} has no typical sets of the {split} samples: take typicality.npz") from None


def _arrays_of(fingerprint: str, folder: Folder, name: str) -> dict[str, np.ndarray]:
    arrays = folder.read_npz(name)
    if str(arrays.get("fingerprint")) != fingerprint:
        raise UserError(f"{folder}/{name} was computed on other data than the one given, or on another order of it")
    return arrays
