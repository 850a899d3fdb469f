"""Work on Ray actors: every unit once, whatever happens to its worker."""

import gc
import itertools
import logging
import os
import socket
import sys
import threading
import time
import tracemalloc
import warnings
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.exceptions as rx
import torch
from ray import cloudpickle

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import source_hash
from bat_dist.workers import pool, share
from bat_dist.workers.nodes import LiveNode
from bat_dist.workers.pace import Pace
from bat_dist.workers.pool import UnitsFailAlike, WorkersCannotStart, run_units
from bat_dist.workers.resources import Resources
from bat_dist.workers.retry import FAIL_ALIKE, MAX_ATTEMPTS, RetryPolicy
from bat_dist.workers.running import UNKNOWN_PLACE, WorkerSlot
from bat_dist.workers.terms import ClusterTerms, check_source, folder_probe
from bat_dist.workers.units import Done, Failed
from bat_dist.workers.worker import AttemptResult

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules
ONE_CPU = Resources(cpus=1)
pytestmark = pytest.mark.usefixtures("ray_cluster")


def pool_of(num_workers: int | None = None) -> pool._Pool:
    setup = (ONE_CPU, "units", None, "a command", (), squares)
    return pool._Pool(setup, ONE_CPU, "units", num_workers, RetryPolicy())


def squares(offset):
    return lambda unit: {"value": unit**2 + offset, "process": os.getpid()}


def test_every_unit_comes_once_from_long_lived_workers() -> None:
    outcomes = list(run_units(range(20), squares, [ray.put(100)], resources=ONE_CPU))
    assert sorted(o.unit for o in outcomes) == list(range(20))
    done = [o for o in outcomes if isinstance(o, Done)]
    assert len(done) == 20
    assert all(o.row["value"] == o.unit**2 + 100 for o in done)
    assert len({o.row["process"] for o in done}) <= 2  # as many as there are CPUs, not one per unit


@pytest.fixture
def two_are_ready(monkeypatch: pytest.MonkeyPatch) -> tuple[pool._Pool, list[str]]:
    """A pool with two answers, the second of which says that its worker has other code; and those it has taken."""
    running, taken = pool_of(), list[str]()
    running.slots = {ray.put(name): WorkerSlot(None) for name in ("a row", "other code")}
    ray.wait(list(running.slots), num_returns=2)

    def settle(ref, _):
        taken.append(ray.get(ref))
        if taken[-1] == "other code":
            raise UserError(taken[-1])
        return Done(0, {})

    monkeypatch.setattr(running, "_settle", settle)
    return running, taken


def test_all_that_are_ready_have_their_next_unit_before_the_caller_has_a_row(
    two_are_ready: tuple[pool._Pool, list[str]],
) -> None:
    """A caller may take long over a row, as with a store that is far away: other workers do not wait."""
    running, taken = two_are_ready
    next(running._settle_all())
    assert taken == ["a row", "other code"]


def test_a_row_is_kept_though_another_worker_ends_the_job(two_are_ready: tuple[pool._Pool, list[str]]) -> None:
    running, _ = two_are_ready
    settled = running._settle_all()
    assert next(settled) == Done(0, {})
    with pytest.raises(UserError, match="other code"):
        next(settled)


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


def breaks_its_accelerator(marker):
    state = {"broken": False}

    def work(unit):
        if unit == 2 and not Path(marker).exists():
            Path(marker).touch()
            state["broken"] = True
        if state["broken"]:  # an illegal memory access, and CUDA answers nothing else to this process any more
            try:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            except torch.AcceleratorError as error:
                raise RuntimeError("trial failed") from error
        return {"value": unit, "process": os.getpid()}

    return work


def test_a_process_whose_accelerator_broke_gets_no_other_unit(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "broken")]
    outcomes = list(run_units(range(12), breaks_its_accelerator, arguments, resources=ONE_CPU, num_workers=1))
    done = [o for o in outcomes if isinstance(o, Done)]
    assert len(done) == len(outcomes)
    assert [o.unit for o in done] == [0, 1, *range(3, 12), 2]
    failures = [record for o in outcomes for record in o.records if record["event"] == "failed"]
    assert len(failures) == 1
    assert [o.row["process"] == done[0].row["process"] for o in done] == [True, True] + 10 * [False]


def dies_if_large():
    def work(unit):
        name, size = unit
        if size > 2:
            os._exit(1)
        return {"value": (name, size)}

    return work


def test_a_unit_that_kills_its_worker_is_tried_again_smaller() -> None:
    units, half = [("a", 1), ("b", 8)], lambda unit: (unit[0], unit[1] // 2)
    outcomes = run_units(units, dies_if_large, [], resources=ONE_CPU, smaller=half)
    done = [o for o in outcomes if isinstance(o, Done)]
    assert sorted(o.row["value"] for o in done) == [
        ("a", 1),
        ("b", 2),
    ]  # the third and last try


def test_units_can_be_added_between_outcomes_and_workers_stay() -> None:
    queue, processes, order = deque(range(2)), set(), []
    for outcome in run_units(queue, squares, [0], resources=ONE_CPU):
        order.append(outcome.unit)
        assert isinstance(outcome, Done)
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


def fails(folder, good, kinds):
    def work(unit):
        with (Path(folder) / f"tries-{unit}").open("a") as tries:
            tries.write(".")
        if unit == good:
            return {"value": unit}
        raise kinds[unit % len(kinds)](f"unit {unit}")

    return work


@pytest.mark.parametrize(("in_order", "queue"), [(True, [3, 4, 2, 5, 6]), (False, [3, 4, 5, 6, 2])])
def test_a_unit_that_is_tried_again_comes_soon_where_the_first_ones_are_needed_first(
    in_order: bool, queue: list[int]
) -> None:
    """After as many others as there are workers, here two, so that it does not fall to the same one at once."""
    units = pool._Pool((), Resources(cpus=1), "units", None, RetryPolicy(), in_order)
    units.queue, units.slots = deque([3, 4, 5, 6]), dict.fromkeys("ab", WorkerSlot(None))
    assert units._again_or_failed(2, "ArithmeticError: loss inf") is None
    assert list(units.queue) == queue


def test_it_stops_when_nothing_but_failures_of_one_kind_comes(tmp_path: Path) -> None:
    units = run_units(range(50), fails, [str(tmp_path), None, [ValueError]], resources=ONE_CPU, num_workers=1)
    outcomes = list(itertools.islice(units, FAIL_ALIKE))
    assert outcomes == [Failed(unit, f"ValueError: unit {unit}", 1) for unit in range(FAIL_ALIKE)]
    with pytest.raises(UnitsFailAlike, match=r"failures of one kind \(ValueError: unit 3\): stopped after 4, since"):
        next(units)
    assert len(list(tmp_path.iterdir())) <= FAIL_ALIKE + 1  # the next one was begun


@pytest.mark.parametrize(
    ("good", "kinds", "number"),
    [(2, [ValueError], 12), (None, [ValueError, TypeError], 12), (None, [ValueError], FAIL_ALIKE)],
    ids=["one is done", "two kinds", "no others"],
)
def test_it_goes_on_if_more_can_be_hoped_for(
    tmp_path: Path, good: int | None, kinds: list[type[Exception]], number: int
) -> None:
    outcomes = list(run_units(range(number), fails, [str(tmp_path), good, kinds], resources=ONE_CPU, num_workers=1))
    assert sorted(o.unit for o in outcomes) == list(range(number))
    assert {o.attempts for o in outcomes if isinstance(o, Failed)} == {MAX_ATTEMPTS}


def cannot_start():
    raise OSError("no such GPU")


def wrong_input():
    raise UserError("take --loader memory")


def test_workers_that_cannot_start_end_the_run() -> None:
    with pytest.raises(WorkersCannotStart, match="no such GPU"):
        list(run_units(range(3), cannot_start, [], resources=ONE_CPU))
    with pytest.raises(UserError, match="take --loader memory"):
        list(run_units(range(3), wrong_input, [], resources=ONE_CPU))


def test_a_worker_with_other_code_than_the_driver_ends_the_run_by_name() -> None:
    check_source(None)
    check_source(source_hash())
    with pytest.raises(UserError, match=f"{socket.gethostname()} runs another bat_dist"):
        list(run_units(range(3), squares, [0], resources=ONE_CPU, terms=ClusterTerms(source="0" * 12)))


def test_a_worker_that_does_not_see_the_folder_ends_the_run_by_name(tmp_path: Path) -> None:
    """Its results would be on a disk of its own."""
    with folder_probe(Folder(tmp_path)) as probe:
        terms = ClusterTerms(probe=probe)
        assert {o.unit for o in run_units([1], squares, [0], resources=ONE_CPU, terms=terms)} == {1}
    with pytest.raises(UserError, match=f"{socket.gethostname()} cannot write to what the driver made there"):
        list(run_units(range(3), squares, [0], resources=ONE_CPU, terms=terms))


# ------------------------------------------------------------------------------------------------------ records


def speaks(folder):
    """Unit 1 raises at first, unit 2 dies at first, unit 3 always raises."""
    log = logging.getLogger("bat_dist.somewhere")

    def work(unit):
        log.debug("too fine")
        log.info("unit %d speaks", unit)
        warnings.warn(f"unit {unit} warns", stacklevel=1)
        logging.getLogger("another.package").error("not ours")
        first = not (Path(folder) / str(unit)).exists()
        (Path(folder) / str(unit)).touch()
        if unit == 3 or (unit == 1 and first):
            raise ValueError("no access to s3://me:secret@host/data")
        if unit == 2 and first:
            os._exit(1)
        return {"process": os.getpid()}

    return work


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> dict[int, Done | Failed]:
    folder = str(tmp_path_factory.mktemp("spoken"))
    return {outcome.unit: outcome for outcome in run_units(range(4), speaks, [folder], resources=ONE_CPU)}


def story(outcome: Done | Failed) -> list[tuple[str, int]]:
    return [(record["event"], record["attempt"]) for record in outcome.records if record["event"] != "message"]


def test_records_tell_of_every_attempt(spoken: dict[int, Done | Failed]) -> None:
    again = [("retried", 2), ("started", 2)]
    assert story(spoken[0]) == [("started", 1), ("done", 1)]
    assert story(spoken[1]) == [("started", 1), ("failed", 1), *again, ("done", 2)]
    assert story(spoken[2]) == [("started", 1), ("lost", 1), *again, ("done", 2)]
    last = [("retried", 3), ("started", 3), ("failed", 3)]
    assert story(spoken[3]) == [("started", 1), ("failed", 1), *again, ("failed", 2), *last]
    for outcome in spoken.values():
        times = [record["time"] for record in outcome.records]
        assert times[0] <= times[-1] <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))


def test_records_name_the_place_the_time_and_the_reason(spoken: dict[int, Done | Failed]) -> None:
    for unit, outcome in spoken.items():
        for record in outcome.records:
            if record["event"] != "retried":
                assert record["host"] == socket.gethostname()
            if record["event"] in ("done", "failed", "lost"):
                assert 0 <= record["seconds"] < 60
        if isinstance(outcome, Done):
            assert outcome.records[-1]["pid"] == outcome.row["process"], unit
    died = next(record for record in spoken[2].records if record["event"] == "lost")
    assert died["pid"] not in (0, os.getpid(), spoken[2].records[-1]["pid"])
    assert died["reason"].startswith("worker lost: ActorDiedError")
    failed = next(record for record in spoken[3].records if record["event"] == "failed")
    assert failed["reason"] == "ValueError: no access to s3://***@host/data"
    assert failed["text"].startswith("Traceback")
    assert "secret" not in str(spoken[3].records)


def test_records_hold_what_was_said_in_each_attempt_and_nothing_else(spoken: dict[int, Done | Failed]) -> None:
    for unit, attempts in ((0, 1), (1, 2), (2, 1), (3, 3)):  # what a process said that died is lost with it
        said = [(r["level"], r["text"].split(" (")[0]) for r in spoken[unit].records if r["event"] == "message"]
        assert said == attempts * [("INFO", f"unit {unit} speaks"), ("WARNING", f"UserWarning: unit {unit} warns")]


def test_what_is_running_is_told_with_its_place(tmp_path: Path) -> None:
    seen, ask, has_been_told = [], [], tmp_path / "told"

    def slow():
        def work(unit: int) -> dict:
            share.HERE.add(0.25)
            while not has_been_told.exists():
                time.sleep(0.05)
            return {}

        return work

    outcomes = run_units(range(2), slow, [], resources=ONE_CPU, num_workers=2, watch=ask.append)
    shares = set[float]()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            shares.update(now.share for one in ask for now in one())
            if 0.25 in shares:
                has_been_told.touch()

    looking = threading.Thread(target=look)
    looking.start()
    for _ in outcomes:
        seen.append(ask[0]())
    stop.set()
    looking.join()
    assert shares <= {0.0, 0.25}  # of the worker's own process, through Ray
    assert [(now.unit, now.host) for now in seen[0]] in ([], [(0, socket.gethostname())], [(1, socket.gethostname())])
    assert seen[-1] == []
    assert ask[0]() == []


class FakeRay:
    """Workers that answer at once; every seventh answer is the loss of a machine, every fifth one a failure."""

    def __init__(self) -> None:
        self.number, self.asked, self.killed, self.nodes_calls = itertools.count(), {}, 0, 0

    def options(self, **_: Any) -> "FakeRay":
        return self

    def remote(self, *args: Any) -> Any:
        """Of the class: an actor.  Of its methods, which are the actor itself: a reference."""
        if not args:
            return self
        self.asked[ref := next(self.number)] = args
        return ref

    setup = run = property(lambda self: self)

    def wait(self, refs: list[int], **_: Any) -> tuple[list[int], list[int]]:
        return refs[:1], refs[1:]

    def get(self, ref: int) -> Any:
        if len(args := self.asked.pop(ref)) > 2:
            return UNKNOWN_PLACE._replace(node_id=f"node {ref}")
        if ref % 7 == 0:
            raise rx.NodeDiedError("the machine is gone")
        failed = ref % 5 == 0
        records = [{"event": "failed" if failed else "done", "text": "x" * 1000}]
        return AttemptResult(None, records, "bad luck") if failed else AttemptResult({"value": args[0]}, records)

    def kill(self, actor: Any) -> None:
        self.killed += 1

    def alive_nodes(self) -> list[LiveNode]:
        self.nodes_calls += 1
        return [LiveNode("alive", "here", {"CPU": 8})]


def takes_rays_place(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool asks it for nodes, workers and answers."""
    monkeypatch.setattr(pool, "ray", fake)
    monkeypatch.setattr(pool, "alive_nodes", fake.alive_nodes)
    monkeypatch.setattr(pool, "Worker", fake)


def test_a_thousand_units_and_many_lost_machines_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, settled = FakeRay(), bytearray(2000)
    takes_rays_place(fake, monkeypatch)
    monkeypatch.setattr(pool.log, "disabled", True)
    crowd = pool_of()
    outcomes = crowd.outcomes(range(2000))
    tracemalloc.start()
    for outcome in itertools.islice(outcomes, 100):
        settled[outcome.unit] += 1
    before = tracemalloc.get_traced_memory()[0]
    for outcome in outcomes:
        settled[outcome.unit] += 1
    del outcome
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert settled == bytearray([1]) * 2000
    assert 200 < fake.nodes_calls < 500  # a call for each loss, none for each unit
    assert grown < 20_000  # the records of 2000 units are two megabytes
    assert (crowd.slots, crowd.idle, crowd.retries.histories, len(crowd.queue)) == ({}, [], {}, 0)


def test_a_machine_that_is_lost_again_and_again_is_not_its_units_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, losses = FakeRay(), iter(range(5 * MAX_ATTEMPTS))

    def get(ref: int) -> Any:
        if len(args := fake.asked.pop(ref)) > 2:
            return UNKNOWN_PLACE._replace(node_id="gone")
        if next(losses, None) is not None:
            raise rx.NodeDiedError("the machine is gone")
        return AttemptResult({"value": args[0]}, [])

    monkeypatch.setattr(fake, "get", get)
    takes_rays_place(fake, monkeypatch)
    assert [type(outcome) for outcome in run_units([7], squares, [0], resources=ONE_CPU, num_workers=1)] == [Done]


NODE_DIED = "The actor died because its node has died. Node Id: 0123"


@pytest.mark.parametrize("error", [rx.RayError(NODE_DIED), rx.ActorUnavailableError("socket closed", None)])
def test_machines_that_go_while_workers_start_do_not_end_the_run(
    error: rx.RayError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as a large machine holds, one after the other; three processes that do not start would end it."""
    fake, gone = FakeRay(), iter([error] * 16)
    get = fake.get
    monkeypatch.setattr(fake, "get", lambda ref: _raise(lost) if (lost := next(gone, None)) else get(ref))
    takes_rays_place(fake, monkeypatch)
    assert sorted(outcome.unit for outcome in run_units(range(4), squares, [0], resources=ONE_CPU)) == [0, 1, 2, 3]
    gone = iter([rx.RayError("the process was killed")] * 3)
    with pytest.raises(WorkersCannotStart):
        list(run_units(range(4), squares, [0], resources=ONE_CPU))


def test_a_bad_gpu_that_went_with_its_machine_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    takes_rays_place(fake, monkeypatch)
    crowd = pool_of()
    gone = WorkerSlot(fake, place=UNKNOWN_PLACE._replace(node_id="gone"))
    crowd.quarantine.held = 8 * [gone]  # as many as the node that is there has
    assert sorted(outcome.unit for outcome in crowd.outcomes(range(4))) == [0, 1, 2, 3]
    crowd.quarantine.held = 8 * [WorkerSlot(fake, place=UNKNOWN_PLACE._replace(node_id="alive"))]
    crowd.looked_at = -pool.CAPACITY_INTERVAL
    with pytest.raises(WorkersCannotStart, match="no GPU that works"):
        list(crowd.outcomes(range(4)))


def test_a_gpu_that_fails_now_and_then_goes_on_working(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, turns = FakeRay(), itertools.count()

    def get(ref: int) -> Any:
        if len(args := fake.asked.pop(ref)) > 2:
            return UNKNOWN_PLACE._replace(node_id="alive", host="here", gpus="0")
        if next(turns) in (0, 1, 3, 5, 6, 8):
            return AttemptResult(None, [], "an illegal memory access", broken=True)
        return AttemptResult({"value": args[0]}, [])

    monkeypatch.setattr(fake, "get", get)
    takes_rays_place(fake, monkeypatch)
    crowd = pool_of(num_workers=1)
    assert sorted(outcome.unit for outcome in crowd.outcomes(range(9)) if isinstance(outcome, Done)) == list(range(9))
    assert crowd.quarantine.held == []


def full_at_first(fake: FakeRay, times: int) -> Any:
    """The answers of workers on GPU 0 of which the first so many find it full."""
    turns = itertools.count()

    def get(ref: int) -> Any:
        if len(args := fake.asked.pop(ref)) > 2:
            return UNKNOWN_PLACE._replace(node_id="alive", host="here", gpus="0")
        if next(turns) < times:
            return AttemptResult(None, [], "the GPU was full: share less", gpu_full=True)
        return AttemptResult({"value": args[0]}, [])

    return get


def test_a_full_gpu_ends_the_process_and_is_no_fault_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight units find it full once, more than would end the job if they had failed alike; each is then done."""
    fake = FakeRay()
    monkeypatch.setattr(fake, "get", full_at_first(fake, 8))
    takes_rays_place(fake, monkeypatch)
    crowd = pool_of(num_workers=1)
    killed = []
    outcomes = [outcome for outcome in crowd.outcomes(range(8)) if not killed.append(fake.killed)]
    assert [(type(outcome), outcome.unit) for outcome in outcomes] == [(Done, unit) for unit in range(8)]
    assert killed[0] == 8  # a process for each failure
    assert crowd.quarantine.held == []


def test_a_job_that_never_fits_ends_with_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    monkeypatch.setattr(fake, "get", full_at_first(fake, 1000))
    takes_rays_place(fake, monkeypatch)
    crowd, outcomes = pool_of(num_workers=1), []
    outcomes += crowd.outcomes([7])
    assert outcomes == [Failed(7, "the GPU was full: share less", MAX_ATTEMPTS)]
    assert crowd.quarantine.held == []


def test_a_gpu_that_is_full_when_workers_are_set_up_is_told_with_the_way_out() -> None:
    def does_not_fit():
        raise RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")

    with pytest.raises(
        WorkersCannotStart, match=r"the last: the GPU was full: .*lower the batch size \(RuntimeError: cu"
    ):
        list(run_units(range(3), does_not_fit, [], resources=ONE_CPU))


def _raise(error: Exception) -> Any:
    raise error


# ---------------------------------------------------------------------------------------------------- in flight


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


def test_pace_counts_only_what_was_done_now() -> None:
    now = 0.0
    pace = Pace("trials", total=100, done=40, clock=lambda: now)
    assert pace.describe() == "starting workers"
    for _ in range(10):
        pace.step(failed=2)
    now = 360.0
    assert pace.describe() == "100 trials/h, 0:30:00 left, 2 failed"
