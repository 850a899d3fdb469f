"""`explorer.html`: every sample of a run of `bat-dist memorize` to look for, with whom it influences; works offline.

A page is a few megabytes at most. Of data for which that is too little it holds the samples at both ends of the ranking
and those of the strongest influences, with pictures of the first of them, and says so.
"""

import json
from collections.abc import Mapping
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bat_dist.artifacts.scores import LeaveOutScores
from bat_dist.data.datasets import Dataset, Split
from bat_dist.figures.selection import extremes
from bat_dist.memorization.columns import count_by_sample
from bat_dist.memorization.estimate import predicted_left_out
from bat_dist.memorization.influence import InfluencePairs, influence_intervals
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TYPICAL_THRESHOLD
from bat_dist.reporting.page import page_template, thumbnail_uri
from bat_dist.reporting.summary import HALF

PAGE = "explorer.html"
MAX_SAMPLES, MAX_PICTURES = 5_500_000, 3_000_000  # bytes of the page for what is told of samples, and for pictures
MAX_PAIRS = 20_000  # of influence
PARTNERS = 8  # of a sample that are kept at least, the strongest first
_PER_SAMPLE = 80  # bytes, about, of a sample's numbers beside its id
_DIGITS = 4

Rows = Int[np.ndarray, " rows"]


class Shown(NamedTuple):
    """The samples of both splits that a page holds, ascending, and pictures of some of them by split and sample."""

    train: Rows
    test: Rows
    pictures: Mapping[tuple[str, int], str]


def explorer_page(
    dataset: Dataset,
    scores: LeaveOutScores,
    settings: Mapping[str, Any],
    *,
    max_samples: int = MAX_SAMPLES,
    max_pictures: int = MAX_PICTURES,
) -> str:
    """The page as text; names and ids are escaped.

    settings: of the run, `influence_threshold` and `influence_pairs`.
    max_samples, max_pictures: bytes that the page may take for what it says of samples, and for their pictures.
    """
    pairs = strongest_pairs(scores.pairs)
    shown = chosen_samples(dataset, scores, pairs, max_samples=max_samples, max_pictures=max_pictures)
    data = {
        "classes": [str(name) for name in dataset.class_names],
        "num_trials": len(scores.trials.numbers) if scores.trials else 0,
        "threshold": settings["influence_threshold"],
        "train": {**_names(dataset.train, shown.train), **_of_train(dataset, scores, shown.train)},
        "test": {**_names(dataset.test, shown.test), **_of_test(scores, shown.test)},
        "pairs": _of_pairs(scores, pairs, shown),
        "pictures": {
            split: {
                str(row): uri for row, sample in enumerate(rows) if (uri := shown.pictures.get((split, int(sample))))
            }
            for split, rows in (("train", shown.train), ("test", shown.test))
        },
    }
    return page_template("explorer.html.j2").render(
        title=f"Samples of {dataset.name}",
        data=data,
        megabytes=f"{len(json.dumps(data)) / 1e6 + 0.1:.1f}",  # and the page around it
        num_pictures=len(shown.pictures),
        sizes={"training": (len(shown.train), len(dataset.train)), "test": (len(shown.test), len(dataset.test))},
        num_pairs=(len(pairs.influence), scores.pairs.num_found),
        same_class=settings["influence_pairs"] == "same_class",
        atypical=ATYPICAL_THRESHOLD,
        typical=TYPICAL_THRESHOLD,
    )


def strongest_pairs(pairs: InfluencePairs, *, partners: int = PARTNERS, most: int = MAX_PAIRS) -> InfluencePairs:
    """Those, of pairs sorted by falling influence, that are among the `partners` strongest of either sample.

    most: no more than these are given, the strongest.
    """
    kept = (_rank(pairs.train_index) < partners) | (_rank(pairs.test_index) < partners)
    return pairs.take(np.flatnonzero(kept & np.isfinite(pairs.influence))[:most])


def _rank(index: Rows) -> Rows:
    """How often the value of each place came before it."""
    order = np.argsort(index, kind="stable")
    _, first, inverse = np.unique(index[order], return_index=True, return_inverse=True)
    rank = np.empty(len(index), np.int64)
    rank[order] = np.arange(len(index)) - first[inverse]
    return rank


def chosen_samples(
    dataset: Dataset, scores: LeaveOutScores, pairs: InfluencePairs, *, max_samples: int, max_pictures: int
) -> Shown:
    """What fits: in turns the most and the least memorized and pairs of the strongest influence, then all others."""
    mem, splits = scores.memorization.mem, {"train": dataset.train, "test": dataset.test}
    top, bottom = extremes(mem, len(mem), scores.memorization.accuracy_out, dataset.train.labels)
    queues = [("train", top), ("train", bottom), ("train", pairs.train_index), ("test", pairs.test_index)]
    turns = zip_longest(*([(split, sample) for sample in these.tolist()] for split, these in queues))
    others = ((split, sample) for split, of in splits.items() for sample in range(len(of)))
    order = dict.fromkeys(chain((one for turn in turns for one in turn if one), others))
    sizes = {split: _PER_SAMPLE + len(json.dumps(of.ids.tolist())) / len(of) for split, of in splits.items()}
    both = sum(sizes[split] * len(of) for split, of in splits.items())
    share = min(1.0, max_samples / both)
    kept = {}
    for split, of in splits.items():
        samples = islice((sample for own, sample in order if own == split), int(share * len(of)))
        kept[split] = np.sort(np.fromiter(samples, np.int64))
    pictures: dict[tuple[str, int], str] = {}
    there = {split: set(rows.tolist()) for split, rows in kept.items()}
    for split, sample in order:
        if sample in there[split]:
            uri = thumbnail_uri(splits[split].images[sample])
            max_pictures -= len(uri)
            if max_pictures < 0:
                break
            pictures[split, sample] = uri
    return Shown(kept["train"], kept["test"], pictures)


def _names(split: Split, rows: Rows) -> dict[str, list[Any]]:
    return {
        "sample": rows.tolist(),
        "id": [str(name) for name in split.ids[rows]],
        "label": split.labels[rows].tolist(),
    }


def _of_train(dataset: Dataset, scores: LeaveOutScores, rows: Rows) -> dict[str, list[Any]]:
    """Memorization and what it is made of.  kind: 0 typical, 1 between, 2 atypical, 3 undefined."""
    found, trials = scores.memorization, scores.trials
    low, high = found.interval()
    kind = 1 - (found.mem < TYPICAL_THRESHOLD) + (found.mem > ATYPICAL_THRESHOLD) + 2 * np.isnan(found.mem)
    columns: dict[str, list[Any]] = {
        "kind": kind[rows].tolist(),
        **{name: _rounded(of[rows]) for name, of in {"mem": found.mem, "low": low, "high": high}.items()},
    }
    if trials:
        columns |= {"n_in": found.n_in[rows].tolist(), "n_out": found.n_out[rows].tolist()}
        columns |= {
            "accuracy_in": _rounded(found.accuracy_in[rows]),
            "accuracy_out": _rounded(found.accuracy_out[rows]),
        }
    if trials and trials.train_predicted is not None:
        predicted, share = predicted_left_out(trials.mask, trials.train_predicted, len(dataset.class_names))
        doubted = (predicted != dataset.train.labels) & (share >= HALF)
        columns |= {
            "taken": predicted[rows].tolist(),
            "share": _rounded(share[rows]),
            "doubted": (doubted[rows] * 1).tolist(),
        }
    return columns


def _of_test(scores: LeaveOutScores, rows: Rows) -> dict[str, list[Any]]:
    """Accuracy over all networks.  kind: 0 typical, 1 neither, 2 atypical."""
    columns: dict[str, list[Any]] = {}
    if trials := scores.trials:
        columns["accuracy"] = _rounded(count_by_sample(trials.test_correct)[rows] / len(trials.numbers))
    if scores.sets:
        columns["kind"] = (1 - scores.sets.test_typical[rows] * 1 + scores.sets.test_atypical[rows]).tolist()
    return columns


def _of_pairs(scores: LeaveOutScores, pairs: InfluencePairs, shown: Shown) -> dict[str, list[Any]]:
    """Pairs of two samples that the page holds, by their rows there."""
    pairs = pairs.take(np.flatnonzero(np.isin(pairs.train_index, shown.train) & np.isin(pairs.test_index, shown.test)))
    low = high = np.full(len(pairs.influence), np.nan)
    if trials := scores.trials:
        low, high = influence_intervals(trials.mask, trials.test_correct, pairs.train_index, pairs.test_index)
    return {
        "train": np.searchsorted(shown.train, pairs.train_index).tolist(),
        "test": np.searchsorted(shown.test, pairs.test_index).tolist(),
        "influence": _rounded(pairs.influence),
        "low": _rounded(low),
        "high": _rounded(high),
    }


def _rounded(values: Float[np.ndarray, " values"]) -> list[float | None]:
    """For JSON, which has null for NaN."""
    return [None if np.isnan(value) else value for value in np.round(values.astype(float), _DIGITS).tolist()]
