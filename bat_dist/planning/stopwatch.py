"""Timing batches from within the loop that works on them: by the loader that hands them out.

It looks at the clock when the next batch is asked for. A GPU works while its host goes on: waiting for it after every
batch would leave it idle until the host has prepared the next one, which no training does. There the clock is looked
at, and the GPU waited for, after rounds of many batches.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bat_dist.data.loaders import Batch, Loader
from bat_dist.planning.timed_operations import Rate

SMALLEST_BATCH, GROWTH = 2, 4  # the first batch tried; BatchNorm wants two images
FEWEST, MOST = 3, 200  # timed batches: for a standard error, and so that a small network does not take all the time
ROUND_SECONDS = 0.5  # of batches between two looks at a GPU's clock, so that the wait at the end weighs little

Run = Callable[[Loader, np.ndarray, int], Any]  # work on these samples of the loader, in batches of that size
Wait = Callable[[], Any]  # until the device has done what it was asked for


def rate_of(
    run: Run,
    loader: Loader,
    num_images: int,
    batch_size: int,
    *,
    seconds: float,
    pieces: int,
    wait: Wait | None = None,
) -> Rate:
    """Let the batch grow to its full size, or as far as the time reaches; that warms up. Then time it.

    wait: for a device that works behind the host's back.
    """
    size, per_round = min(SMALLEST_BATCH, batch_size), 1

    def times(*, fewest: int, end: float = 0) -> list[float]:
        return times_of(run, loader, num_images, size, fewest=fewest, end=end, wait=wait, per_round=per_round)

    # The very first batch loads libraries, which is paid once in a worker's life: it does not count.
    _, *found = times(fewest=3)
    if FEWEST * min(found) > seconds:
        return Rate.of(found, size, full_batch=batch_size, pieces=pieces)
    end = time.perf_counter() + seconds
    # The shortest batch decides: another process may have come between. Mostly the larger one takes less than that.
    while size < batch_size and FEWEST * GROWTH * min(found) < seconds:
        size = min(GROWTH * size, batch_size)
        found = times(fewest=2)
    if wait is None:
        found = found[1:] + times(fewest=FEWEST - 1, end=end)
    else:
        per_round = max(1, min(num_images // size, round(ROUND_SECONDS / min(found))))
        _, *found = times(fewest=FEWEST + 1, end=end)  # the first round warms up
    return Rate.of(found, size, full_batch=batch_size, pieces=pieces, per_round=per_round)


def times_of(
    run: Run,
    loader: Loader,
    num_images: int,
    size: int,
    *,
    fewest: int,
    end: float,
    wait: Wait | None = None,
    per_round: int = 1,
) -> list[float]:
    """Seconds of a batch in each round: `fewest` rounds, then until `end` (by time.perf_counter), MOST at most."""
    indices = np.arange(num_images // size * size)
    watch = Stopwatch(loader, indices, fewest, end, wait or (lambda: None), per_round)
    try:
        run(watch, indices, size)
    except Enough:
        return watch.times
    raise AssertionError("what is timed goes on until the loader ends it")


class Enough(Exception):
    """Ends the loop that is timed."""


class Stopwatch:
    """A `Loader` that times its batches, a round at a time: from when the first is read to when the next is asked for.

    Batches at the end of an epoch that make no whole round are not timed.
    """

    def __init__(
        self, loader: Loader, indices: np.ndarray, fewest: int, end: float, wait: Wait, per_round: int
    ) -> None:
        self.times: list[float] = []
        self._loader, self._indices, self._fewest, self._end = loader, indices, fewest, end
        self._wait, self._per_round = wait, per_round

    def train_epoch(self, indices: Any, **how: Any) -> Iterator[Batch]:
        """See `Loader`."""
        return self._watched(self._loader.train_epoch(indices, **how))

    def eval_epoch(self, indices: Any = None, *, batch_size: int) -> Iterator[Batch]:
        """See `Loader`; without indices those that fill whole batches."""
        return self._watched(
            self._loader.eval_epoch(self._indices if indices is None else indices, batch_size=batch_size)
        )

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        start = self._now()
        for number, batch in enumerate(batches, start=1):
            yield batch
            if number % self._per_round:
                continue
            now = self._now()
            self.times.append((now - start) / self._per_round)
            if len(self.times) >= MOST or (len(self.times) >= self._fewest and now >= self._end):
                raise Enough
            start = now

    def _now(self) -> float:
        """The time in seconds when all that was asked of the device is done."""
        self._wait()
        return time.perf_counter()
