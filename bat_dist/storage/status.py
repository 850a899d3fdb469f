"""What a result folder of `memorize` holds, in words, without running anything."""

from bat_dist.config import UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore

STORES = {"trials": "trials", "ensemble": "members"}  # folder -> what its rows are called


def failure_name(what: str, row: int) -> str:
    """The file in which a row that was given up is noted with its reason."""
    return f"failed/{what}-{row}.json"


def failures(folder: Folder, what: str) -> dict[int, str]:
    """Rows that were given up, with their reasons."""
    notes = [folder.read_json(f"failed/{name}") for name in folder.names(f"failed/{what}-*.json")]
    return {note["row"]: note["reason"] for note in sorted(notes, key=lambda note: note["row"])}


def describe(folder: Folder) -> str:
    """A few lines per store.  Raises UserError if the folder holds none."""
    stores = {name: store for name in STORES if (store := RowStore.existing(folder / name))}
    if not stores:
        raise UserError(f"{folder} holds no trials: run bat-dist memorize --out {folder} first")
    return "\n".join(_describe_store(folder, store, STORES[name]) for name, store in stores.items())


def _describe_store(folder: Folder, store: RowStore, what: str) -> str:
    status, failed = store.status(), failures(folder, what)
    lines = [f"{store.folder}: {status.complete.sum()} of {store.num_rows} {what} complete"]
    if status.damaged:
        lines.append(f"  damaged, to be run again: {', '.join(map(str, status.damaged))}")
    lines += [f"  {what} {row} failed: {reason}" for row, reason in failed.items()]
    lines.append("  " + ", ".join(f"{key}={value}" for key, value in store.identity.items()))
    return "\n".join(lines)
