"""How far running units are: what workers add up, what the driver reads, and what people are told of it."""

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bat_dist.data.loaders import Batch
from bat_dist.storage.unit_log import record
from bat_dist.workers import share
from bat_dist.workers.pace import Pace
from bat_dist.workers.running import Assignment, Running, WorkerPlace, WorkerSlot
from bat_dist.workers.share import EpochShares, ShareReader, ToldLoader, UnitShare, told_share
from tests.helpers.waiting import until


class Store:
    """`key_value`; `calls` counts, and `is_broken` makes each raise."""

    def __init__(self) -> None:
        self.values, self.calls, self.is_broken = dict[str, Any](), 0, False

    def _called(self) -> None:
        self.calls += 1
        if self.is_broken:
            raise RuntimeError("the head is gone")

    def put(self, name: str, value: Any) -> None:
        self._called()
        self.values[name] = json.loads(json.dumps(value))

    def get(self, name: str) -> Any:
        self._called()
        return self.values.get(name)

    def remove(self, name: str) -> None:
        self._called()
        self.values.pop(name, None)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(share, "_store", lambda: made)
    monkeypatch.setattr(share, "INTERVAL", 0.02)
    return made


class TenBatches:
    def train_epoch(self, indices: Any, **how: Any) -> Iterator[Batch]:
        for part in torch.as_tensor(indices).chunk(10):
            yield Batch(torch.zeros(len(part), 3, 1, 1), part, part)

    def eval_epoch(self, indices: Any = None, *, batch_size: int) -> Iterator[Batch]:
        return self.train_epoch(range(5))


def test_the_batches_of_all_epochs_are_one() -> None:
    parts: list[float] = []
    loader = ToldLoader(TenBatches(), parts.append, epochs=4)
    for _ in range(4):
        assert sum(len(batch.labels) for batch in loader.train_epoch(range(37))) == 37
        assert len(list(loader.eval_epoch(batch_size=3))) == 5  # which are no part of the training
    assert sum(parts) == pytest.approx(1)
    assert max(parts) == 4 / (37 * 4)


def test_a_batch_counts_when_it_is_done_and_not_when_it_is_handed_out() -> None:
    parts: list[float] = []
    batches = ToldLoader(TenBatches(), parts.append, epochs=1).train_epoch(range(10))
    next(batches)
    assert parts == []
    next(batches)
    assert parts == [0.1]


def test_a_unit_begins_with_nothing_and_is_never_all_done() -> None:
    own = UnitShare()
    for _ in range(3):
        own.add(0.4)
    assert own.value == 0.99
    own.begin(7)
    assert (own.unit, own.value) == ("7", 0.0)


def slot(name: str, unit: Any) -> WorkerSlot:
    actor = SimpleNamespace(_actor_id=SimpleNamespace(hex=lambda: name))
    return WorkerSlot(actor, Assignment(unit, 1, record("started", attempt=1)), WorkerPlace("n", "h", 5))


def test_the_driver_knows_what_a_worker_tells_of_the_unit_at_work(store: Store) -> None:
    worker, slots = UnitShare(), [slot("a", 3), WorkerSlot(SimpleNamespace())]  # the second is being set up
    reader = ShareReader(lambda: slots)
    assert [now.share for now in reader.running()] == [0.0]
    worker.begin(3)
    worker.keep_telling("a")
    worker.add(0.25)
    until(lambda: [now.share for now in reader.running()] == [0.25])
    assert reader.running()[0][:3] == (3, "h", 5)
    slots[0] = slot("a", 4)  # what was told is of the unit before
    assert [now.share for now in reader.running()] == [0.0]
    assert told_share("a", 3) == 0.25
    assert told_share("a", 4) == told_share("b", 3) == 0.0
    reader.close()
    assert store.values == {}


def test_nothing_is_written_where_nothing_is_new(store: Store) -> None:
    worker = UnitShare()
    worker.begin(1)
    worker.keep_telling("a")
    worker.keep_telling("a")  # a second thread would write too
    worker.add(0.5)
    until(lambda: store.values)
    time.sleep(0.2)
    assert store.calls == 1
    assert store.values["a"] == ["1", 0.5]


def test_a_store_that_does_not_answer_ends_nothing(store: Store) -> None:
    store.is_broken = True
    worker, reader = UnitShare(), ShareReader(lambda: [slot("a", 3)])
    worker.keep_telling("a")
    worker.begin(3)
    worker.add(0.5)
    until(lambda: store.calls >= 2)
    assert [now.share for now in reader.running()] == [0.0]
    assert told_share("a", 3) == 0.0
    reader.close()


def test_a_look_that_ends_late_does_not_disturb_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, forgotten = ShareReader(list), list[str]()
    reader._known["a"] = ("3", 0.5)

    def forget(name: str) -> None:
        forgotten.append(name)
        reader._known["b"] = ("4", 0.5)  # by the reader's thread, which has waited for the store's answer

    monkeypatch.setattr(share, "forget", forget)
    reader.close()
    assert forgotten == ["a"]


def test_the_driver_looks_less_often_where_a_look_takes_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def slots() -> list[WorkerSlot]:
        time.sleep(0.05)
        return []

    reader = ShareReader(slots)
    reader.close()
    waits = iter([False, False, True])
    monkeypatch.setattr(reader, "_stop", SimpleNamespace(wait=lambda pause: pauses.append(pause) or next(waits)))
    reader._repeat()
    assert pauses[0] == share.INTERVAL
    assert pauses[1] >= 0.05 / share.LARGEST_COST


def test_each_epoch_of_a_data_parallel_training_is_told_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "HERE", UnitShare())
    tracker = EpochShares(5, "runs/x")
    share.HERE.add(0.5)
    until(lambda: told_share("runs/x", 5) == 0.5)
    tracker.log(5, {})
    assert (share.HERE.unit, share.HERE.value) == ("6", 0.0)
    tracker.close()


def test_shares_count_before_the_first_is_finished() -> None:
    now = 1000.0
    pace = Pace("trials", total=10, done=2, clock=lambda: now)
    now = 1060.0  # workers were starting
    pace.watch(lambda: [Running(2, "h", 1, 100.0, 0.25), Running(3, "h", 2, 90.0, 0.25)])
    now = 1160.0
    assert pace.done == 2.5
    assert pace.per_hour == pytest.approx(18)  # half a trial in 100 s
    assert pace.seconds_left == pytest.approx(1500)
    assert pace.describe() == "2 running, the first for 0:01:40, 25% done, 18 trials/h, 0:25:00 left"
    pace.watch(lambda: [Running(2, "h", 1, 100.0, 0.001)])
    assert pace.seconds_left is None  # too little to say anything
    pace.watch(lambda: [Running(9, "h", 1, 100.0, 0.9)] * 9)
    assert pace.done == 10  # and never more than all


def test_slow_work_has_a_rate_too() -> None:
    now = 0.0
    pace = Pace("trainings", total=4, done=0, clock=lambda: now)
    pace.step(failed=0)
    now = 36_000.0
    assert pace.describe() == "0.1 trainings/h, 30:00:00 left"
