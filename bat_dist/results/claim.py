"""A statement of the paper, or of ours, and how an estimate decides on it; those about what scores cost."""

from typing import Literal, NamedTuple

Verdict = Literal["reproduced", "not visible at this scale", "contradicted", "not tested"]
Expected = Literal["above", "below", "near"]


class Claim(NamedTuple):
    """A statement of the paper, or a control of ours, and how an estimate decides on it.

    expected: where the estimated quantity lies, if the statement holds, in relation to `bound`; near: within `margin`.
    bound: NaN where the paper says nothing that can be tested.
    """

    place: str  # section of the paper; OURS or COST for the others
    statement: str
    study: str
    quantity: str  # what is estimated
    expected: Expected
    bound: float = 0.0
    margin: float = 0.0

    @property
    def is_of_paper(self) -> bool:
        """Whether the paper says so; the others are controls of ours, or about what scores cost."""
        return self.place not in (OURS, COST)


OURS = "ours"
COST = "cost of scores"
"""The place of claims that are not the paper's, but about how few trainings give the same scores."""
FROM_TRAINING = {
    "true_class_confidence": "The confidence of an ensemble in the own class",
    "forgetting": "The number of forgetting events",
    "learning_time": "The first epoch in which a sample is right",
    "el2n": "The error early in training (EL2N)",
    "self_influence": "Self-influence by TRAK",
}
POINTS = 0.02  # a difference of accuracies that is called none
COST_CLAIMS: dict[str, Claim] = {
    "fewer_trials_ranking": Claim(
        COST,
        "Another estimator needs fewer trials for the same ranking of the samples",
        "efficiency",
        "its trials for the rank correlation with a long reference that the difference of means has, as a share",
        "below",
        1.0,
    ),
    "fewer_trials_atypical": Claim(
        COST,
        "Another estimator needs fewer trials for the same atypical set",
        "efficiency",
        "its trials for the common atypical samples (Jaccard) that the difference of means has, as a share",
        "below",
        1.0,
    ),
    "stops_early": Claim(
        COST,
        "A run that stops when most samples are decided ends with 40% of 1,000 trials",
        "efficiency",
        "trials at its end, as a share of 1,000",
        "below",
        0.4,
    ),
    "stopped_agrees": Claim(
        COST,
        "What it has decided on mem > 0.15 is what a long reference says",
        "efficiency",
        "share of the decided samples that the reference has on the same side of 0.15",
        "above",
        0.99,
    ),
}
