"""The folder of a study whose trainings are made up: outputs of networks that nobody trained."""

from pathlib import Path
from typing import Any

import numpy as np

from bat_dist.data.datasets import Dataset
from bat_dist.settings.study import WITHOUT_ATYPICAL, StudyRun, StudySettings
from bat_dist.storage.files import Folder
from bat_dist.studies.inputs import OUTPUTS, SampleSets, StudyInputs


def poisoning_inputs(dataset: Dataset, place: Path, atypical: np.ndarray, **asked: Any) -> StudyInputs:
    """Inputs of the study `poisoning`, two seeds: outputs are drawn at random; atypical: bool by training sample."""
    given = {"study": ("poisoning",), "out": str(place), "scale": "small", "seeds": (0, 1), **asked}
    settings = StudySettings(**given)
    folder, rng = Folder(str(place)), np.random.default_rng(0)
    index, classes = np.flatnonzero(atypical), len(dataset.class_names)
    for seed in settings.seeds:
        outputs = {name: rng.dirichlet(np.ones(classes), len(index)) for name in ("train_clean", "train_attacked")}
        run = folder / StudyRun("pgd_at", WITHOUT_ATYPICAL, seed).place
        run.write_npz(OUTPUTS, train_index=index, **outputs)
    mem = np.where(atypical, rng.uniform(0.2, 1, len(atypical)), 0.0)
    sets = {"train_atypical": atypical, "train_typical": ~atypical}
    return StudyInputs(folder, dataset, settings, SampleSets(mem, sets))
