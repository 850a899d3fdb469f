"""How much of its unit a worker has done: epochs of running trials and trainings count before the first is finished.

A worker's loader adds to it batch by batch. A thread of the worker writes it to Ray's key-value store, which the head
has, and a thread of the driver reads there what its workers have written: each at most once a second, and only if
there is something to tell. The store holds it under the job's name, and the driver removes it at the end. Nothing waits
for either thread, and no run ends because of them. Imports ray only where there is a session.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bat_dist.workers.running import Running, WorkerSlot, seconds_since

if TYPE_CHECKING:  # a driver that hands out work needs no torch
    from bat_dist.data.loaders import Batch, Indices, Loader

log = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two writes of a worker, and at least between two looks of the driver
LARGEST_COST = 0.02  # share of its time that the driver spends on looking


class UnitShare:
    """What part of its present unit a process has done, in [0, 1)."""

    def __init__(self) -> None:
        self.unit, self.value = "", 0.0
        self._stop: threading.Event | None = None

    def begin(self, unit: Any) -> None:
        """The next unit, of which nothing is done."""
        self.unit, self.value = str(unit), 0.0

    def add(self, part: float) -> None:
        """So much more of the unit is done.  What follows a training, such as its evaluation, is not counted."""
        self.value = min(self.value + part, 0.99)

    def keep_telling(self, name: str) -> None:
        """Write it for the driver from now on, as that of the worker of this name, until the process ends."""
        if self._stop is None:
            self._stop = threading.Event()
            threading.Thread(target=self._repeat, args=(name, self._stop), name="share", daemon=True).start()

    def _repeat(self, name: str, stop: threading.Event) -> None:
        told = ("", 0.0)
        try:
            while not stop.wait(INTERVAL):
                now = self.unit, round(self.value, 4)
                if now != told and now[1]:
                    _store().put(name, now)
                    told = now
        except Exception as error:
            log.debug("no more shares of this process: %s: %s", type(error).__name__, error)


HERE = UnitShare()
"""That of this process."""


class ShareReader:
    """What workers have told of their units, as the driver knows it; kept up to date by a thread.

    slots: says, from any thread, which workers there are.
    """

    def __init__(self, slots: Callable[[], Iterable[WorkerSlot]]) -> None:
        self._slots, self._known, self._stop = slots, dict[str, tuple[str, float]](), threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="shares", daemon=True)
        self._thread.start()

    def running(self) -> list[Running]:
        """What is at work now.  Another thread may ask."""
        slots = [(slot.assignment, slot) for slot in self._slots()]
        return [
            Running(now.unit, at.place.host, at.place.pid, seconds_since(now.since), self.of(at.name, now.unit))
            for now, at in slots
            if now
        ]

    def of(self, name: str, unit: Any) -> float:
        """The share that a worker has done of a unit; 0 if it has not told of this one."""
        told, share = self._known.get(name, ("", 0.0))
        return share if told == str(unit) else 0.0

    def close(self) -> None:
        """Look no more, and remove what has been read from Ray's store."""
        self._stop.set()
        self._thread.join(timeout=INTERVAL)
        for name in list(self._known):  # the thread may still be at its last look, where Ray's store answers slowly
            forget(name)

    def _repeat(self) -> None:
        pause = INTERVAL
        try:
            while not self._stop.wait(pause):
                start = time.perf_counter()
                for name in [slot.name for slot in self._slots() if slot.assignment]:
                    if found := _read(name):
                        self._known[name] = found
                pause = max(INTERVAL, (time.perf_counter() - start) / LARGEST_COST)
        except Exception as error:
            log.debug("no more shares of units: %s: %s", type(error).__name__, error)


class EpochShares:
    """A tracker (see `training.trackers`) by which rank 0 of a data-parallel training tells how far its epoch is.

    name: of the training, as `told_share` asks for it.
    """

    def __init__(self, first_epoch: int, name: str) -> None:
        HERE.begin(first_epoch)
        HERE.keep_telling(name)

    def log(self, epoch: int, values: Mapping[str, float | None]) -> None:
        """An epoch, counted from 1, is done, and the next begins."""
        HERE.begin(epoch + 1)

    def close(self) -> None:
        """The training is over."""


class ToldLoader:
    """A loader that says after each batch of a training epoch which part of all epochs that was.

    told: is given the part. epochs: of the whole training.
    """

    def __init__(self, loader: "Loader", told: Callable[[float], None], epochs: int) -> None:
        self._loader, self._told, self._epochs = loader, told, epochs

    def train_epoch(self, indices: "Indices", **how: Any) -> "Iterator[Batch]":
        """See `Loader`."""
        for batch in self._loader.train_epoch(indices, **how):
            yield batch
            self._told(len(batch.labels) / (len(indices) * self._epochs))

    def eval_epoch(self, indices: "Indices | None" = None, *, batch_size: int) -> "Iterator[Batch]":
        """See `Loader`."""
        return self._loader.eval_epoch(indices, batch_size=batch_size)


def told_share(name: str, unit: Any) -> float:
    """The share of a unit that the worker of this name has told; 0 if it has told none, or nobody can say."""
    try:
        told, share = _read(name) or ("", 0.0)
    except Exception as error:
        log.debug("the share of %s cannot be read: %s: %s", name, type(error).__name__, error)
        return 0.0
    return share if told == str(unit) else 0.0


def forget(name: str) -> None:
    """Remove what was written under this name, if Ray's store can be reached."""
    try:
        _store().remove(name)
    except Exception as error:  # the session is over, or the head is gone
        log.debug("%s is left in Ray's store: %s: %s", name, type(error).__name__, error)


def _read(name: str) -> tuple[str, float] | None:
    found = _store().get(name)
    return tuple(found) if found else None


def _store() -> Any:
    from bat_dist.workers import key_value  # imports ray

    return key_value
