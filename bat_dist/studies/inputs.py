"""What the runs of a study have left in its folder: histories, and what the last networks say of samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from bat_dist.artifacts.scores import TRIALS, Trials, read_memorization, read_subsets
from bat_dist.data.datasets import Dataset
from bat_dist.errors import UserError
from bat_dist.settings.study import OUTPUTS, WHOLE, StudyRun, StudySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from bat_dist.training.files import EpochRow, read_history
from bat_dist.training.splits import default_num_val, hold_out
from bat_dist.wording import counted

TYPICALITY = "typicality.npz"


@dataclass(frozen=True)
class SampleSets:
    """Memorization of the training samples, and the four sets by name (`train_atypical`, ...), bool by sample.

    validation: positions in the training split that all trainings hold out.
    """

    mem: np.ndarray
    members: Mapping[str, np.ndarray]
    validation: Int64[np.ndarray, " held"] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.members[name]

    @property
    def watched(self) -> Mapping[str, np.ndarray]:
        """The sets as trainings know them: of the training split only what is not held out."""
        found = {name: one.copy() for name, one in self.members.items()}
        for name, one in found.items():
            if name.startswith("train"):
                one[self.validation] = False
        return found


def read_sets(dataset: Dataset, settings: StudySettings) -> SampleSets:
    """The scores and sets that the studies stand on.

    Without sets if no study needs them: imported scores have none.
    Raises UserError if they are missing or of other data, or if num_val leaves nothing to train on.
    """
    place = Folder(settings.score_place)
    location = (place / TYPICALITY).location
    members = {
        f"{split}_{kind}": one
        for split in (("train", "test") if settings.needs_sets else ())
        for kind, one in read_subsets(location, dataset.fingerprint, split).items()
    }
    mem = read_memorization(place, dataset.fingerprint)["mem"]
    return SampleSets(mem, members, _validation(dataset, settings)) if members else SampleSets(mem, members)


def _validation(dataset: Dataset, settings: StudySettings) -> Int64[np.ndarray, " held"]:
    """What the trainings hold out, which is the same in all."""
    asked, labels = settings.training(settings.runs()[0]), dataset.train.labels
    try:
        return hold_out(labels, asked.num_val or default_num_val(len(labels)), seed=asked.val_seed).validation
    except ValueError as error:
        raise UserError(str(error)) from None


@dataclass(frozen=True)
class StudyInputs:
    """The folder of the studies and their data."""

    folder: Folder
    dataset: Dataset
    settings: StudySettings
    sets: SampleSets

    @property
    def about(self) -> str:
        """`tinynet on digits, 3 seeds`, for captions."""
        return f"{self.settings.network} on {self.dataset.name}, {counted(len(self.settings.seeds), 'seed')}"

    def trials(self) -> Trials | None:
        """The leave-out trials that the scores come from; None for scores that lie there without them."""
        store = RowStore.existing(Folder(self.settings.score_place) / TRIALS)
        return Trials.read(store) if store and store.is_begun() else None

    def histories(self, method: str, subset: str = WHOLE, score: str = "") -> Sequence[Sequence[EpochRow]]:
        """The histories of a training with each seed.  Raises UserError if one is missing."""
        return [self._history(StudyRun(method, subset, seed, score)) for seed in self.settings.seeds]

    def outputs(self, method: str, subset: str = WHOLE, score: str = "") -> list[dict[str, np.ndarray]]:
        """`outputs.npz` of a training with each seed.  Raises UserError if one is missing."""
        runs = [StudyRun(method, subset, seed, score) for seed in self.settings.seeds]
        return [(self.folder / run.place).read_npz(OUTPUTS) for run in runs]

    def flags(self, method: str, subset: str = WHOLE, score: str = "") -> dict[str, np.ndarray]:
        """Which test images the last network of each seed classifies right, bool [seeds, images]: clean, and pgd."""
        labels, found = self.dataset.test.labels, self.outputs(method, subset, score)
        return {
            kind: np.array([one[f"test_{name}"].argmax(axis=1) == labels for one in found])
            for kind, name in (("clean", "clean"), ("pgd", "attacked"))
        }

    def _history(self, run: StudyRun) -> Sequence[EpochRow]:
        history = read_history(self.folder / run.place)
        if not history:
            raise UserError(f"{self.folder}/{run.place} holds no epoch of {run}: the same command trains it")
        return history
