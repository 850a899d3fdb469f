"""The end of an evaluation: `evaluation.json`, `flags.npz`, and a table for the terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.statistics import accuracy
from bat_dist.storage.checkpoints import Checkpoint
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance

RESULT, FLAGS = "evaluation.json", "flags.npz"


def report_evaluation(
    folder: Folder,
    dataset: Dataset,
    settings: Mapping[str, Any],
    attacks: tuple[str, ...],
    robust: Bool[np.ndarray, "attacks images"],
    subsets: Mapping[str, Bool[np.ndarray, " images"]],
    checkpoint: Checkpoint,
    digest: str,
) -> str:
    """Write both files; returns the lines to print.  subsets: of the test images, by name."""
    test = dataset.test
    rows = [_row(name, flags, subsets) for name, flags in zip(attacks, robust, strict=True)]
    folder.write_npz(
        FLAGS,
        flags=robust,
        attacks=np.array(attacks),
        labels=test.labels,
        ids=test.ids,
        fingerprint=np.array(dataset.fingerprint),
        **{f"subset_{name}": members for name, members in subsets.items()},
    )
    about = {"facts": checkpoint.facts, "network": digest, "fingerprint": dataset.fingerprint}
    folder.write_json(RESULT, {"rows": rows, **about, "settings": dict(settings), **provenance()})
    return _table(rows, folder)


def _row(name: str, flags: Bool[np.ndarray, " images"], subsets: Mapping[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {"attack": name, **accuracy(flags)._asdict()}
    for subset, members in subsets.items():
        row[subset] = accuracy(flags[members])._asdict()
    return row


def _table(rows: list[dict[str, Any]], folder: Folder) -> str:
    subsets = [key for key, value in rows[0].items() if isinstance(value, dict)]
    width = max(len(row["attack"]) for row in rows) + 2
    lines = [f"{'accuracy':{width}}{'all':>14}" + "".join(f"{name:>14}" for name in subsets)]
    for row in rows:
        cells = [row, *(row[name] for name in subsets)]
        lines.append(f"{row['attack']:{width}}" + "".join(f"{_cell(cell):>14}" for cell in cells))
    counts = [f"{name}: {rows[0][name]['n']}" for name in subsets]
    lines.append(f"mean ± standard error over {rows[0]['n']:,} images" + (f" ({', '.join(counts)})" if counts else ""))
    return "\n".join([*lines, f"by image: {folder}/{FLAGS}"])


def _cell(cell: Mapping[str, Any]) -> str:
    return f"{cell['accuracy']:.1%} ± {cell['standard_error']:.1%}" if cell["n"] else "none"
