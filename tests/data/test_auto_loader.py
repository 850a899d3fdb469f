"""`--loader auto`: FFCV where it is installed, else the images in memory, which is said once."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bat_dist.data.beton import import_ffcv
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.ffcv_loader import FfcvLoader
from bat_dist.data.loaders import LoaderUnavailable, dataset_loader, kind_at_hand
from bat_dist.data.memory_loader import MemoryLoader


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    monkeypatch.setenv("BAT_DIST_CACHE", str(tmp_path))
    for cached in (import_ffcv, kind_at_hand):
        cached.cache_clear()
    yield load_dataset("digits", num_train=20, num_test=10)
    for cached in (import_ffcv, kind_at_hand):
        cached.cache_clear()


def test_ffcv_where_it_is_installed(digits: Dataset) -> None:
    assert isinstance(dataset_loader("auto", digits, "train"), FfcvLoader)


def test_memory_where_it_is_not_and_said_once(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ffcv", None)
    with caplog.at_level(logging.INFO, "bat_dist"):
        loaders = [dataset_loader("auto", digits, name) for name in ("train", "test")]
    assert all(isinstance(loader, MemoryLoader) for loader in loaders)
    assert [message for message in caplog.messages if "FFCV is not installed" in message] == [
        "loader memory: FFCV is not installed here (its batches would be equal)"
    ]
    with pytest.raises(LoaderUnavailable, match="--loader memory"):
        dataset_loader("ffcv", digits, "train")
