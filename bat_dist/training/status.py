"""What a folder of `bat-dist train` holds, in words, from its files alone.  Imports no torch."""

import time
from collections.abc import Callable

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.status import GO_ON, PROGRESS, describe_driver
from bat_dist.training import files
from bat_dist.training.files import FinishedRun


def describe(folder: Folder, *, clock: Callable[[], float] = time.time) -> str:
    """Some lines on the driver and on the epochs that are done.  Raises UserError if the folder holds no training."""
    if not any(folder.exists(name) for name in (files.RUN, files.HISTORY, PROGRESS)):
        raise UserError(f"{folder} holds no training: run bat-dist train --out {folder} first")
    run = files.read_run(folder) if folder.exists(files.RUN) else None
    is_finished, identity = isinstance(run, FinishedRun), run.identity if run else {}
    lines = [*describe_driver(folder, {}, clock, is_complete=is_finished)]
    history, epochs = files.read_history(folder), identity.get("epochs")
    state = "trained to its end" if is_finished else f"not finished: {GO_ON}"
    lines.append(f"{folder}: {len(history)} of {epochs or 'an unknown number of'} epochs, {state}")
    if folder.exists(files.NON_FINITE):
        lines.append(f"  it diverged: {folder.read_json(files.NON_FINITE).get('message')}")
    if history:
        lines.append(f"  last: {files.epoch_line(history[-1], epochs or len(history))}")
        criterion = identity.get("best_by")
        if criterion in history[0]:
            best = history[files.best_epoch(history, criterion) - 1]
            lines.append(f"  best by {criterion}: epoch {best['epoch']}, {best[criterion]:.1%}")
    names = ("method", "dataset", "arch", "num_train", "num_val", "epsilon", "precision", "seed")
    if known := ", ".join(f"{name}={identity[name]}" for name in names if name in identity):
        lines.append(f"  {known}")
    return "\n".join(lines)
