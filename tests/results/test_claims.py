"""Verdicts follow from intervals, and every claim has a study."""

from typing import get_args

import numpy as np
import pytest

from bat_dist.results.claims import CLAIMS, Claim, Finding
from bat_dist.settings.study_names import STUDIES, StudyName

ABOVE, BELOW, NEAR = (name for name in ("at_clean_drops", "more_is_worse", "erm_does_not_drop"))


@pytest.mark.parametrize(
    ("claim", "low", "high", "verdict"),
    [
        (ABOVE, 0.01, 0.05, "reproduced"),
        (ABOVE, -0.01, 0.05, "not visible at this scale"),
        (ABOVE, -0.05, -0.01, "contradicted"),
        (BELOW, -0.05, -0.01, "reproduced"),
        (BELOW, 0.01, 0.05, "contradicted"),
        (NEAR, -0.01, 0.015, "reproduced"),
        (NEAR, -0.01, 0.03, "not visible at this scale"),
        (NEAR, 0.025, 0.03, "contradicted"),
        (NEAR, -0.06, -0.03, "contradicted"),
        (ABOVE, np.nan, np.nan, "not visible at this scale"),
    ],
)
def test_verdicts(claim: str, low: float, high: float, verdict: str) -> None:
    assert Finding(claim, (low + high) / 2, low, high, "").verdict == verdict


def test_every_claim_is_of_a_study_and_says_what_is_estimated() -> None:
    assert set(STUDIES) == set(get_args(StudyName))
    for claim in CLAIMS.values():
        assert claim.study in STUDIES
        assert claim.statement
        assert claim.quantity
        assert (claim.margin > 0) == (claim.expected == "near") or claim.study == "theory"


def test_there_are_about_twenty_claims() -> None:
    assert len(CLAIMS) >= 20
    assert all(isinstance(claim, Claim) for claim in CLAIMS.values())
