"""A training that studies share, by name: method, training set, seed."""

from typing import NamedTuple

WHOLE, WITHOUT_ATYPICAL, RANDOM, LEAST = "whole", "without_atypical", "random_removed", "typical_removed"
"""Training sets: all samples; those with mem <= 0.15; and the controls, which are as small as that of share 0."""


def share_name(percent: float) -> str:
    """The training set of all typical samples and this part of the atypical ones: `atypical20`."""
    return f"atypical{percent:g}"


class StudyRun(NamedTuple):
    """A training that studies share.  subset: a training set by name. score: of BAT, `mem` or a cheaper one."""

    method: str
    subset: str
    seed: int
    score: str = ""

    @property
    def place(self) -> str:
        """Its folder within the studies' own."""
        return "/".join(["runs", self.method, self.score or self.subset, f"seed{self.seed}"])

    def __str__(self) -> str:
        return f"{self.method} {self.score or self.subset} seed {self.seed}"
