"""`--loader auto`: memory for small data, else FFCV where it is installed, else memory, which is said once."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bat_dist.data import loaders
from bat_dist.data.beton import import_ffcv
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.ffcv_loader import FfcvLoader
from bat_dist.data.loaders import LoaderUnavailable, check_cache, dataset_loader, kind_at_hand
from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.errors import UserError


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    monkeypatch.setenv("BAT_DIST_CACHE", str(tmp_path))
    for cached in (import_ffcv, kind_at_hand):
        cached.cache_clear()
    yield load_dataset("digits", num_train=20, num_test=10)
    for cached in (import_ffcv, kind_at_hand):
        cached.cache_clear()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training split is large, the test split, of half as many images, is small."""
    monkeypatch.setattr(loaders, "SMALL_BYTES", 15 * 8 * 8 * 3)


def test_memory_for_small_data_whatever_is_installed(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "kind_at_hand", None)  # is not asked
    monkeypatch.setenv("BAT_DIST_CACHE", "/proc/no-folder")
    check_cache("auto", digits, ("train", "test"))
    assert isinstance(dataset_loader("auto", digits, "train"), MemoryLoader)


@pytest.mark.usefixtures("large")
def test_ffcv_where_it_is_installed(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(dataset_loader("auto", digits, "train"), FfcvLoader)
    assert isinstance(dataset_loader("auto", digits, "test"), MemoryLoader)
    monkeypatch.setenv("BAT_DIST_CACHE", "/proc/no-folder")
    check_cache("auto", digits, ("test",))
    with pytest.raises(UserError, match="/proc/no-folder"):
        check_cache("auto", digits, ("train",))


@pytest.mark.usefixtures("large")
def test_memory_where_it_is_not_and_said_once(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ffcv", None)
    with caplog.at_level(logging.INFO, "bat_dist"):
        loaders = [dataset_loader("auto", digits, name) for name in ("train", "train")]
    assert all(isinstance(loader, MemoryLoader) for loader in loaders)
    assert [message for message in caplog.messages if "FFCV is not installed" in message] == [
        "loader memory: FFCV is not installed here (its batches would be equal)"
    ]
    with pytest.raises(LoaderUnavailable, match="--loader memory"):
        dataset_loader("ffcv", digits, "train")
