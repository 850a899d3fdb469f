"""Leave-out trials until a rule says that they are enough: it is asked while they arrive, and its curve is kept."""

import logging

import numpy as np

from bat_dist.memorization.stopping import OrderedTrials, StoppingRule
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from bat_dist.storage.status import SEQUENTIAL
from bat_dist.wording import counted
from bat_dist.workers.units import Done, Failed

log = logging.getLogger(__name__)


class UntilEnough:
    """Gives finished trials to the rule, in the order of their numbers, and writes `sequential.json` at each look."""

    def __init__(self, folder: Folder, rule: StoppingRule, num_samples: int, mask_plan: str) -> None:
        self.trials = OrderedTrials(rule, num_samples)
        self._folder, self._mask_plan = folder, mask_plan

    @property
    def is_over(self) -> bool:
        """Is no further trial needed?"""
        return self.trials.is_over

    def begin(self, store: RowStore) -> "UntilEnough":
        """Begin with the trials that a store holds; returns itself."""
        self.trials = OrderedTrials(self.trials.rule, self.trials.num_samples)
        rows = np.flatnonzero(store.status().complete[: self.trials.rule.max_trials])
        for row, *trial in zip(rows.tolist(), store.read("mask", rows), store.read("train_correct", rows), strict=True):
            self.trials.note(row, (trial[0], trial[1]))
        if self.trials.looks:
            self._write()
        return self

    def settled(self, row: int, outcome: Done | Failed) -> bool:
        """Take a trial that is finished, or was given up; True if no further one is needed."""
        found = None if isinstance(outcome, Failed) else (outcome.row["mask"], outcome.row["train_correct"])
        if self.trials.note(row, found):
            look = self.trials.looks[-1]
            text = "after %s: %.1f%% of the samples undecided, median width %.2f, reliability %.3f"
            trials = counted(look.num_trials, "trial")
            log.info(text, trials, 100 * look.undecided, look.median_width, look.reliability)
            self._write()
        return self.is_over

    def _write(self) -> None:
        self._folder.write_json(SEQUENTIAL, self.trials.facts(self._mask_plan))
