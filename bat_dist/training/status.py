"""What a folder of `bat-dist train` holds, in words, from its files alone.  Imports no torch."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.status import GO_ON, PROGRESS, describe_driver
from bat_dist.training.files import (
    HISTORY,
    NON_FINITE,
    RUN,
    best_epoch,
    epoch_line,
    finished,
    identity_of,
    read_history,
)


def describe(folder: Folder, *, clock: Callable[[], float] = time.time) -> str:
    """Some lines on the driver and on the epochs that are done.  Raises UserError if the folder holds no training."""
    if not any(folder.exists(name) for name in (RUN, HISTORY, PROGRESS)):
        raise UserError(f"{folder} holds no training: run bat-dist train --out {folder} first")
    is_finished = finished(folder)
    driver = describe_driver(folder, {}, clock, is_complete=is_finished)
    return "\n".join([*driver, *_of_run(folder, is_finished=is_finished)])


def _of_run(folder: Folder, *, is_finished: bool) -> Iterator[str]:
    identity = identity_of(folder.read_json(RUN)) if folder.exists(RUN) else {}
    history, epochs = read_history(folder), identity.get("epochs")
    state = "trained to its end" if is_finished else f"not finished: {GO_ON}"
    yield f"{folder}: {len(history)} of {epochs or 'an unknown number of'} epochs, {state}"
    if folder.exists(NON_FINITE):
        yield f"  it diverged: {folder.read_json(NON_FINITE).get('message')}"
    if history:
        yield from _rows(history, identity)
    names = ("method", "dataset", "arch", "num_train", "num_val", "epsilon", "precision", "seed")
    if known := ", ".join(f"{name}={identity[name]}" for name in names if name in identity):
        yield f"  {known}"


def _rows(history: list[dict[str, Any]], identity: Mapping[str, Any]) -> Iterator[str]:
    """The last row, and the best."""
    epochs = identity.get("epochs") or len(history)
    yield f"  last: {epoch_line(history[-1], epochs)}"
    criterion = identity.get("best_by")
    if criterion in history[0]:
        best = history[best_epoch(history, criterion) - 1]
        yield f"  best by {criterion}: epoch {best['epoch']}, {best[criterion]:.1%}"
