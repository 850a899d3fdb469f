"""Work on Ray actors: every unit once, whatever happens to its worker."""

import os
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import ray

from bat_dist.config import UserError
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.subsets import subset_mask
from bat_dist.orchestration.pool import MAX_ATTEMPTS, Done, Failed, Resources, WorkersCannotStart, run_units
from bat_dist.orchestration.rows import Pace, conclude, fill_rows
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.storage.status import describe, failures

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules
ONE_CPU = Resources(cpus=1)
pytestmark = pytest.mark.usefixtures("ray_cluster")


def squares(offset):
    return lambda unit: {"value": unit**2 + offset, "process": os.getpid()}


def test_every_unit_comes_once_from_long_lived_workers() -> None:
    outcomes = list(run_units(range(20), squares, [ray.put(100)], resources=ONE_CPU))
    assert sorted(o.unit for o in outcomes) == list(range(20))
    assert all(o.row["value"] == o.unit**2 + 100 for o in outcomes)
    assert len({o.row["process"] for o in outcomes}) <= 2  # as many as there are CPUs, not one per unit


def dies_once(marker):
    def work(unit):
        if unit == 3 and not Path(marker).exists():
            Path(marker).touch()
            os._exit(1)
        return {"value": unit}

    return work


def test_a_killed_worker_costs_one_try_of_its_unit(tmp_path: Path) -> None:
    outcomes = list(run_units(range(8), dies_once, [str(tmp_path / "died")], resources=ONE_CPU))
    assert sorted(o.unit for o in outcomes if isinstance(o, Done)) == list(range(8))
    assert (tmp_path / "died").exists()


def dies_if_large():
    def work(unit):
        name, size = unit
        if size > 2:
            os._exit(1)
        return {"value": (name, size)}

    return work


def test_a_unit_that_kills_its_worker_is_tried_again_smaller() -> None:
    outcomes = run_units(
        [("a", 1), ("b", 8)], dies_if_large, [], resources=ONE_CPU, smaller=lambda unit: (unit[0], unit[1] // 2)
    )
    assert sorted(o.row["value"] for o in outcomes) == [("a", 1), ("b", 2)]  # the third and last try


def test_units_can_be_added_between_outcomes_and_workers_stay() -> None:
    queue, processes, order = deque(range(2)), set(), []
    for outcome in run_units(queue, squares, [0], resources=ONE_CPU):
        order.append(outcome.unit)
        processes.add(outcome.row["process"])
        if outcome.unit < 100 and len(order) >= 2:  # the queue is empty, workers have nothing to do
            time.sleep(0.5)
            queue.extend([outcome.unit + 100, outcome.unit + 200])
    assert sorted(order)[:2] == [0, 1]
    assert len(order) == 4
    assert len(processes) <= 2


def troubled(folder):
    def work(unit):
        with (Path(folder) / f"tries-{unit}").open("a") as tries:
            tries.write(".")
        if unit == 1:
            raise ValueError("bad luck")
        if unit == 2:
            raise ArithmeticError("loss nan in epoch 3")
        if unit == 4:
            os._exit(7)
        return {"value": unit}

    return work


def test_a_unit_that_keeps_failing_is_given_up_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    outcomes = {
        o.unit: o
        for o in run_units(range(6), troubled, [str(tmp_path)], resources=ONE_CPU, give_up_on=(ArithmeticError,))
    }
    assert sorted(outcomes) == list(range(6))
    assert {unit for unit, o in outcomes.items() if isinstance(o, Done)} == {0, 3, 5}
    failed = {unit: o for unit, o in outcomes.items() if isinstance(o, Failed)}
    assert failed[1] == Failed(1, "ValueError: bad luck", MAX_ATTEMPTS)
    assert failed[2] == Failed(2, "ArithmeticError: loss nan in epoch 3", 1)
    assert failed[4].reason.startswith("worker lost")
    tries = [len((tmp_path / f"tries-{unit}").read_text()) for unit in range(6)]
    assert tries == [1, 3, 1, 1, 3, 1]


def cannot_start():
    raise OSError("no such GPU")


def wrong_input():
    raise UserError("take --loader memory")


def test_workers_that_cannot_start_end_the_run() -> None:
    with pytest.raises(WorkersCannotStart, match="no such GPU"):
        list(run_units(range(3), cannot_start, [], resources=ONE_CPU))
    with pytest.raises(UserError, match="take --loader memory"):
        list(run_units(range(3), wrong_input, [], resources=ONE_CPU))


def slow_marker(folder):
    def work(unit):
        (Path(folder) / str(unit)).touch()
        time.sleep(0.2)
        return {}

    return work


def test_only_as_many_units_are_in_flight_as_there_are_workers(tmp_path: Path) -> None:
    outcomes = run_units(range(50), slow_marker, [str(tmp_path)], resources=ONE_CPU, num_workers=2)
    next(outcomes)
    time.sleep(1.0)
    assert len(list(tmp_path.iterdir())) <= 4
    outcomes.close()  # leaving early stops the workers
    time.sleep(1.0)
    begun = len(list(tmp_path.iterdir()))
    time.sleep(1.0)
    assert len(list(tmp_path.iterdir())) == begun


@pytest.mark.parametrize(
    ("resources", "node", "expected"),
    [
        (Resources(1, 0), {"CPU": 4}, 4),
        (Resources(3, 0), {"CPU": 4}, 1),
        (Resources(1, 0.25), {"CPU": 16, "GPU": 2}, 8),
        (Resources(1, 0.25), {"CPU": 3, "GPU": 2}, 3),
        (Resources(1, 0.3), {"CPU": 16, "GPU": 1}, 3),
        (Resources(1, 2), {"CPU": 16, "GPU": 5}, 2),
        (Resources(1, 1), {"CPU": 16}, 0),
        (Resources(1, 0.1), {"CPU": 16, "GPU": 1}, 10),
    ],
)
def test_how_many_workers_a_node_holds(resources: Resources, node: dict[str, float], expected: int) -> None:
    assert resources.fit_into(node) == expected


LABELS = np.array([0] * 10 + [1] * 10)
DUPLICATE_OF = np.arange(20)
DUPLICATE_OF[[4, 14]] = [3, 13]  # samples 3 and 4 are the same image, and so are 13 and 14


def lookup_table():
    """A learner that knows what it has seen, and answers 1 - label to all else."""

    def work(trial):
        mask = subset_mask(20, 0.7, 0, trial)
        seen = np.isin(DUPLICATE_OF, DUPLICATE_OF[mask])
        return {"mask": mask, "train_correct": seen}

    return work


def test_a_lookup_table_memorizes_the_unique_samples_and_not_the_duplicates(tmp_path: Path) -> None:
    """Through workers, store and estimate.  A duplicate is lost only in trials that leave both out."""
    num_trials = 60
    fields = {"mask": Field("bool", (20,)), "train_correct": Field("bool", (20,))}
    store = RowStore.open(Folder(tmp_path / "trials"), fields=fields, identity={}, num_rows=num_trials)
    filled = fill(store, tmp_path, num_trials, lookup_table)
    assert (filled.kept, filled.computed, filled.failed) == (0, num_trials, {})
    mask, correct = (store.read(name, np.arange(num_trials)) for name in fields)
    found = estimate_memorization(mask, correct)
    unique = np.bincount(DUPLICATE_OF, minlength=20)[DUPLICATE_OF] == 1
    np.testing.assert_array_equal(found.mem[unique], 1)
    for i, twin in ((3, 4), (4, 3), (13, 14), (14, 13)):
        without = ~mask[:, i]
        assert found.mem[i] == pytest.approx(1 - mask[without, twin].mean())
        assert found.mem[i] < 0.7


def fill(store: RowStore, folder: Path, num_rows: int, build, *args, give_up_on=()):
    return fill_rows(
        store,
        Folder(folder),
        num_rows,
        build,
        args,
        what="trials",
        resources=ONE_CPU,
        num_workers=None,
        give_up_on=give_up_on,
    )


def fails_at_first(marker):
    def work(unit):
        if unit == 2 and not Path(marker).exists():
            raise ArithmeticError("loss inf in epoch 1")
        return {"value": np.float64(unit)}

    return work


def test_failures_are_noted_reported_and_tried_again_by_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RowStore.open(Folder(tmp_path / "trials"), fields={"value": Field("float64", ())}, identity={}, num_rows=4)
    marker = tmp_path / "healed"
    first = fill(store, tmp_path, 4, fails_at_first, str(marker), give_up_on=(ArithmeticError,))
    assert first.failed == {2: "ArithmeticError: loss inf in epoch 1"}
    assert failures(Folder(tmp_path), "trials") == first.failed
    assert "trials 2 failed: ArithmeticError: loss inf" in describe(Folder(tmp_path))
    assert conclude(first, "trials") == 1
    assert "the same command tries them again" in capsys.readouterr().err
    marker.touch()
    second = fill(store, tmp_path, 4, fails_at_first, str(marker))
    assert (second.kept, second.computed, second.failed) == (3, 1, {})
    assert conclude(second, "trials") == 0
    assert failures(Folder(tmp_path), "trials") == {}


def test_pace_counts_only_what_was_done_now() -> None:
    now = 0.0
    pace = Pace("trials", total=100, done=40, clock=lambda: now)
    assert pace.describe(0) == "0 trials/h, 0:00:00 left"
    for _ in range(10):
        pace.step()
    now = 360.0
    assert pace.describe(2) == "100 trials/h, 0:30:00 left, 2 failed"
