"""The trials of a store for their estimates, within a given memory: as arrays, or by columns from a scratch file."""

import errno
import logging
import math
import tempfile

import numpy as np
from jaxtyping import Int

from bat_dist.artifacts.scores import Trials
from bat_dist.errors import RunError
from bat_dist.memorization.columns import TrialColumns
from bat_dist.memorization.influence_parts import by_class
from bat_dist.storage.rows import RowStore
from bat_dist.wording import of_bytes

log = logging.getLogger(__name__)

MATRICES = ("mask", "train_correct", "test_correct", "train_predicted")


def read_trials(
    store: RowStore,
    train_labels: Int[np.ndarray, " train"],
    test_labels: Int[np.ndarray, " test"],
    *,
    memory: int,
    numbers: Int[np.ndarray, " trials"] | None = None,
) -> Trials:
    """The trials of a store with these numbers, by default all complete ones.

    As arrays if they take at most a quarter of `memory` bytes, else by columns.
    The columns are in scratch files without a name in the place for temporary files (TMPDIR), sorted by class; the
    system removes them with the process.  Probabilities are not among them: no score is made of them.
    Raises UserError if no trial is complete, RunError if there is no room for the scratch files.
    """
    numbers = np.flatnonzero(store.status().complete) if numbers is None else numbers
    rows = sum(np.dtype(one.dtype).itemsize * math.prod(one.shape) for one in store.fields.values()) * len(numbers)
    if 4 * rows <= memory:  # they are there twice while they are read, and leave room for what follows
        return Trials.read(store, numbers)
    fields = {name: store.fields[name] for name in MATRICES if name in store.fields}
    needed = sum(
        len(numbers) * math.prod(one.shape) // (8 if one.dtype == "bool" else 1) * np.dtype(one.dtype).itemsize
        for one in fields.values()
    )
    place = tempfile.gettempdir()
    log.info(
        "the trials take %s: they are read by columns, from scratch files of %s in %s",
        of_bytes(rows),
        of_bytes(needed),
        place,
    )

    def columns(name: str) -> TrialColumns:
        return TrialColumns(
            lambda start, stop: store.read(name, numbers[start:stop]),
            (len(numbers), fields[name].shape[0]),
            np.dtype(fields[name].dtype),
            order=by_class(test_labels if name == "test_correct" else train_labels),
            group_bytes=memory // 4,
        )

    try:
        matrices = {name: columns(name) for name in fields}
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RunError(
            f"no room for scratch files of {of_bytes(needed)} in {place}: set TMPDIR to a folder with more, "
            "or give more scores_memory; the same command goes on"
        ) from None
    mask, train_correct, test_correct = (matrices[name] for name in MATRICES[:3])
    metrics = store.read("metrics", numbers)
    return Trials(numbers, mask, train_correct, test_correct, metrics, matrices.get("train_predicted"))
