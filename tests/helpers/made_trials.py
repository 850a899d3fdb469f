"""Result folders of `memorize` whose trials are made here and not trained: of known content, in milliseconds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bat_dist.config import parse
from bat_dist.data.datasets import Dataset
from bat_dist.jobs.memorize import identity_of_rows, settings_of_members, settings_of_trials
from bat_dist.memorization.subsets import subset_mask
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings
from bat_dist.storage.rows import Field, RowStore

NUM_TRAIN, NUM_TEST = 100, 50
ASKED = (
    f"--dataset digits --num_train {NUM_TRAIN} --num_test {NUM_TEST} --arch tinynet --epochs 2 --batch_size 20 "
    "--loader memory --precision fp32"
).split()
FIELDS = {
    "mask": Field("bool", (NUM_TRAIN,)),
    "train_correct": Field("bool", (NUM_TRAIN,)),
    "train_predicted": Field("uint16", (NUM_TRAIN,), optional=True),
    "test_correct": Field("bool", (NUM_TEST,)),
    "metrics": Field("float64", (2,)),
}
PROBABILITIES = {"train_probability": Field("float16", (NUM_TRAIN,)), "test_probability": Field("float16", (NUM_TEST,))}
OF_MEMBERS = {
    "train_probabilities": Field("float32", (NUM_TRAIN, 10)),
    "test_probabilities": Field("float32", (NUM_TEST, 10)),
    "metrics": Field("float64", (2,)),
}


def settings_for(place: str, *words: str) -> MemorizeSettings:
    """The settings of a call with ASKED and these words."""
    return parse(MemorizeSettings, [*ASKED, *words, "--out", place], prog="")[0]


def made_row(number: int, labels: np.ndarray) -> dict[str, np.ndarray]:
    """A trial of its number alone, as if trained: right on what it was trained on and on some of the others.

    Its seconds are another number each time.
    """
    rng, mask = np.random.default_rng(number), subset_mask(NUM_TRAIN, 0.7, 0, number)
    correct = mask | (rng.random(NUM_TRAIN) < np.linspace(0, 1, NUM_TRAIN))
    return {
        "mask": mask,
        "train_correct": correct,
        "train_predicted": np.where(correct, labels, 0).astype(np.uint16),
        "test_correct": rng.random(NUM_TEST) < np.where(mask[:NUM_TEST], 0.9, 0.4),
        "train_probability": rng.random(NUM_TRAIN).astype(np.float16),
        "test_probability": rng.random(NUM_TEST).astype(np.float16),
        "train_probabilities": rng.dirichlet(np.ones(10), NUM_TRAIN).astype(np.float32),
        "test_probabilities": rng.dirichlet(np.ones(10), NUM_TEST).astype(np.float32),
        "metrics": np.array([rng.random(), np.random.default_rng().random()]),
    }


def made_trials(
    place: str,
    dataset: Dataset,
    numbers: Iterable[int],
    *,
    fields: Mapping[str, Field] = FIELDS,
    words: Sequence[str] = (),
    changed: Mapping[int, Mapping[str, Any]] | None = None,
) -> Folder:
    """A folder with these trials, or members if `fields` are theirs, and the settings of its call.

    words: further options of the call. changed: other values than `made_row` has, by number.
    """
    folder, settings = Folder(place), settings_for("made", *words)
    is_trials = "mask" in fields
    settings_of_rows = settings_of_trials(settings) if is_trials else settings_of_members(dataset, settings)
    identity = identity_of_rows(settings_of_rows(precision="fp32"), dataset)
    numbers = list(numbers)
    name = "trials" if is_trials else "ensemble"
    store = RowStore.open(folder / name, fields=fields, identity=identity, num_rows=max(numbers, default=-1) + 1)
    note_settings(folder, "memorize", settings)
    for number in numbers:
        store.write(number, {**made_row(number, dataset.train.labels), **(changed or {}).get(number, {})})
    return folder
