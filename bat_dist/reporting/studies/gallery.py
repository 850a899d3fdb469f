"""The studies `gallery` (Fig. 5 and 7) and `histogram` (Fig. 6), from scores of training samples."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bat_dist.artifacts.scores import read_influence, read_memorization
from bat_dist.data.datasets import Split
from bat_dist.figures.charts import bin_edges, memorization_histogram
from bat_dist.figures.galleries import (
    MemorizedSamples,
    extremes_gallery,
    influence_pairs_gallery,
    memorization_gallery,
)
from bat_dist.figures.selection import distinct_pairs, extremes, near_targets, nearest_sample
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import InfluencePairs, influence_intervals
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD, TYPICAL_THRESHOLD
from bat_dist.results.claims import Finding
from bat_dist.storage.files import Folder
from bat_dist.studies.histogram import share_atypical
from bat_dist.studies.inputs import StudyInputs

PAIRS, MEM, HISTOGRAM = "influence_pairs_gallery.npz", "mem.npz", "histogram.csv"
TARGETS, COLUMNS, EXTREMES, NUM_PAIRS = (0.0, 0.5, 1.0), 8, 24, 8
GALLERIES: Mapping[str, Callable[[MemorizedSamples], Figure]] = {
    "memorization_gallery": lambda samples: memorization_gallery(samples, targets=TARGETS, num_columns=COLUMNS),
    "extremes_gallery": lambda samples: extremes_gallery(samples, k=EXTREMES),
}


def about_scores(inputs: StudyInputs) -> str:
    """`digits, 300 training samples, 240 trials`, for captions."""
    trials = _num_trials(inputs)
    where = f"{inputs.dataset.name}, {len(inputs.dataset.train):,} training samples"
    return f"{where}, {trials:,} trials" if trials else f"{where}, scores without trials"


def analyse_gallery(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Write the samples that each figure shows, one npz for each figure, with all that it says of them."""
    place, dataset = Folder(inputs.settings.score_place), inputs.dataset
    arrays, trials = read_memorization(place, dataset.fingerprint), inputs.trials()
    accuracy_out = estimate_memorization(trials.mask, trials.train_correct).accuracy_out if trials else None
    mem, low, high = (arrays[name] for name in ("mem", "mem_low", "mem_high"))
    samples = MemorizedSamples(dataset.train, dataset.class_names, mem, low, high, accuracy_out)
    labels = dataset.train.labels
    nearest = [] if np.isnan(mem).all() else [nearest_sample(mem, target) for target in TARGETS]
    for name, drawn in {
        "memorization_gallery": np.append(near_targets(mem, labels, TARGETS, COLUMNS, accuracy_out), nearest).astype(
            int
        ),
        "extremes_gallery": np.concatenate(extremes(samples.mem, EXTREMES, accuracy_out, labels)),
    }.items():
        folder.write_npz(f"{name}.npz", **_arrays(samples, np.unique(drawn[drawn >= 0])))
    pairs = read_influence(place, dataset.fingerprint).of(samples.mem > ATYPICAL_THRESHOLD)
    pairs = pairs.take(distinct_pairs(pairs.train_index, pairs.test_index, pairs.influence, NUM_PAIRS))
    bounds = {}
    if trials:
        low, high = influence_intervals(trials.mask, trials.test_correct, pairs.train_index, pairs.test_index)
        bounds = {"influence_low": low, "influence_high": high}
    train, train_index = np.unique(pairs.train_index, return_inverse=True)
    test, test_index = np.unique(pairs.test_index, return_inverse=True)
    folder.write_npz(
        PAIRS,
        **_arrays(samples, train),
        **{f"test_{name}": values[test] for name, values in vars(dataset.test).items()},
        train_index=train_index,
        test_index=test_index,
        influence=pairs.influence,
        influence_se=pairs.influence_se,
        **bounds,
        num_found=np.array(pairs.num_found),
    )
    return []


def draw_gallery(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """Fig. 5, the extremes, and Fig. 7."""
    figures = {name: draw(_samples(folder.read_npz(f"{name}.npz"))) for name, draw in GALLERIES.items()}
    arrays = folder.read_npz(PAIRS)
    test = Split(**{name: arrays[f"test_{name}"] for name in ("images", "labels", "ids")})
    columns = {name: arrays[name] for name in ("train_index", "test_index", "influence", "influence_se")}
    pairs = InfluencePairs(**columns, num_found=int(arrays["num_found"]))
    bounds = {name: arrays.get(f"influence_{name}") for name in ("low", "high")}
    drawn = influence_pairs_gallery(_samples(arrays), test, pairs, **bounds, k=NUM_PAIRS)
    return {**figures, "influence_pairs_gallery": drawn}


def analyse_histogram(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Write the memorization of all samples (`mem.npz`) and how many lie in each bin of 0.05 (`histogram.csv`)."""
    mem, num_trials = inputs.sets.mem, _num_trials(inputs)
    folder.write_npz(MEM, mem=mem, num_trials=np.array(num_trials), dataset=np.array(inputs.dataset.name))
    defined = mem[~np.isnan(mem)]
    edges = bin_edges(defined) if len(defined) else np.array([0.0, 1.0])
    groups = {
        "typical": defined < TYPICAL_THRESHOLD,
        "between": (defined >= TYPICAL_THRESHOLD) & (defined <= ATYPICAL_THRESHOLD),
        "atypical": defined > ATYPICAL_THRESHOLD,
    }
    counts = {name: np.histogram(defined[members], edges)[0] for name, members in groups.items()}
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})
    folder.write(HISTOGRAM, table.to_csv(index=False).encode())
    return [share_atypical(mem, inputs.dataset.name, about_scores(inputs))]


def draw_histogram(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """Fig. 6."""
    arrays = folder.read_npz(MEM)
    figure = memorization_histogram(
        arrays["mem"],
        num_trials=int(arrays["num_trials"]),
        dataset=str(arrays["dataset"]),
        thresholds=(TYPICAL_THRESHOLD, ATYPICAL_THRESHOLD),
    )
    return {"memorization_histogram": figure}


def _arrays(samples: MemorizedSamples, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Some samples as arrays of an npz."""
    accuracy_out = {} if samples.accuracy_out is None else {"accuracy_out": samples.accuracy_out[chosen]}
    values = {**vars(samples.split), "mem": samples.mem, "mem_low": samples.low, "mem_high": samples.high}
    return {
        **{name: of_all[chosen] for name, of_all in values.items()},
        **accuracy_out,
        "class_names": np.array(samples.class_names),
    }


def _samples(arrays: Mapping[str, np.ndarray]) -> MemorizedSamples:
    split = Split(arrays["images"], arrays["labels"], arrays["ids"])
    names = [str(name) for name in arrays["class_names"]]
    unknown = np.full(len(split), np.nan)  # in data that an earlier version wrote
    low, high = (arrays.get(name, unknown) for name in ("mem_low", "mem_high"))
    return MemorizedSamples(split, names, arrays["mem"], low, high, arrays.get("accuracy_out"))


def _num_trials(inputs: StudyInputs) -> int:
    """Trials behind memorization.npz; 0 for scores that were imported."""
    place = Folder(inputs.settings.score_place)
    return len(read_memorization(place, inputs.dataset.fingerprint).get("trial", ()))
