"""`summary.json` and `ensemble_summary.json`: the numbers of a run of `bat-dist memorize`, as they are read again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bat_dist.results.evaluation_file import read_object
from bat_dist.storage.files import Folder

SUMMARY, ENSEMBLE = "summary.json", "ensemble_summary.json"


@dataclass(frozen=True)
class ScoresSummary:
    """The numbers of leave-out scores, or of the cheaper scores of an ensemble."""

    dataset: str
    fingerprint: str  # of the data
    num_trials: int  # leave-out trials; 0 for scores from elsewhere and for an ensemble
    is_of_ensemble: bool
    warnings: tuple[str, ...]
    numbers: Mapping[str, Any]  # all of it, NaN where the file has null; `reporting.summary` puts it in words


def read_summary(folder: Folder, name: str) -> ScoresSummary:
    """What one of the two files says.  Raises UserError if it is damaged."""
    found = {key: math.nan if value is None else value for key, value in read_object(folder, name).items()}
    return ScoresSummary(
        dataset=str(found.get("dataset", "unknown data")),
        fingerprint=str(found.get("fingerprint", "")),
        num_trials=int(found.get("num_trials", 0)),
        is_of_ensemble="score" in found,
        warnings=tuple(found.get("warnings", ())),
        numbers=found,
    )
