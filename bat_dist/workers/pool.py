"""Units of work on long-lived Ray actors.

A process per unit would pay for torch, CUDA and FFCV a thousand times over; an actor pays once.  A unit is a number or
another plain value that can be hashed, and the work is a function of it alone: any unit may run twice, anywhere.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import ray
import ray.exceptions as rx

from bat_dist.errors import RunError, UserError, is_gpu_full
from bat_dist.storage.provenance import command
from bat_dist.storage.unit_log import record
from bat_dist.workers import metrics
from bat_dist.workers.gpu_share import gpu_full
from bat_dist.workers.nodes import alive_nodes, is_node_lost
from bat_dist.workers.quarantine import GpuQuarantine
from bat_dist.workers.resources import Resources, most_workers
from bat_dist.workers.retry import MAX_ATTEMPTS, RetryPolicy, UnitHistory
from bat_dist.workers.running import UNKNOWN_PLACE, Assignment, Running, WorkerPlace, WorkerSlot, seconds_since
from bat_dist.workers.session import describe_resources
from bat_dist.workers.share import ShareReader
from bat_dist.workers.terms import PRIVATE_RAY, ClusterTerms
from bat_dist.workers.units import Done, Failed, Work
from bat_dist.workers.worker import Worker

log = logging.getLogger(__name__)

MOST_AT_ONCE = 64  # rows in the driver's memory
CAPACITY_INTERVAL = 10.0  # seconds between looks at what the cluster has
WAITING_INTERVAL = 30.0  # seconds without a worker before saying so


class WorkersCannotStart(RunError):
    """Every worker failed while it was being set up, or no GPU that works is left."""


class UnitsFailAlike(RunError):
    """The first units failed on every machine, all for one kind of reason."""


def run_units(
    units: Iterable[Any],
    build: Callable[..., Work],
    args: Sequence[Any],
    *,
    resources: Resources,
    what: str = "units",
    num_workers: int | None = None,
    give_up_on: tuple[type[Exception], ...] = (),
    smaller: Callable[[Any], Any] | None = None,
    terms: ClusterTerms = PRIVATE_RAY,
    watch: Callable[[Callable[[], list[Running]]], None] | None = None,
    in_order: bool = False,
) -> Generator[Done | Failed, None, None]:
    """Run `build(*args)(unit)` for every unit on Ray and yield each outcome once, as it comes.

    `build` runs once in each worker; large `args` are best given as object references, which Ray copies once per node.
    As many workers run as the cluster holds, also when it grows, and as many are asked for as its autoscaler may bring;
    `num_workers` asks for that many (an autoscaler sees the wish).  One unit per worker is in flight, and every worker
    that is ready has its next one before an outcome is yielded: none waits for what the caller does with a row.
    A unit whose worker process died or that raised is tried MAX_ATTEMPTS times; one that raised an exception of
    `give_up_on` is not tried again; the loss of a machine does not count.  A process that lost its GPU is replaced, and
    so is one whose unit did not fit into it, which frees its memory.
    units: a deque may be added to between two outcomes; workers then wait for that, instead of being let go one by one.
    what: the units are called, in metrics.
    smaller: what to try after a worker process died in a unit, which is mostly for want of memory.
    terms: what every worker must meet, also one that joins late.
    watch: is given a function that tells, from any thread, what is running.
    in_order: a unit that is tried again comes soon, after as many others as there are workers, and not after all of
    them: for one who needs the first units first.
    Raises UserError if no machine is large enough or one does not meet the terms, WorkersCannotStart if setting up
    fails everywhere, UnitsFailAlike if nothing but failures of one kind came from every machine at work, FAIL_ALIKE at
    least, and there are units that were not tried yet; those that were are yielded as failed before.
    """
    setup = (resources, what, terms, command(), give_up_on, build, *args)
    pool = _Pool(setup, resources, what, num_workers, RetryPolicy(smaller), in_order)
    if watch:
        pool.shares = ShareReader(lambda: list(pool.slots.values()))
        watch(pool.shares.running)
    try:
        yield from pool.outcomes(units)
    finally:
        pool.close()


class _Pool:
    """Holds what is in flight and nothing else: a thousand units and many lost machines leave nothing behind.

    setup: the arguments of `Worker.setup`; the others are those of `run_units`.
    """

    def __init__(
        self,
        setup: Sequence[Any],
        resources: Resources,
        what: str,
        num_workers: int | None,
        retries: RetryPolicy,
        in_order: bool = False,
    ):
        self.setup, self.resources, self.what, self.num_workers = setup, resources, what, num_workers
        self.slots: dict[Any, WorkerSlot] = {}  # by the reference we wait for
        self.idle: list[WorkerSlot] = []
        self.retries, self.in_order, self.quarantine = retries, in_order, GpuQuarantine()
        self.shares: ShareReader | None = None  # asked only where somebody watches
        self.failed_starts = 0
        self.wanted, self.looked_at, self.waiting_since = 0, -CAPACITY_INTERVAL, time.monotonic()

    def outcomes(self, units: Iterable[Any]) -> Generator[Done | Failed, None, None]:
        self.may_grow = isinstance(units, deque)
        self.queue: deque[Any] = units if isinstance(units, deque) else deque(units)
        while self.queue or self._num_busy():
            while self.queue and self.idle:
                self._next_unit(self.idle.pop())
            self._start_workers()
            metrics.WORKERS_BUSY.tell(self._num_busy(), what=self.what)
            if not ray.wait(list(self.slots), num_returns=1, timeout=1.0)[0]:
                self._say_if_waiting()
            yield from self._settle_all()
            at_work = {slot.place.host for slot in self.slots.values() if slot.assignment}
            if self.retries.all_fail_alike(at_work, self.queue):
                for unit, history in list(self.retries.histories.items()):
                    if history.attempts:
                        yield Failed(unit, history.reason, history.attempts, tuple(history.records))
                raise UnitsFailAlike(
                    f"nothing but failures of one kind ({self.retries.last_reason}): stopped after "
                    f"{self.retries.num_failures}, since the other {self.what} would fail too; once this is "
                    "mended, the same command goes on"
                )

    def close(self) -> None:
        for slot in (*self.slots.values(), *self.idle, *self.quarantine.held):  # first: the rest is for display
            ray.kill(slot.actor)
        self.slots.clear()
        self.idle.clear()
        self.quarantine.held.clear()
        metrics.WORKERS_BUSY.tell(0, what=self.what)
        if self.shares:
            self.shares.close()

    def _num_busy(self) -> int:
        return sum(slot.assignment is not None for slot in self.slots.values())

    def _start_workers(self) -> None:
        """Start as many workers as there is work and room for."""
        now = time.monotonic()
        if now - self.looked_at >= CAPACITY_INTERVAL:
            if self.quarantine.held:
                self.quarantine.keep({node.node_id for node in alive_nodes()})
            room = most_workers(self.resources) - len(self.quarantine.held)
            if self.quarantine.held and room <= 0:
                raise WorkersCannotStart(f"no GPU that works is left: {MAX_ATTEMPTS} processes in a row failed on each")
            self.wanted, self.looked_at = self.num_workers or room, now
        while len(self.slots) < min(max(self.wanted, 1), len(self.queue) + self._num_busy()):
            actor = Worker.options(num_cpus=self.resources.cpus, num_gpus=self.resources.gpus).remote()
            self.slots[actor.setup.remote(*self.setup)] = WorkerSlot(actor)

    def _settle_all(self) -> Generator[Done | Failed, None, None]:
        """Take what has come from any worker; all have their next unit before the caller does anything with a row."""
        ready, _ = ray.wait(list(self.slots), num_returns=len(self.slots), timeout=0)
        settled = list[Done | Failed]()
        try:
            for ref in ready[:MOST_AT_ONCE]:
                if outcome := self._settle(ref, self.slots.pop(ref)):
                    settled.append(outcome)
        finally:  # what is finished is kept, whatever another worker has met
            yield from settled

    def _settle(self, ref: Any, slot: WorkerSlot) -> Done | Failed | None:
        """Take what a worker answered, and give it the next unit."""
        current = slot.assignment
        try:
            answer: Any = ray.get(ref)
        except rx.RayTaskError as error:
            return self._raised(slot, error)
        except rx.RayError as error:  # the actor died, its machine was lost, or its answer was
            return self._lost(slot, error)
        self.failed_starts = 0
        if current is None:
            slot.place, slot.since = answer, time.monotonic()
            self._next_unit(slot)
            return None
        if answer.gpu_full:  # another process may have more room: on another GPU, or here when this one is gone
            ray.kill(slot.actor)
        elif not answer.broken:
            self._next_unit(slot)
        elif self.quarantine.failed(slot):
            self.looked_at = -CAPACITY_INTERVAL  # there is room for fewer workers now
        else:
            ray.kill(slot.actor)
        self.retries.history(current.unit).records += answer.records
        if answer.row is None:
            last = current.attempt >= MAX_ATTEMPTS
            if not answer.broken and (last or not answer.gpu_full):
                self.retries.count_failure(slot.place.host, answer.reason)
            return self._again_or_failed(current.unit, answer.reason, hopeless=answer.hopeless)
        self.quarantine.works(slot.place)
        metrics.UNITS_DONE.tell(what=self.what)
        return Done(current.unit, answer.row, tuple(self.retries.done(current.unit).records))

    def _next_unit(self, slot: WorkerSlot) -> None:
        slot.assignment = None
        if self.queue:
            unit = self.queue.popleft()
            attempt = self.retries.next_attempt(unit)
            started = record("started", attempt=attempt, host=slot.place.host, pid=slot.place.pid)
            slot.assignment = Assignment(unit, attempt, started)
            self.slots[slot.actor.run.remote(unit, attempt)] = slot
        elif self.may_grow:
            self.idle.append(slot)
        else:
            ray.kill(slot.actor)

    def _raised(self, slot: WorkerSlot, error: rx.RayTaskError) -> Failed | None:
        """Setting up raised; or an answer could not be sent, as with a row that cannot be pickled."""
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, rx.RaySystemError) and isinstance(cause.client_exc, Exception):
            cause = cause.client_exc  # an argument could not be unpickled, as images that are not on this machine
        reason, current = f"{type(cause).__name__}: {cause}", slot.assignment
        if is_gpu_full(cause):
            reason = gpu_full(cause, self.resources.gpus)
        if current is None:
            ray.kill(slot.actor)
            if isinstance(cause, UserError):
                raise cause
            self._failed_start(reason)
            return None
        self._next_unit(slot)
        self._note(current, slot.place, "failed", reason=reason)
        self.retries.count_failure(slot.place.host, reason)
        return self._again_or_failed(current.unit, reason)

    def _lost(self, slot: WorkerSlot, error: rx.RayError) -> Failed | None:
        ray.kill(slot.actor)
        reason = f"worker lost: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        machine_lost = is_node_lost(error)
        if not machine_lost and slot.place is not UNKNOWN_PLACE:  # Ray may not yet say that the worker's node is dead
            machine_lost = all(node.node_id != slot.place.node_id for node in alive_nodes())
        if (current := slot.assignment) is None:
            if not machine_lost:
                self._failed_start(reason)
            return None
        metrics.UNITS_LOST.tell(what=self.what)
        self._note(current, slot.place, "lost", reason=reason, text=str(error).strip())
        if machine_lost and self.retries.forgives_loss(current.unit):
            log.warning("unit %s goes back to the queue: its machine, %s, was lost", current.unit, slot.place.host)
            self._note_retry(self.retries.history(current.unit))
            self.queue.appendleft(current.unit)
            return None
        self.retries.count_failure(slot.place.host, reason)
        return self._again_or_failed(current.unit, reason, died=True)

    def _again_or_failed(self, unit: Any, reason: str, *, hopeless: bool = False, died: bool = False) -> Failed | None:
        again, history = self.retries.failed(unit, reason, hopeless=hopeless, died=died)
        if again is None:
            metrics.UNITS_FAILED.tell(what=self.what)
            return Failed(unit, reason, history.attempts, tuple(history.records))
        log.warning("unit %s, attempt %d of %d: %s", unit, history.attempts, MAX_ATTEMPTS, reason)
        self._note_retry(history)
        self.queue.insert(len(self.slots) if self.in_order else len(self.queue), again)
        return None

    def _note(self, current: Assignment, place: WorkerPlace, event: str, **more: Any) -> None:
        """Record an attempt of which its worker does not tell."""
        seconds = seconds_since(current.since)
        ended = record(event, attempt=current.attempt, host=place.host, pid=place.pid, seconds=seconds, **more)
        self.retries.history(current.unit).records += [current.started, ended]

    def _note_retry(self, history: UnitHistory) -> None:
        metrics.UNITS_RETRIED.tell(what=self.what)
        history.records.append(record("retried", attempt=history.attempts + 1))

    def _failed_start(self, reason: str) -> None:
        self.failed_starts += 1
        log.warning("a worker did not start: %s", reason)
        if self.failed_starts >= MAX_ATTEMPTS:
            raise WorkersCannotStart(f"{self.failed_starts} workers in a row could not be set up; the last: {reason}")

    def _say_if_waiting(self) -> None:
        now = time.monotonic()
        if self._num_busy():
            self.waiting_since = now
        elif now - self.waiting_since > WAITING_INTERVAL:
            self.waiting_since = now
            wish = self.resources.in_words
            log.warning("waiting for a worker with %s; the cluster has %s", wish, describe_resources())
