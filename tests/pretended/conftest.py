"""One pretended GPU for each test, and the digits."""

from collections.abc import Iterator

import pytest

from bat_dist.attacks.graphs import SWITCH
from bat_dist.data.datasets import Dataset, load_dataset
from tests.helpers.pretended_gpu import PretendedGpu, pretended_gpu


@pytest.fixture(autouse=True)
def _no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a real GPU records; tests/attacks/test_graphs.py emulates it."""
    monkeypatch.setenv(SWITCH, "0")


@pytest.fixture
def gpu() -> Iterator[PretendedGpu]:
    with pretended_gpu() as found:
        yield found


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", num_train=100, num_test=40)
