"""A folder of studies as `bat-dist study` leaves it before its reports, with made-up scores and network outputs."""

from pathlib import Path
from typing import Any

import numpy as np

from bat_dist.artifacts.scores import (
    TRIALS,
    SampleNames,
    Trials,
    write_ensemble_scores,
    write_influence,
    write_memorization,
)
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import influential_pairs
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.studies.inputs import OUTPUTS, StudyInputs, read_sets

NUM_TRAIN, NUM_TEST, NUM_TRIALS, NUM_CLASSES = 100, 60, 40, 10


def made_inputs(
    out: Path, *study: Any, seeds: tuple[int, ...] = (0, 1), with_trials: bool = True, **asked: Any
) -> StudyInputs:
    """Digits with scores from made-up trials, typical and atypical sets, and an ensemble's scores."""
    settings = StudySettings(
        study=study, scale="small", num_train=NUM_TRAIN, num_test=NUM_TEST, seeds=seeds, out=str(out), **asked
    )
    folder, dataset = Folder(str(out)), load_dataset(settings.data_name, **settings.data)
    _write_scores(Folder(settings.score_place), dataset, with_trials)
    return StudyInputs(folder, dataset, settings, read_sets(dataset, settings))


def write_outputs(inputs: StudyInputs, apart: Any) -> None:
    """Features of all runs around one centre for each class, which lie `apart(run)` from the origin.

    The adversarial answers are right for the first three quarters of the test images, and in runs of a cheaper score
    for all but those of the last eighth.
    """
    labels, rng = inputs.dataset.test.labels, np.random.default_rng(5)
    noise, place = rng.normal(0, 1, (NUM_TEST, NUM_CLASSES)), np.arange(NUM_TEST)
    for run in inputs.settings.runs():
        right = place < NUM_TEST * (7 / 8 if run.score in ("disagreement", "confidence") else 3 / 4)
        (inputs.folder / run.place).write_npz(
            OUTPUTS,
            test_features=(apart(run) * np.eye(NUM_CLASSES)[labels] + noise).astype(np.float32),
            test_clean=np.eye(NUM_CLASSES)[labels],
            test_attacked=np.eye(NUM_CLASSES)[np.where(right, labels, (labels + 1) % NUM_CLASSES)],
        )


def _write_scores(place: Folder, dataset: Dataset, with_trials: bool) -> None:
    """Every fifth training sample is right only when it is trained on, most others always."""
    rng, names = np.random.default_rng(0), SampleNames.of(dataset)
    mask = rng.random((NUM_TRIALS, NUM_TRAIN)) < 0.5
    train_correct = rng.random((NUM_TRIALS, NUM_TRAIN)) < 0.9
    train_correct[:, ::5] = mask[:, ::5]
    test_correct = rng.random((NUM_TRIALS, NUM_TEST)) < 0.9
    test_correct[:, ::6] = mask[:, : 5 * NUM_TEST // 6 : 5]
    found = estimate_memorization(mask, train_correct)
    rows: dict[str, np.ndarray] = {"mask": mask, "train_correct": train_correct, "test_correct": test_correct}
    rows["metrics"] = np.zeros((NUM_TRIALS, 2), np.float32)
    write_memorization(place, names, found, Trials(np.arange(NUM_TRIALS), **rows) if with_trials else None)
    pairs = influential_pairs(mask, test_correct, threshold=0.15, same_class=False)
    write_influence(place, pairs, dataset.fingerprint)
    ease = found.mem + rng.normal(0, 0.05, NUM_TRAIN)
    write_ensemble_scores(place, names, {"disagreement": ease, "confidence": -ease})
    typical, quarter = found.mem < 0.1, np.arange(NUM_TEST) % 4 == 0
    sets = {"train_typical": typical, "train_atypical": ~typical, "test_typical": ~quarter, "test_atypical": quarter}
    place.write_npz("typicality.npz", **sets, fingerprint=np.array(dataset.fingerprint))
    if with_trials:
        fields = {name: Field(str(values.dtype), values.shape[1:]) for name, values in rows.items()}
        store = RowStore.open(place / TRIALS, fields=fields, identity={}, num_rows=NUM_TRIALS)
        for number in range(NUM_TRIALS):
            store.write(number, {name: values[number] for name, values in rows.items()})
