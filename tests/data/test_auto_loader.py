"""`--loader auto`: memory for data that are small or fit a GPU, else FFCV where it is installed, else memory.

No GPU is needed: what a card says of its memory is pretended.
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bat_dist.data import ffcv_loader, loaders, memory_loader
from bat_dist.data.beton import import_ffcv
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.ffcv_loader import FfcvLoader
from bat_dist.data.loaders import LoaderUnavailable, check_cache, dataset_loader, fits_gpu, kind_at_hand
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


GIB = 2**30
GPU = torch.device("cuda")
CIFAR = 50_000 * 32 * 32 * 3


def a_card(monkeypatch: pytest.MonkeyPatch, *, free: int, total: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total))


@pytest.mark.parametrize(
    ("num_bytes", "free", "total", "share", "fits"),
    [
        (CIFAR, 5 * GIB, 6 * GIB, 1.0, True),  # on a small card too
        (CIFAR, 79 * GIB, 80 * GIB, 1 / 8, True),
        (2 * GIB, 8 * GIB, 8 * GIB, 1.0, True),  # exactly a quarter
        (2 * GIB + 1, 8 * GIB, 8 * GIB, 1.0, False),
        (2 * GIB, 8 * GIB, 8 * GIB, 0.5, False),  # half of the card is another worker's
        (2 * GIB, 7 * GIB, 8 * GIB, 1.0, False),  # somebody else has some of it
        (2 * GIB, 7 * GIB, 80 * GIB, 0.5, False),
    ],
)
def test_a_quarter_of_what_a_worker_has_of_the_card(
    num_bytes: int, free: int, total: int, share: float, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_card(monkeypatch, free=free, total=total)
    assert fits_gpu(num_bytes, GPU, share) == fits


def test_the_cpu_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("a GPU was asked for"))
    assert not fits_gpu(1, torch.device("cpu"), 1.0)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("total", "kind"), [(4 * 20 * 8 * 8 * 3, "memory"), (4 * 20 * 8 * 8 * 3 - 1, "ffcv")])
def test_large_data_are_on_the_gpu_where_they_fit(
    total: int, kind: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Training images: 20 of 8 x 8."""
    a_card(monkeypatch, free=total, total=total)
    made: list[tuple[str, torch.device]] = []
    for module, name in ((memory_loader, "MemoryLoader"), (ffcv_loader, "FfcvLoader")):
        short = name.removesuffix("Loader").lower()
        monkeypatch.setattr(module, name, lambda *_, device, short=short, **__: made.append((short, device)))
    with caplog.at_level(logging.INFO, "bat_dist"):
        dataset_loader("auto", digits, "train", device=GPU)
    assert made == [(kind, GPU)]
    assert any("of the GPU's memory" in message for message in caplog.messages)


@pytest.mark.usefixtures("large")
def test_a_driver_asks_for_no_cache_on_behalf_of_gpus(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would need a look at the GPU's memory, and that takes some."""
    monkeypatch.setenv("BAT_DIST_CACHE", "/proc/no-folder")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("the driver looked"))
    check_cache("auto", digits, ("train",), on_gpu=True)
    with pytest.raises(UserError, match="/proc/no-folder"):
        check_cache("ffcv", digits, ("train",), on_gpu=True)
