"""The share of atypical samples: statsmodels is the truth of its interval; the paper's numbers are for whole data."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from bat_dist.studies.histogram import NUM_TRAIN, share_atypical


def some_mem(number: int, share: float) -> np.ndarray:
    return np.where(np.arange(number) < share * number, 0.5, 0.15)  # 0.15 is not above 0.15


def test_the_interval_is_wilsons_and_undefined_values_do_not_count() -> None:
    mem = np.concatenate([some_mem(200, 0.3), np.full(50, np.nan)])
    found = share_atypical(mem, "digits", "digits, 9 trials")
    assert found.estimate == 0.3
    np.testing.assert_allclose((found.low, found.high), np.array(proportion_confint(60, 200, method="wilson")))
    assert found.based_on == "digits, 9 trials, Wilson interval over samples"
    assert found.verdict == "not tested"


@pytest.mark.parametrize(("name", "paper"), [("cifar10", 0.11), ("cifar100", 0.4), ("tiny_imagenet", 0.49)])
def test_whole_data_are_compared_with_the_papers_number(name: str, paper: float) -> None:
    for share, verdict in ((paper + 0.02, "reproduced"), (paper - 0.02, "contradicted")):
        found = share_atypical(some_mem(NUM_TRAIN[name], share), name, "")
        assert (found.claim, found.verdict) == (f"share_atypical_{name}", verdict)
    assert share_atypical(some_mem(5000, paper + 0.1), name, "").verdict == "not tested"


def test_nothing_defined_is_nothing_found() -> None:
    found = share_atypical(np.full(3, np.nan), "digits", "digits")
    assert np.isnan([found.estimate, found.low, found.high]).all()
    assert found.verdict == "not tested"
