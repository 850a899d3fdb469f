"""Runs that end when their trials are enough, whatever the order of arrival, the failures and the kills.

Workers are replaced by a generator that hands out the trials in order, some at a time, and finishes them in any order.
"""

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.jobs import fill_rows as filling
from bat_dist.jobs.fill_rows import Filled, conclude, fill_rows
from bat_dist.jobs.until_enough import UntilEnough
from bat_dist.memorization.stopping import StoppingRule, replay
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.storage.status import describe
from bat_dist.workers.heartbeat import Heartbeat
from bat_dist.workers.resources import Resources
from bat_dist.workers.units import Done, Failed

NUM_SAMPLES, NUM_TRIALS = 60, 120
RULE = StoppingRule("width", 0.45, max_trials=NUM_TRIALS)
Workers = Callable[..., Generator[Done | Failed, None, None]]


def trial(number: int) -> dict[str, np.ndarray]:
    """A function of its number alone: a third of the samples are memorized."""
    rng = np.random.default_rng([3, number])
    mask = rng.random(NUM_SAMPLES) < 0.7
    left_out = np.where(np.arange(NUM_SAMPLES) % 3 == 0, 0.2, 0.98)
    return {"mask": mask, "train_correct": rng.random(NUM_SAMPLES) < np.where(mask, 0.99, left_out)}


def work() -> Callable[[int], dict[str, np.ndarray]]:
    return trial


def workers(seed: int, at_once: int, fails: set[int], killed_after: int | None = None) -> Workers:
    """As `run_units`: so many are at work, one of them is finished next; killed after so many outcomes."""

    def run_units(
        units: list[int], build: Callable[[], Callable[[int], Any]], args: list[Any], **how: Any
    ) -> Generator[Done | Failed, None, None]:
        assert how["in_order"]
        rng, waiting, at_work, num_done = np.random.default_rng(seed), list(units), [], 0
        while waiting or at_work:
            while waiting and len(at_work) < at_once:
                at_work.append(waiting.pop(0))
            unit = at_work.pop(rng.integers(len(at_work)))
            if num_done == killed_after:
                raise KeyboardInterrupt
            num_done += 1
            yield Failed(unit, "NonFiniteLoss: nan", 1) if unit in fails else Done(unit, build(*args)(unit))

    return run_units


def run(monkeypatch: pytest.MonkeyPatch, place: Path, by: Workers, rule: StoppingRule = RULE) -> Filled:
    monkeypatch.setattr(filling, "run_units", by)
    folder = Folder(place)
    fields = {name: Field("bool", (NUM_SAMPLES,)) for name in ("mask", "train_correct")}
    store = RowStore.open(folder / "trials", fields=fields, identity={}, num_rows=rule.max_trials)
    until = UntilEnough(folder, rule, NUM_SAMPLES, "uniform")
    until.begin(store)
    how: dict[str, Any] = {"what": "trials", "resources": Resources(cpus=1), "num_workers": None, "give_up_on": ()}
    with Heartbeat(folder, "trials", total=rule.max_trials) as heart:
        return fill_rows(store, folder, rule.max_trials, work, [], **how, heart=heart, until=until)


def expected(fails: set[int], rule: StoppingRule = RULE) -> tuple[list[int], int]:
    """The numbers of the trials that count, and how many."""
    numbers = [number for number in range(rule.max_trials) if number not in fails]
    rows = [trial(number) for number in numbers]
    mask, correct = (np.array([row[name] for row in rows]) for name in ("mask", "train_correct"))
    found = replay(mask, correct, rule)
    return numbers[: found.num_trials], found.num_trials


@pytest.mark.parametrize(("seed", "at_once"), [(0, 1), (1, 2), (2, 8), (3, 30)])
def test_workers_and_their_order_change_nothing_but_what_is_left_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int, at_once: int
) -> None:
    fails = {4, 31, 119}
    filled = run(monkeypatch, tmp_path, workers(seed, at_once, fails))
    numbers, num_trials = expected(fails)
    assert filled.enough is not None
    assert filled.enough.is_met
    assert 10 < num_trials < 100
    assert filled.enough.numbers == numbers
    found = json.loads((tmp_path / "sequential.json").read_text())
    assert found["looks"] == json.loads(json.dumps([look._asdict() for look in filled.enough.looks]))
    assert (found["num_trials"], found["is_met"], found["given_up"]) == (num_trials, True, [4, 31])
    assert filled.failed.keys() == {4, 31}  # what fails among those left over concerns nobody
    assert conclude(filled, "trials") == 1
    store = RowStore.existing(Folder(tmp_path / "trials"))
    assert store is not None
    left_over = int(store.status().complete.sum()) - num_trials
    assert 0 <= left_over <= 4 * at_once
    assert filled.computed == num_trials + left_over
    status = describe(Folder(tmp_path))
    assert (
        f"{num_trials} of at most 120 trials are enough for a median width of the intervals of at most 0.45" in status
    )
    assert (f"{left_over} more are finished and not used" in status) == (left_over > 0)
    assert "all 120 trials done" not in status


def test_a_killed_run_goes_on_to_the_same_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = run(monkeypatch, tmp_path / "whole", workers(0, 1, {7}))
    for kill, seed in ((5, 1), (1, 2), (9, 3)):
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, tmp_path / "killed", workers(seed, 6, {7}, killed_after=kill))
    again = run(monkeypatch, tmp_path / "killed", workers(9, 6, {7}))
    assert 12 <= again.kept <= 15  # 15 outcomes before, of which the failed one may be up to three
    assert whole.enough is not None
    assert again.enough is not None
    assert again.enough.numbers == whole.enough.numbers
    one, other = ((tmp_path / name / "sequential.json").read_bytes() for name in ("whole", "killed"))
    assert one == other


def test_a_rule_that_is_met_by_what_is_there_asks_for_nothing_and_a_stricter_one_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = run(monkeypatch, tmp_path, workers(0, 4, set()))
    assert first.enough is not None
    kept = first.computed
    again = run(monkeypatch, tmp_path, workers(1, 4, set()))
    assert (again.kept, again.computed) == (kept, 0)
    assert again.enough is not None
    assert again.enough.numbers == first.enough.numbers
    strict = StoppingRule("width", 0.35, max_trials=NUM_TRIALS)
    more = run(monkeypatch, tmp_path, workers(2, 4, set()), strict)
    assert more.enough is not None
    assert (more.kept, more.enough.numbers) == (kept, expected(set(), strict)[0])
    assert more.computed > 0
    assert len(more.enough.numbers) > len(first.enough.numbers)


def test_a_rule_that_is_never_met_ends_with_the_last_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rule = StoppingRule("width", 0.01, max_trials=15)
    filled = run(monkeypatch, tmp_path, workers(0, 4, {14}), rule)
    assert filled.enough is not None
    assert not filled.enough.is_met
    assert filled.enough.numbers == list(range(14))
    assert filled.failed.keys() == {14}
    assert "14 trials, the most allowed, are not enough for a median width" in describe(Folder(tmp_path))
