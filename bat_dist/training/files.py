"""The files of a run's folder that tell how far it is.  Imports no torch.

`state.safetensors` is the truth while the run goes on; `history.csv` follows from it, and `run.json` with "finished" is
written last.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from bat_dist.errors import UserError
from bat_dist.storage.computed_on import distinct
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import SUFFIX, TRAIN, forget_settings
from bat_dist.storage.status import PROGRESS, duration
from bat_dist.training.mlflow_tracker import RECORD as MLFLOW_RECORD

STATE, RUN, HISTORY, NON_FINITE = "state" + SUFFIX, "run.json", "history.csv", "non_finite.json"
LAST = "last" + SUFFIX  # the network of the last epoch
WANDB_RECORD = "wandb_run.json"
_ALL = (  # the state first, without which nothing goes on
    *(STATE, RUN, HISTORY, NON_FINITE, "best" + SUFFIX, LAST, "curves.png", "curves.svg", PROGRESS),
    *(MLFLOW_RECORD, WANDB_RECORD, "tensorboard/events.out.tfevents.*"),
)

Criterion = Literal["val_pgd", "val_clean"]
EpochRow = dict[str, int | float | None]
"""An epoch of the history, by column: `epoch` (from 1), `lr`, `train_loss`, accuracies, seconds; None: undefined."""


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """What `run.json` says of a run; earlier versions did not write all of it.

    workers: the numbers of workers that the run has had, in their order. threads: of each worker, 0 if not known.
    chosen: what `auto` stands for, and why. computed_on: the hardware of all ranks that have trained an epoch, each
    kind once, see `storage.computed_on`; empty if not known. origin: see `provenance`.
    """

    identity: Mapping[str, Any] = field(default_factory=dict)
    workers: Sequence[int] = ()
    begun: str = ""
    threads: int = 0
    chosen: Mapping[str, str] | None = None
    computed_on: Sequence[Mapping[str, Any]] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FinishedRun(RunFile):
    """What `run.json` says of a run that was trained to its end.  best, last: rows of its history."""

    ended: str = ""
    best_by: Criterion
    best: EpochRow
    last: EpochRow
    seconds: float


_reader = cache(TypeAdapter)  # which takes milliseconds to make


def read_run(folder: Folder) -> RunFile:
    """What `run.json` says; a `FinishedRun` if the run was trained to its end.

    Earlier versions did not count `num_workers` among what decides a result, but listed the numbers that a run had.
    Raises UserError if the file is damaged.
    """
    document = folder.read_json(RUN)
    try:
        kind = FinishedRun if document.get("finished") else RunFile
        names = {"finished", *(one.name for one in fields(kind))}
        identity = dict(document.get("identity", {}))
        if "sync_bn" in identity and "num_workers" not in identity:
            identity["num_workers"] = 1 if identity["sync_bn"] else (document.get("workers") or [1])[-1]
        origin = {name: value for name, value in document.items() if name not in names}
        return _reader(kind).validate_python({**document, "identity": identity, "origin": origin})
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{folder}/{RUN} is not as bat-dist writes it: it is damaged; remove it") from None


def write_run(folder: Folder, run: RunFile) -> None:
    """Write `run.json`."""
    document: dict[str, Any] = {"finished": isinstance(run, FinishedRun)}
    for one in fields(run):
        document |= run.origin if one.name == "origin" else {one.name: getattr(run, one.name)}
    folder.write_json(RUN, document)


def note_hardware(folder: Folder, found: Sequence[Mapping[str, Any]]) -> None:
    """Add to `run.json`, if it is there, what is to train from now on."""
    run = read_run(folder) if folder.exists(RUN) else None
    if run and (together := distinct(run.computed_on, found)) != list(run.computed_on):
        write_run(folder, replace(run, computed_on=together))


def finished(folder: Folder) -> FinishedRun | None:
    """The folder's run, if it holds one that was trained to its end."""
    run = read_run(folder) if folder.exists(RUN) else None
    return run if isinstance(run, FinishedRun) else None


def check_last(folder: Folder) -> None:
    """Raise UserError if the folder of a run whose last epoch is done does not hold the network of that epoch."""
    if not folder.exists(LAST):
        raise UserError(
            f"{folder}/{LAST} is not there, though the last epoch is done: the process that trained sees another "
            "folder of that name, or the file was removed; train again, into a folder that all machines share or a "
            "URI such as s3://bucket/run (--out), or with --fresh"
        )


def is_begun(folder: Folder) -> bool:
    """Whether an epoch of the folder's run is finished; else nothing of it is worth keeping."""
    return folder.exists(STATE) or finished(folder) is not None


def begun_identity(folder: Folder) -> Mapping[str, Any]:
    """The identity of the folder's run; nothing if none has finished an epoch."""
    return read_run(folder).identity if folder.exists(RUN) and is_begun(folder) else {}


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


def read_history(folder: Folder) -> list[EpochRow]:
    """The rows of `history.csv` as numbers, None where empty; none without a file."""
    if not folder.exists(HISTORY):
        return []
    rows = csv.DictReader(io.StringIO(folder.read(HISTORY).decode()))
    return [
        {name: None if text == "" else int(text) if text.isdigit() else float(text) for name, text in row.items()}
        for row in rows
    ]


def epoch_line(row: Mapping[str, Any], epochs: int, *, is_last_word: bool = True) -> str:
    """One epoch of the history in words; unless that is the last word, also how long the others will take."""
    pgd = f", PGD {row['val_pgd']:.1%}" if row.get("val_pgd") is not None else ""
    seconds = row["train_seconds"] + row["validation_seconds"]
    more = 0 if is_last_word else epochs - row["epoch"]
    left = f", {duration(more * seconds)} left" if more else ""
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.4f}  "
        f"validation: clean {row['val_clean']:.1%}{pgd}  ({seconds:.1f} s{left})"
    )


def training_seconds(history: Sequence[Mapping[str, Any]]) -> float:
    """How long all epochs took, with their validation."""
    return sum(row["train_seconds"] + row["validation_seconds"] for row in history)
