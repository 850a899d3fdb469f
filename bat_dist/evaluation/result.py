"""What an evaluation found."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool

from bat_dist.errors import naming_extras
from bat_dist.evaluation.hygiene import Check
from bat_dist.evaluation.statistics import accuracy, bounds_of_share

if TYPE_CHECKING:
    import pandas as pd


class ResultRow(NamedTuple):
    """One row of the result.  robust: is each test image classified right after it?"""

    name: str
    robust: Bool[np.ndarray, " images"]
    seconds: float  # of all workers together
    max_delta: float  # the largest change of a pixel in an image that fooled the network
    warnings: tuple[str, ...]  # names of the checks that failed


class Evaluation(NamedTuple):
    """The rows, what the hygiene checks say of the network, and how many images these looked at.  As text, a table."""

    rows: tuple[ResultRow, ...]
    checks: tuple[Check, ...]
    num_checked: int

    @property
    def accuracy(self) -> Mapping[str, float]:
        """The share of images that are classified right, clean and after each attack, by name."""
        return {row.name: accuracy(row.robust).accuracy for row in self.rows}

    @property
    def flags(self) -> Mapping[str, Bool[np.ndarray, " images"]]:
        """For each row, by name, whether each image is classified right, in the images' order."""
        return {row.name: row.robust for row in self.rows}

    def to_pandas(self) -> "pd.DataFrame":
        """A table: attack, accuracy, its 95% interval (low, high: Wilson), n, seconds, max_delta.

        Raises UserError where pandas is not installed, which the extra `report` brings.
        """
        with naming_extras():
            import pandas as pd

        return pd.DataFrame(
            {
                "attack": row.name,
                "accuracy": share,
                **dict(zip(("low", "high"), bounds_of_share(share, len(row.robust)), strict=True)),
                "n": len(row.robust),
                "seconds": row.seconds,
                "max_delta": row.max_delta,
            }
            for row, share in zip(self.rows, self.accuracy.values(), strict=True)
        )

    def __repr__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = []
        for row in self.rows:
            found = accuracy(row.robust)
            lines.append(f"{row.name:{width}}  {found!s:>22}  of {found.n:,} images")
        lines += [f"check {check.name} failed: {check.message}" for check in self.checks if not check.passed]
        return "\n".join(lines)
