"""The files of a run's folder that tell how far it is.  Imports no torch.

`state.safetensors` is the truth while the run goes on; `history.csv` follows from it, and `run.json` with "finished" is
written last.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import SUFFIX, TRAIN, forget_settings
from bat_dist.storage.status import PROGRESS
from bat_dist.training.mlflow_tracker import RECORD as MLFLOW_RECORD

STATE, RUN, HISTORY, NON_FINITE = "state" + SUFFIX, "run.json", "history.csv", "non_finite.json"
_ALL = (  # the state first, without which nothing goes on
    *(STATE, RUN, HISTORY, NON_FINITE, "best" + SUFFIX, "last" + SUFFIX, "curves.png", "curves.svg", PROGRESS),
    *(MLFLOW_RECORD, "tensorboard/events.out.tfevents.*"),
)

Criterion = Literal["val_pgd", "val_clean"]


def finished(folder: Folder) -> bool:
    """Whether the folder holds a run that was trained to its end."""
    return folder.exists(RUN) and bool(folder.read_json(RUN).get("finished"))


def is_begun(folder: Folder) -> bool:
    """Whether an epoch of the folder's run is finished; else nothing of it is worth keeping."""
    return folder.exists(STATE) or finished(folder)


def begun_identity(folder: Folder) -> Mapping[str, Any]:
    """The identity of the folder's run; nothing if none has finished an epoch."""
    return identity_of(folder.read_json(RUN)) if folder.exists(RUN) and is_begun(folder) else {}


def identity_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The identity in a `run.json`; empty if it has none.

    Earlier versions did not count `num_workers` among what decides a result, but listed the numbers that a run had.
    """
    identity = dict(document.get("identity", {}))
    if "sync_bn" in identity and "num_workers" not in identity:
        identity["num_workers"] = 1 if identity["sync_bn"] else (document.get("workers") or [1])[-1]
    return identity


def remove(folder: Folder) -> None:
    """Remove the folder's run: what this package has written there, by name."""
    folder.remove_files(_ALL)
    forget_settings(folder, TRAIN)


def best_epoch(history: Sequence[Mapping[str, Any]], criterion: Criterion) -> int:
    """The epoch, from 1, with the highest value; of equal ones the first."""
    return 1 + max(range(len(history)), key=lambda place: (history[place][criterion], -place))


def write_history(folder: Folder, history: Sequence[Mapping[str, Any]]) -> None:
    """`history.csv`: a line per epoch under a header; what is undefined is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    folder.write(HISTORY, text.getvalue().encode())


def read_history(folder: Folder) -> list[dict[str, Any]]:
    """The rows of `history.csv` as numbers, None where empty; none without a file."""
    if not folder.exists(HISTORY):
        return []
    rows = csv.DictReader(io.StringIO(folder.read(HISTORY).decode()))
    return [{name: _number(text) for name, text in row.items()} for row in rows]


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """One epoch of the history in words."""
    pgd = f", PGD {row['val_pgd']:.1%}" if row.get("val_pgd") is not None else ""
    seconds = row["train_seconds"] + row["validation_seconds"]
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.4f}  "
        f"validation: clean {row['val_clean']:.1%}{pgd}  ({seconds:.1f} s)"
    )


def _number(text: str) -> float | int | None:
    return None if text == "" else int(text) if text.isdigit() else float(text)
