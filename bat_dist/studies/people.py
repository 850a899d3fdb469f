"""Labels that people gave to training samples, and whether they differ where the poisoning score is high (App. B.3)."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy import stats

from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.results.statistics import LEVEL
from bat_dist.storage.files import split_location
from bat_dist.studies.agreement import cohen_kappa
from bat_dist.studies.poisoning import PoisoningSamples
from bat_dist.wording import nearest

NO_LABEL = -1
# CIFAR-N (Wei et al. 2022, Learning with noisy labels revisited) has these beside the labels of single people.
DERIVED = ("clean_label", "aggre_label", "worse_label", "clean_coarse_label", "noisy_coarse_label")
LEAST_KAPPA = 0.5  # half of the way from chance to full agreement
FEWEST = 4  # images a set: of 3 and 3 no difference is significant at 5%, whatever they are
RESAMPLES = 9999

HumanLabels = Int64[np.ndarray, "samples labels"]
Shares = Float[np.ndarray, " images"]


class MeanDifference(NamedTuple):
    """A difference of two means, its 95% bootstrap interval, and the p-value of a permutation test (two tails)."""

    difference: float
    low: float
    high: float
    p_value: float


class MeanShare(NamedTuple):
    """The mean of shares over n images; the bounds of a 95% t interval within [0, 1], NaN for fewer than 4 images."""

    share: float
    low: float
    high: float
    n: int


def read_human_labels(location: str, dataset: Dataset) -> HumanLabels:
    """The labels that people gave to each training sample; -1 where a sample has fewer than others.

    location: a .csv with the header `index,label` and any number of rows for an index; label: a class by number or
    name. Or a .npz with integer arrays [all samples] or [all samples, labels], of which CIFAR-N's derived ones
    (DERIVED) are left out; -1 is no label. Indices are those of `sample_numbers`.
    Raises UserError if the file cannot be read so, or if its labels do not agree with those of the data: it is then
    of another order, or of other classes.
    """
    folder, name = split_location(location)
    numbers = sample_numbers(dataset.train.ids)
    if name.lower().endswith(".csv"):
        try:
            text = folder.read(name).decode("utf-8-sig")
        except FileNotFoundError:
            raise UserError(f"{location} does not exist") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{location} cannot be read as csv: {error}") from None
        found = _of_rows(location, text, numbers, dataset.class_names)
    elif name.lower().endswith(".npz"):
        found = _of_arrays(location, folder.read_npz(name), numbers)
    else:
        raise UserError(f"{location} must be a .csv or a .npz")
    _check_order(location, found, dataset.train.labels)
    return found


def sample_numbers(ids: Sequence[str] | np.ndarray) -> Int64[np.ndarray, " samples"]:
    """The number of each training sample in its dataset's own order, whatever part of it is here.

    It is the id (`17`) or the name of the file (`frog/00017.jpg`), if these are whole numbers and differ; otherwise
    the place among the training samples.
    """
    stems = [str(one).rpartition("/")[2].partition(".")[0] for one in ids]
    if all(stem.isdecimal() for stem in stems):
        numbers = np.array([int(stem) for stem in stems], np.int64)
        if len(np.unique(numbers)) == len(numbers):
            return numbers
    return np.arange(len(stems))


def share_of(labels: HumanLabels, classes: Int64[np.ndarray, " samples"]) -> Shares:
    """The share of a sample's labels that name this class, for each sample; NaN without labels."""
    given = (labels != NO_LABEL).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return ((labels == classes[:, None]) & (labels != NO_LABEL)).sum(axis=1) / given


def label_counts(labels: HumanLabels, samples: PoisoningSamples) -> dict[str, Int64[np.ndarray, " samples"]]:
    """How many of each sample's labels are y1, y2, or another class, as columns of a table."""
    given, y1, y2 = (
        (labels != NO_LABEL).sum(axis=1),
        (labels == samples.y1[:, None]).sum(axis=1),
        (labels == samples.y2[:, None]).sum(axis=1),
    )
    return {"labels_y1": y1, "labels_y2": y2, "labels_other": given - y1 - y2}


def mean_of_images(shares: Shares) -> MeanShare:
    """The mean of the shares that are known, with an interval for other images."""
    known = shares[~np.isnan(shares)]
    if not len(known):
        return MeanShare(float("nan"), float("nan"), float("nan"), 0)
    mean = float(known.mean())
    if len(known) < FEWEST:
        return MeanShare(mean, float("nan"), float("nan"), len(known))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(known) - 1) * stats.sem(known))
    return MeanShare(mean, max(0.0, mean - reach), min(1.0, mean + reach), len(known))


def mean_difference(first: Shares, second: Shares) -> MeanDifference:
    """The mean of the first minus that of the second, images being the unit; NaN are left out.

    Interval and p-value are NaN where a set has fewer than 4 images, the difference where it has none.
    """
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if not len(first) or not len(second):
        return MeanDifference(*[float("nan")] * 4)
    difference = float(first.mean() - second.mean())
    if min(len(first), len(second)) < FEWEST:
        return MeanDifference(difference, *[float("nan")] * 3)
    rng = np.random.default_rng(0)
    drawn = [
        one[rng.integers(len(one), size=(RESAMPLES, len(one)))].mean(axis=1, dtype=np.float64)
        for one in (first, second)
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn[0] - drawn[1], [tail, 1 - tail])
    test = stats.permutation_test(
        (first, second),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        vectorized=True,
        n_resamples=RESAMPLES,
        random_state=rng,  # pyright: ignore[reportCallIssue]  scipy before 1.15 does not know it as rng
    )
    return MeanDifference(difference, float(low), float(high), float(test.pvalue))


def _of_rows(location: str, text: str, numbers: Int64[np.ndarray, " samples"], names: Sequence[str]) -> HumanLabels:
    rows = csv.DictReader(io.StringIO(text))
    if not {"index", "label"} <= set(rows.fieldnames or ()):
        raise UserError(f"{location} must begin with the header index,label, got {','.join(rows.fieldnames or ())!r}")
    place = {int(number): at for at, number in enumerate(numbers)}
    classes = {name: number for number, name in enumerate(names)}
    found: list[list[int]] = [[] for _ in numbers]
    for row in rows:
        index, label = (row["index"] or "").strip(), (row["label"] or "").strip()
        if not index.isdecimal():
            raise UserError(
                f"{location}, line {rows.line_num}: an index must be a whole number from 0 on, got {index!r}"
            )
        if label not in classes and not label.isdecimal():
            raise UserError(
                f"{location}, line {rows.line_num}: a label must be a class of the data, by name or number, got "
                f"{label!r}{nearest(label, names)} (give one that is not in the data by a number)"
            )
        if int(index) in place:
            found[place[int(index)]].append(classes[label] if label in classes else int(label))
    width = max(map(len, found), default=0)
    return np.array([one + [NO_LABEL] * (width - len(one)) for one in found], np.int64).reshape(len(found), width)


def _of_arrays(location: str, arrays: Mapping[str, np.ndarray], numbers: Int64[np.ndarray, " samples"]) -> HumanLabels:
    arrays = {name: values for name, values in arrays.items() if name not in DERIVED}
    if not arrays:
        raise UserError(f"{location} holds no array of labels")
    for name, values in arrays.items():
        if not np.issubdtype(values.dtype, np.integer) or values.ndim not in (1, 2):
            raise UserError(
                f"{location}: {name} must be whole numbers, [samples] or [samples, labels], got {values.dtype} "
                f"{list(values.shape)}"
            )
        whole = len(numbers) == numbers.max() + 1
        if len(values) <= numbers.max() or (whole and len(values) != len(numbers)):
            raise UserError(
                f"{location}: {name} has labels of {len(values):,} samples, and the data go up to number "
                f"{numbers.max():,}: it must have one row for each training sample of the whole dataset, in its order"
            )
        if values.min(initial=0) < NO_LABEL:
            raise UserError(f"{location}: {name} holds {values.min()}: a label is a class from 0 on, or -1 for none")
    columns = [values.reshape(len(values), -1)[numbers].astype(np.int64) for values in arrays.values()]
    return np.concatenate(columns, axis=1)


def _check_order(location: str, found: HumanLabels, labels: Int64[np.ndarray, " samples"]) -> None:
    """Raise UserError unless what most people say is what the data say, far more often than by chance."""
    with_any = (found != NO_LABEL).any(axis=1)
    if not with_any.any():
        raise UserError(f"{location} has no label for any of the {len(labels):,} training samples")
    found, labels = found[with_any], labels[with_any]
    votes = np.stack([(found == column[:, None]).sum(axis=1) for column in found.T], axis=1)
    votes = np.where(found == NO_LABEL, 0, votes)
    agree = (found == labels[:, None]).sum(axis=1) >= votes.max(axis=1)
    majority = np.where(agree, labels, found[np.arange(len(found)), votes.argmax(axis=1)])
    if cohen_kappa(majority, labels) < LEAST_KAPPA:
        raise UserError(
            f"{location}: what most people say is the given label for only {agree.mean():.0%} of {len(labels):,} "
            "samples: the labels are in another order than the data, or of other classes"
        )
