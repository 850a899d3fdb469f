"""The measurement: what the stopwatch counts, how large batches become, and rates that fit each other."""

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.data.table import DATASETS
from bat_dist.planning import stopwatch
from bat_dist.planning.speed import Workload, measure, network_bytes
from bat_dist.planning.timed_operations import Piece
from bat_dist.training.recipe import RECIPES, Precision
from tests.helpers import rounding
from tests.helpers.rounding import EXACT, ROUNDED, Flags, Note, opposite

notes = rounding.notes

LOADER = MemoryLoader(np.zeros((128, 8, 8, 3), np.uint8), np.zeros(128, np.int64), crop_padding=1, flip=False)
SUBJECT = Workload(
    "resnet9-w8",
    DATASETS["digits"],
    RECIPES["fast"],
    RECIPES["paper"],
    num_steps=5,
    precision="fp32",
    attacked_at_once=64,
)


class Clock:
    """In the place of the module `time`: it passes only in work that takes as long as it says."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def working(self, seconds_per_image: float, *, around: float = 0.0) -> stopwatch.Run:
        def run(loader: Any, indices: np.ndarray, size: int) -> None:
            while True:
                self.now += around
                for images, _, _ in loader.eval_epoch(indices, batch_size=size):
                    self.now += seconds_per_image * len(images)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "batch_size"),
    [
        (0.0, 2),  # not even three batches of two
        (0.2, 8),  # two batches of 8 take 0.08 s, of 32 0.32 s
        (2.0, 64),
    ],
)
def test_batches_are_as_large_as_the_time_allows(seconds: float, batch_size: int, clock: Clock) -> None:
    rate = stopwatch.rate_of(clock.working(0.005), LOADER, 128, 64, seconds=seconds, pieces=1)
    assert rate.batch_size == batch_size
    assert rate.num_batches >= 2
    assert rate.seconds == pytest.approx(0.005)
    assert clock.now < seconds + 1


def test_only_what_happens_within_the_loop_is_timed(clock: Clock) -> None:
    times = stopwatch.times_of(clock.working(0.001, around=10.0), LOADER, 128, 64, fewest=4, end=0)
    assert times == pytest.approx(4 * [0.064])


def test_the_rates_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the seconds that this process computed, whatever else the machine does."""
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=time.process_time))
    before = torch.get_num_threads()
    pieces = (Piece.PLAIN_STEP, Piece.PGD_STEP, Piece.EXACT_FORWARD, Piece.EXACT_STEP)
    found = measure(SUBJECT, pieces, seconds=8, threads=1)
    plain, craft, forward, step = (found.rates[piece].seconds for piece in pieces)
    # Forward and backward are three forward passes by the count of products, four where weights want gradients too.
    assert 1.2 < step / forward < 6
    assert 1.2 < (craft - plain) / 5 / forward < 12
    assert [found.rates[piece].batch_size for piece in pieces] == [128, 128, 64, 64]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", EXACT), ("tf32", ROUNDED), ("bf16", EXACT)])
@pytest.mark.parametrize("piece", [piece for piece in Piece if piece != Piece.CRAFT_STEP])
def test_a_piece_is_timed_in_the_precision_of_its_work(
    piece: Piece, precision: Precision, wanted: Flags, notes: set[Note]
) -> None:
    wanted = EXACT if piece in (Piece.EXACT_FORWARD, Piece.EXACT_STEP) else wanted
    with opposite(wanted):
        measure(replace(SUBJECT, arch="tinynet", precision=precision), [piece], seconds=0, threads=1)
    assert {note.flags for note in notes} == {wanted}


def test_bytes_are_those_of_the_tensors() -> None:
    subject = replace(SUBJECT, arch="tinynet")
    network, momentum = network_bytes(subject)
    assert momentum == 4 * 6418
    statistics = 2 * (8 + 16 + 32)  # mean and variance of each channel
    normalization = network - momentum - 4 * statistics - 3 * 8  # three counters of batches
    assert normalization in (0, 4 * 6)  # the data's mean and std, if they are kept with the weights
