"""Scores as a folder for others: tables that the Hugging Face Hub shows, and the files that `load_scores` reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

import bat_dist
from bat_dist.artifacts.export import CARD, LIBRARY
from bat_dist.artifacts.scores import (
    ENSEMBLE_SCORES,
    FELDMAN_ZHANG,
    INFLUENCE,
    INFLUENCE_TOP,
    MEMORIZATION,
    SCORES_TABLE,
    read_influence,
)
from bat_dist.errors import UserError
from bat_dist.storage.files import Folder

PROVENANCE, INFLUENCE_TABLE = "provenance.json", "influence.parquet"
_COPIED = (SCORES_TABLE, INFLUENCE, INFLUENCE_TOP, "typicality.npz", ENSEMBLE_SCORES, FELDMAN_ZHANG)
SCORE_FILES = (CARD, PROVENANCE, INFLUENCE_TABLE, *_COPIED, MEMORIZATION)
"""All files that an export of scores may have."""
_SUMMARY = "summary.json"


@dataclass(frozen=True)
class FoundScores:
    """The scores of a folder of `bat-dist memorize`.

    files: contents by name, to be given away as they are. summary: that of the run, without what came of it elsewhere;
    empty in a folder that has none. num_pairs: how many influences there are.
    """

    files: Mapping[str, bytes]
    summary: Mapping[str, Any]
    fingerprint: str
    num_train: int
    num_test: int
    num_pairs: int


def read_found_scores(location: str) -> FoundScores:
    """Read the scores of a folder.  Raises UserError if they are missing, damaged, or do not belong together."""
    import pandas as pd

    folder = Folder(location)
    for name in (MEMORIZATION, SCORES_TABLE):
        if not folder.exists(name):
            raise UserError(
                f"{folder} has no {name}: name a folder of bat-dist memorize; in one of an earlier version the same "
                "command writes what is missing"
            )
    arrays = folder.read_npz(MEMORIZATION)
    fingerprint = str(arrays.get("fingerprint"))
    files = {name: folder.read(name) for name in (*_COPIED, MEMORIZATION) if folder.exists(name)}
    try:
        mem = pd.read_parquet(BytesIO(files[SCORES_TABLE]), columns=["mem"])["mem"].to_numpy()
    except Exception as error:  # pyarrow has several
        raise UserError(
            f"{folder}/{SCORES_TABLE} cannot be read ({error}): bat-dist memorize writes it again"
        ) from None
    if not np.array_equal(mem, arrays["mem"], equal_nan=True):
        raise UserError(
            f"{folder}/{SCORES_TABLE} has other scores than {MEMORIZATION}: the same command as before writes both"
        )
    summary = folder.read_json(_SUMMARY) if folder.exists(_SUMMARY) else {}
    if summary and summary.get("fingerprint") != fingerprint:
        raise UserError(f"{folder}/{_SUMMARY} is of other data than {MEMORIZATION}: bat-dist memorize writes both")
    num_pairs = 0
    if INFLUENCE in files:
        files[INFLUENCE_TABLE], num_pairs = influence_table(folder, arrays, fingerprint)
    return FoundScores(files, summary, fingerprint, len(mem), len(arrays["test_ids"]), num_pairs)


def influence_table(folder: Folder, arrays: Mapping[str, np.ndarray], fingerprint: str) -> tuple[bytes, int]:
    """The pairs of `influence.npz` as parquet, with the names and labels of their samples; and their number."""
    import pandas as pd

    pairs = read_influence(folder, fingerprint)
    train, test = pairs.train_index, pairs.test_index
    table = pd.DataFrame(
        {
            "train_index": train,
            "test_index": test,
            "train_id": arrays["train_ids"][train],
            "test_id": arrays["test_ids"][test],
            "train_label": arrays["train_labels"][train],
            "test_label": arrays["test_labels"][test],
            "influence": pairs.influence,
            "influence_se": pairs.influence_se,
        }
    )
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue(), len(table)


def write_scores(folder: Folder, found: FoundScores, *, card: str, provenance: Mapping[str, Any]) -> None:
    """Write the folder; `memorization.npz` comes last, so that a folder that loads is complete and of one run.

    provenance: how the scores came about, without places on this machine.
    """
    folder.create()
    for name in (MEMORIZATION, *SCORE_FILES):  # of an earlier export
        folder.remove(name)
    folder.write_json(PROVENANCE, {"library_name": LIBRARY, "bat_dist": bat_dist.__version__, **provenance})
    folder.write(CARD, card.encode())
    for name in (INFLUENCE_TABLE, *_COPIED, MEMORIZATION):
        if name in found.files:
            folder.write(name, found.files[name])
