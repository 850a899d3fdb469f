"""A GPU that works while its host goes on, pretended: what the stopwatch says of it against closed forms."""

from typing import Any

import numpy as np
import pytest
import torch

from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.data.table import DATASETS
from bat_dist.errors import UserError
from bat_dist.planning import speed, stopwatch
from bat_dist.planning.timed_operations import Piece, Rate
from bat_dist.training.recipe import RECIPES

LOADER = MemoryLoader(np.zeros((512, 8, 8, 3), np.uint8), np.zeros(512, np.int64), crop_padding=1, flip=False)


class Gpu:
    """In the place of the module `time`: a host that hands batches to a device and waits only where it is told to."""

    def __init__(self, *, host: float, device: float, first: float = 0.0) -> None:
        self.host, self.device, self.first = host, device, first  # seconds of a batch; of the first one, beside them
        self.now = self.idle_from = 0.0
        self.waits = 0

    def perf_counter(self) -> float:
        return self.now

    def wait(self) -> None:
        self.now, self.waits = max(self.now, self.idle_from), self.waits + 1

    def run(self, loader: Any, indices: np.ndarray, size: int) -> None:
        while True:
            for _ in loader.eval_epoch(indices, batch_size=size):
                self.now += self.host + self.first
                self.idle_from = max(self.now, self.idle_from) + self.device
                self.first = 0.0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu(host=0.010, device=0.008, first=30.0)
    monkeypatch.setattr(stopwatch, "time", gpu)
    return gpu


@pytest.mark.parametrize(("host", "device"), [(0.010, 0.008), (0.004, 0.020)])
def test_rounds_do_not_take_the_overlap_away(host: float, device: float, gpu: Gpu) -> None:
    """Host and device work side by side, and the longer one decides; a wait after each batch adds them up."""
    gpu.host, gpu.device = host, device
    alone = stopwatch.times_of(gpu.run, LOADER, 512, 16, fewest=4, end=0, wait=gpu.wait)
    assert alone[1:] == pytest.approx(3 * [host + device])
    rounds = stopwatch.times_of(gpu.run, LOADER, 512, 16, fewest=4, end=0, wait=gpu.wait, per_round=32)
    assert rounds == pytest.approx(4 * [max(host, device) + min(host, device) / 32])


def test_a_rate_is_of_rounds_after_one_that_warms_up(gpu: Gpu) -> None:
    rate = stopwatch.rate_of(gpu.run, LOADER, 512, 16, seconds=3, pieces=1, wait=gpu.wait)
    assert rate.seconds * 16 == pytest.approx(0.010 + 0.008 / 28)  # half a second is 28 batches with a wait for each
    assert (rate.batch_size, rate.full_batch) == (16, 16)
    assert rate.num_batches % 28 == 0
    assert 3 * 28 <= rate.num_batches <= 3 / 0.010
    assert gpu.waits < rate.num_batches / 2
    assert gpu.now < 30 + 3 + 2


def test_a_round_is_no_longer_than_an_epoch(gpu: Gpu) -> None:
    rate = stopwatch.rate_of(gpu.run, LOADER, 512, 128, seconds=3, pieces=1, wait=gpu.wait)
    assert rate.seconds * 128 == pytest.approx(0.010 + 0.008 / 4)
    assert rate.num_batches % 4 == 0


def test_batches_that_make_no_whole_round_are_not_timed(gpu: Gpu) -> None:
    times = stopwatch.times_of(gpu.run, LOADER, 512, 64, fewest=3, end=0, wait=gpu.wait, per_round=5)
    assert times[1:] == pytest.approx(2 * [0.010 + 0.008 / 5])  # eight batches an epoch


def does_not_fit(limit: int) -> Any:
    def rate(size: int) -> Rate:
        if size > limit:
            raise torch.OutOfMemoryError("too little")
        return Rate(1.0, 0.1, 3, size, size)

    return rate


def test_what_does_not_fit_is_halved_where_an_evaluation_halves_it() -> None:
    assert speed._fitting(does_not_fit(200), 512, may_be_halved=True).full_batch == 128
    with pytest.raises(UserError, match="batches of 1 images do not fit"):
        speed._fitting(does_not_fit(0), 512, may_be_halved=True)
    with pytest.raises(UserError, match="batches of 512 images do not fit into this GPU's memory: lower batch_size"):
        speed._fitting(does_not_fit(200), 512, may_be_halved=False)


@pytest.mark.parametrize("piece", speed.EXACT)
def test_evaluations_are_timed_without_tf32_as_they_are_done(piece: Piece, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    spec, fast, paper = DATASETS["digits"], RECIPES["fast"], RECIPES["paper"]
    subject = speed.Workload("tinynet", spec, fast, paper, num_steps=1, precision="fp32", attacked_at_once=16)
    seen = []

    class Watched:
        """Hands out no batch, and looks at what convolutions may do."""

        def eval_epoch(self, *_: Any, **__: Any) -> list[Any]:
            seen.append(torch.backends.cudnn.allow_tf32)
            raise stopwatch.Enough

    with pytest.raises(stopwatch.Enough):
        speed._work(piece, subject, torch.nn.Identity(), Watched(), np.arange(16), 16)  # pyright: ignore[reportArgumentType]
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32
