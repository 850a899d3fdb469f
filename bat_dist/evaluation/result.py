"""What an evaluation found."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from bat_dist.evaluation.hygiene import Check


class ResultRow(NamedTuple):
    """One row of the result.  robust: is each test image classified right after it?"""

    name: str
    robust: Bool[np.ndarray, " images"]
    seconds: float  # of all workers together
    max_delta: float  # the largest change of a pixel in an image that fooled the network
    warnings: tuple[str, ...]  # names of the checks that failed


class Evaluation(NamedTuple):
    """The rows, what the hygiene checks say of the network, and how many images these looked at."""

    rows: tuple[ResultRow, ...]
    checks: tuple[Check, ...]
    num_checked: int
