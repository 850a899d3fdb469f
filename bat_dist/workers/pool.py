"""Units of work on long-lived Ray actors.

A process per unit would pay for torch, CUDA and FFCV a thousand times over; an actor pays once.  A unit is a number or
another plain value that can be hashed, and the work is a function of it alone: any unit may run twice, anywhere.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions as rx

from bat_dist.errors import RunError, UserError
from bat_dist.storage.provenance import command
from bat_dist.storage.unit_log import Record, record
from bat_dist.workers import metrics
from bat_dist.workers.resources import Resources, most_workers
from bat_dist.workers.running import Running
from bat_dist.workers.session import describe_resources
from bat_dist.workers.worker import UNKNOWN_PLACE, Row, Work, Worker, WorkerPlace, seconds_since

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
MAX_LOSSES = 30  # of a unit through lost machines, which is not the unit's fault
CAPACITY_INTERVAL = 10.0  # seconds between looks at what the cluster has
WAITING_INTERVAL = 30.0  # seconds without a worker before saying so
FAIL_ALIKE = 4  # units that fail for one kind of reason before any is done: the others would fail as well


class WorkersCannotStart(RunError):
    """Every worker failed while it was being set up, or no GPU that works is left."""


class UnitsFailAlike(RunError):
    """The first units failed on every machine, all for one kind of reason."""


@dataclass(frozen=True)
class Done:
    """A finished unit and its row.  records: its log (see `unit_log`), over all attempts."""

    unit: Any
    row: Row
    records: tuple[Record, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Failed:
    """A unit that was given up, and why.  records: as in `Done`."""

    unit: Any
    reason: str
    attempts: int
    records: tuple[Record, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class _Job:
    """What `run_units` was asked for."""

    build: Callable[..., Work]
    args: Sequence[Any]
    resources: Resources
    what: str
    num_workers: int | None
    give_up_on: tuple[type[Exception], ...]
    smaller: Callable[[Any], Any] | None
    expected_source: str | None

    @property
    def for_worker(self) -> tuple[Any, ...]:
        """The arguments of `Worker.setup`."""
        return (
            self.resources.cpus,
            self.what,
            self.expected_source,
            command(),
            self.give_up_on,
            self.build,
            *self.args,
        )


@dataclass(frozen=True)
class _Assignment:
    """A unit in a worker's hands.  started: the record of it, for the case that the worker never answers."""

    unit: Any
    attempt: int
    started: Record
    since: float = field(default_factory=time.perf_counter)


@dataclass
class _WorkerSlot:
    """The driver's view of one worker: `turn` is None while it is being set up, or idle."""

    actor: Any
    turn: _Assignment | None = None
    place: WorkerPlace = UNKNOWN_PLACE


@dataclass
class _UnitHistory:
    """What is known of a unit that is not settled, and came back at least once."""

    attempts: int = 0
    losses: int = 0
    reason: str = ""  # of the last attempt
    records: list[Record] = field(default_factory=list)


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
    expected_source: str | None = None,
    watch: Callable[[Callable[[], list[Running]]], None] | None = None,
) -> Generator[Done | Failed, None, None]:
    """Run `build(*args)(unit)` for every unit on Ray and yield each outcome once, as it comes.

    `build` runs once in each worker; large `args` are best given as object references, which Ray copies once per node.
    As many workers run as the cluster holds, also when it grows, and as many are asked for as its autoscaler may bring;
    `num_workers` asks for that many (an autoscaler sees the wish).  One unit per worker is in flight.
    A unit whose worker process died or that raised is tried MAX_ATTEMPTS times; one that raised an exception of
    `give_up_on` is not tried again; the loss of a machine does not count.  A process that lost its GPU is replaced.
    units: a deque may be added to between two outcomes; workers then wait for that, instead of being let go one by one.
    what: the units are called, in metrics.
    smaller: what to try after a worker process died in a unit, which is mostly for want of memory.
    expected_source: `source_hash` that every worker must have, also one that joins late.
    watch: is given a function that tells, from any thread, what is running.
    Raises UserError if no machine is large enough or one has another source, WorkersCannotStart if setting up fails
    everywhere, UnitsFailAlike if nothing but failures of one kind came from every machine at work, FAIL_ALIKE at least,
    and there are units that were not tried yet; those that were are yielded as failed before.
    """
    pool = _Pool(_Job(build, args, resources, what, num_workers, give_up_on, smaller, expected_source))
    if watch:
        watch(pool.running)
    try:
        yield from pool.outcomes(units)
    finally:
        pool.close()


class _Pool:
    """Holds what is in flight and nothing else: a thousand units and many lost machines leave nothing behind."""

    def __init__(self, job: _Job):
        self.job = job
        self.seats: dict[Any, _WorkerSlot] = {}  # by the reference we wait for
        self.idle: list[_WorkerSlot] = []
        self.tallies: dict[Any, _UnitHistory] = {}
        self.failed_starts = 0
        self.any_done = False
        self.failures: Counter[tuple[str, str]] = Counter()  # until then: by host and kind of reason
        self.last_reason = ""
        self.breaks: dict[tuple[str, str], int] = {}  # processes that a GPU failed, in a row: by host and GPU
        self.held: list[_WorkerSlot] = []  # on GPUs that do not work: as long as they stay, no other worker gets those
        self.wanted, self.looked_at, self.waiting_since = 0, -CAPACITY_INTERVAL, time.monotonic()

    def outcomes(self, units: Iterable[Any]) -> Generator[Done | Failed, None, None]:
        self.may_grow = isinstance(units, deque)
        self.queue: deque[Any] = units if isinstance(units, deque) else deque(units)
        while self.queue or self._num_busy():
            self._fill_seats()
            metrics.WORKERS_BUSY.tell(self._num_busy(), what=self.job.what)
            ready, _ = ray.wait(list(self.seats), num_returns=1, timeout=1.0)
            if not ready:
                self._say_if_waiting()
            for ref in ready:
                if outcome := self._settle(ref, self.seats.pop(ref)):
                    yield outcome
                if not self.any_done and self._fail_alike():
                    yield from self._give_up_what_was_tried()

    def running(self) -> list[Running]:
        """What is at work now.  Another thread may ask."""
        turns = [(seat.turn, seat.place) for seat in list(self.seats.values())]
        return [Running(turn.unit, place.host, place.pid, seconds_since(turn.since)) for turn, place in turns if turn]

    def close(self) -> None:
        metrics.WORKERS_BUSY.tell(0, what=self.job.what)
        for seat in (*self.seats.values(), *self.idle, *self.held):
            ray.kill(seat.actor)
        self.seats.clear()
        self.idle.clear()
        self.held.clear()

    def _num_busy(self) -> int:
        return sum(seat.turn is not None for seat in self.seats.values())

    def _fill_seats(self) -> None:
        while self.queue and self.idle:
            self._next_unit(self.idle.pop())
        now = time.monotonic()
        if now - self.looked_at >= CAPACITY_INTERVAL:
            self.held = [seat for seat in self.held if _is_there(seat.place.node_id)]
            room = most_workers(self.job.resources) - len(self.held)
            if self.held and room <= 0:
                raise WorkersCannotStart(f"no GPU that works is left: {MAX_ATTEMPTS} processes in a row failed on each")
            self.wanted, self.looked_at = self.job.num_workers or room, now
        resources = self.job.resources
        while len(self.seats) < min(max(self.wanted, 1), len(self.queue) + self._num_busy()):
            actor = Worker.options(num_cpus=resources.cpus, num_gpus=resources.gpus).remote()
            self.seats[actor.setup.remote(*self.job.for_worker)] = _WorkerSlot(actor)

    def _settle(self, ref: Any, seat: _WorkerSlot) -> Done | Failed | None:
        """Take what a worker answered, and give it the next unit."""
        turn = seat.turn
        try:
            answer: Any = ray.get(ref)
        except rx.RayTaskError as error:
            return self._raised(seat, error)
        except rx.RayError as error:  # the actor died, its machine was lost, or its answer was
            return self._lost(seat, error)
        self.failed_starts = 0
        if turn is None:
            seat.place = answer
            self._next_unit(seat)
            return None
        if answer.broken:
            self._broke(seat)
        else:
            self._next_unit(seat)
        self._tally(turn.unit).records += answer.records
        if answer.row is None:
            if not answer.broken:
                self._count_failure(seat.place, answer.reason)
            return self._again_or_failed(turn.unit, answer.reason, hopeless=answer.hopeless)
        self.any_done = True
        self.breaks.pop((seat.place.host, seat.place.gpus), None)
        metrics.UNITS_DONE.tell(what=self.job.what)
        return Done(turn.unit, answer.row, tuple(self.tallies.pop(turn.unit).records))

    def _next_unit(self, seat: _WorkerSlot) -> None:
        seat.turn = None
        if self.queue:
            unit = self.queue.popleft()
            attempt = 1 + (self.tallies[unit].attempts if unit in self.tallies else 0)
            started = record("started", attempt=attempt, host=seat.place.host, pid=seat.place.pid)
            seat.turn = _Assignment(unit, attempt, started)
            self.seats[seat.actor.run.remote(unit, attempt)] = seat
        elif self.may_grow:
            self.idle.append(seat)
        else:
            ray.kill(seat.actor)

    def _broke(self, seat: _WorkerSlot) -> None:
        """Another process may do better on the same GPU.  One GPU must not fail every unit of a long run, though."""
        seat.turn, place = None, seat.place
        gpu = (place.host, place.gpus)
        self.breaks[gpu] = self.breaks.get(gpu, 0) + 1
        if self.breaks[gpu] < MAX_ATTEMPTS:
            log.warning("process %d on %s ends: its GPU does not answer it any more", place.pid, place.host)
            ray.kill(seat.actor)
        else:
            text = "GPU %s of %s failed %d processes in a row: it gets no work until the end of this run"
            log.warning(text, place.gpus, place.host, self.breaks[gpu])
            self.held.append(seat)
            self.looked_at = -CAPACITY_INTERVAL

    def _raised(self, seat: _WorkerSlot, error: rx.RayTaskError) -> Failed | None:
        """Setting up raised; or an answer could not be sent, as with a row that cannot be pickled."""
        cause = error.cause if isinstance(error.cause, Exception) else error
        reason, turn = f"{type(cause).__name__}: {cause}", seat.turn
        if turn is None:
            ray.kill(seat.actor)
            if isinstance(cause, UserError):
                raise cause
            self._failed_start(reason)
            return None
        self._next_unit(seat)
        self._note(turn, seat.place, "failed", reason=reason)
        self._count_failure(seat.place, reason)
        return self._again_or_failed(turn.unit, reason)

    def _lost(self, seat: _WorkerSlot, error: rx.RayError) -> Failed | None:
        ray.kill(seat.actor)
        reason = f"worker lost: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        machine_lost = _machine_lost(error, seat.place)
        if (turn := seat.turn) is None:
            if not machine_lost:
                self._failed_start(reason)
            return None
        metrics.UNITS_LOST.tell(what=self.job.what)
        self._note(turn, seat.place, "lost", reason=reason, text=str(error).strip())
        tally = self._tally(turn.unit)
        if machine_lost and tally.losses < MAX_LOSSES:
            tally.losses += 1
            log.warning("unit %s goes back to the queue: its machine, %s, was lost", turn.unit, seat.place.host)
            self._note_retry(tally)
            self.queue.appendleft(turn.unit)
            return None
        self._count_failure(seat.place, reason)
        return self._again_or_failed(turn.unit, reason, smaller=self.job.smaller)

    def _count_failure(self, place: WorkerPlace, reason: str) -> None:
        if not self.any_done:
            self.failures[place.host, reason.partition(":")[0]] += 1
            self.last_reason = reason

    def _fail_alike(self) -> bool:
        """Whether nothing but failures of one kind came from every machine at work, and more would follow."""
        at_work = {seat.place.host for seat in self.seats.values() if seat.turn}
        return (
            self.failures.total() >= FAIL_ALIKE
            and len({kind for _, kind in self.failures}) == 1
            and at_work <= {host for host, _ in self.failures}
            and any(unit not in self.tallies for unit in self.queue)
        )

    def _give_up_what_was_tried(self) -> Generator[Failed, None, None]:
        tried = {unit: tally for unit, tally in self.tallies.items() if tally.attempts}
        for unit, tally in tried.items():
            yield Failed(unit, tally.reason, tally.attempts, tuple(tally.records))
        raise UnitsFailAlike(
            f"nothing but failures of one kind ({self.last_reason}): stopped after {self.failures.total()}, since "
            f"the other {self.job.what} would fail too; once this is mended, the same command goes on"
        )

    def _again_or_failed(
        self, unit: Any, reason: str, *, hopeless: bool = False, smaller: Callable[[Any], Any] | None = None
    ) -> Failed | None:
        tally = self.tallies.pop(unit)
        tally.attempts, tally.reason = tally.attempts + 1, reason
        if hopeless or tally.attempts >= MAX_ATTEMPTS:
            metrics.UNITS_FAILED.tell(what=self.job.what)
            return Failed(unit, reason, tally.attempts, tuple(tally.records))
        log.warning("unit %s, attempt %d of %d: %s", unit, tally.attempts, MAX_ATTEMPTS, reason)
        self._note_retry(tally)
        again = smaller(unit) if smaller else unit
        self.tallies[again] = tally
        self.queue.append(again)
        return None

    def _note(self, turn: _Assignment, place: WorkerPlace, event: str, **more: Any) -> None:
        """Record an attempt of which its worker does not tell."""
        about = {"attempt": turn.attempt, "host": place.host, "pid": place.pid, "seconds": seconds_since(turn.since)}
        self._tally(turn.unit).records += [turn.started, record(event, **about, **more)]

    def _note_retry(self, tally: _UnitHistory) -> None:
        metrics.UNITS_RETRIED.tell(what=self.job.what)
        tally.records.append(record("retried", attempt=tally.attempts + 1))

    def _failed_start(self, reason: str) -> None:
        self.failed_starts += 1
        log.warning("a worker did not start: %s", reason)
        if self.failed_starts >= MAX_ATTEMPTS:
            raise WorkersCannotStart(f"{self.failed_starts} workers in a row could not be set up; the last: {reason}")

    def _tally(self, unit: Any) -> _UnitHistory:
        return self.tallies.setdefault(unit, _UnitHistory())

    def _say_if_waiting(self) -> None:
        now = time.monotonic()
        if self._num_busy():
            self.waiting_since = now
        elif now - self.waiting_since > WAITING_INTERVAL:
            self.waiting_since = now
            wish = self.job.resources.in_words
            log.warning("waiting for a worker with %s; the cluster has %s", wish, describe_resources())


def _machine_lost(error: rx.RayError, place: WorkerPlace) -> bool:
    """Whether a worker went with its machine, as far as is known: Ray may find out only later that a node is dead."""
    if isinstance(error, rx.ActorUnavailableError) or "node has died" in str(error):
        return True
    return place is not UNKNOWN_PLACE and not _is_there(place.node_id)


def _is_there(node_id: str) -> bool:
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
