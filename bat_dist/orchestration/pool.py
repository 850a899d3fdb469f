"""Units of work on long-lived Ray actors.

A process per unit would pay for torch, CUDA and FFCV a thousand times over; an actor pays once.  A unit is a number or
another plain value that can be hashed, and the work is a function of it alone: any unit may run twice, anywhere.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions as rx

from bat_dist.config import RunError, UserError
from bat_dist.orchestration.session import describe_resources

log = logging.getLogger(__name__)

Row = dict[str, Any]
Work = Callable[[Any], Row]

MAX_ATTEMPTS = 3
MAX_LOSSES = 30  # of a unit through lost machines, which is not the unit's fault
CAPACITY_INTERVAL = 10.0  # seconds between looks at what the cluster has
WAITING_INTERVAL = 30.0  # seconds without a worker before saying so


class WorkersCannotStart(RunError):
    """Every worker failed while it was being set up."""


@dataclass(frozen=True)
class Resources:
    """What one worker occupies: CPU cores (also its number of threads) and GPUs (fractions share one)."""

    cpus: int = 1
    gpus: float = 0.0

    @classmethod
    def of_worker(cls, cpus: int, gpus: float | None) -> "Resources":
        """What the user asked for; None is one GPU where the session's cluster has any."""
        return cls(cpus, float(ray.cluster_resources().get("GPU", 0) > 0) if gpus is None else gpus)

    def fit_into(self, node: dict[str, float]) -> int:
        """How many workers a node with these resources holds."""
        by_cpu = int(node.get("CPU", 0) / self.cpus + 1e-9)
        if not self.gpus:
            return by_cpu
        per_gpu = int(1 / self.gpus + 1e-9) if self.gpus <= 1 else 0
        gpus = int(node.get("GPU", 0))
        return min(by_cpu, gpus * per_gpu if per_gpu else int(gpus / self.gpus))


def worker_resources(cpus: int, gpus: float | None, num_workers: int | None, *, of: str) -> Resources:
    """What a worker occupies, `cpus_per_{of}` and `gpus_per_{of}` as the user asked for.

    Raises UserError if no node of the session can ever hold one; with num_workers it may wait for others to come.
    """
    resources = Resources.of_worker(cpus, gpus)
    if num_workers is None and not any(resources.fit_into(node["Resources"]) for node in ray.nodes()):
        raise UserError(
            f"no node holds a worker with {resources.cpus} CPUs and {resources.gpus:g} GPUs: "
            f"there are {describe_resources()}; "
            f"lower cpus_per_{of} or gpus_per_{of}, or give num_workers to wait for larger nodes"
        )
    return resources


@dataclass(frozen=True)
class Done:
    """A finished unit and its row."""

    unit: Any
    row: Row


@dataclass(frozen=True)
class Failed:
    """A unit that was given up, and why."""

    unit: Any
    reason: str
    attempts: int


@ray.remote
class _Worker:
    """An actor that is set up once and then works on one unit after another."""

    def setup(self, threads: int, build: Callable[..., Work], *args: Any) -> str:
        import torch

        torch.set_num_threads(threads)
        self._work = build(*args)
        return ray.get_runtime_context().get_node_id()

    def run(self, unit: Any) -> Row:
        return self._work(unit)


@dataclass
class _Seat:
    """The driver's view of one worker: `unit` is None while it is being set up, or idle."""

    actor: Any
    unit: Any = None
    node: str | None = None


@dataclass
class _Record:
    attempts: int = 0
    losses: int = 0
    reasons: list[str] = field(default_factory=list)


def run_units(
    units: Iterable[Any],
    build: Callable[..., Work],
    args: Sequence[Any],
    *,
    resources: Resources,
    num_workers: int | None = None,
    give_up_on: tuple[type[Exception], ...] = (),
    smaller: Callable[[Any], Any] | None = None,
) -> Iterator[Done | Failed]:
    """Run `build(*args)(unit)` for every unit on Ray and yield each outcome once, as it comes.

    `build` runs once in each worker; large `args` are best given as object references, which Ray copies once per node.
    As many workers run as the cluster holds, also when it grows; `num_workers` asks for that many (an autoscaler sees
    the wish).  One unit per worker is in flight.  A unit whose worker process died or that raised is tried MAX_ATTEMPTS
    times; one that raised an exception of `give_up_on` is not tried again; the loss of a machine does not count.
    units: a deque may be added to between two outcomes; workers then wait for that, instead of being let go one by one.
    smaller: what to try after a worker process died in a unit, which is mostly for want of memory.
    Raises UserError if no machine is large enough, WorkersCannotStart if setting up fails everywhere.
    """
    pool = _Pool(build, args, resources, num_workers, give_up_on, smaller)
    try:
        yield from pool.outcomes(units)
    finally:
        pool.close()


class _Pool:
    def __init__(self, build, args, resources: Resources, num_workers: int | None, give_up_on, smaller):
        self.build, self.args, self.resources = build, args, resources
        self.num_workers, self.give_up_on, self.smaller = num_workers, give_up_on, smaller
        self.seats: dict[Any, _Seat] = {}  # by the reference we wait for
        self.idle: list[_Seat] = []
        self.records: dict[Any, _Record] = {}
        self.failed_starts = 0
        self.wanted, self.looked_at, self.waiting_since = 0, -CAPACITY_INTERVAL, time.monotonic()

    def outcomes(self, units: Iterable[Any]) -> Iterator[Done | Failed]:
        self.may_grow = isinstance(units, deque)
        self.queue: deque[Any] = units if isinstance(units, deque) else deque(units)
        while self.queue or any(seat.unit is not None for seat in self.seats.values()):
            self._fill_seats()
            ready, _ = ray.wait(list(self.seats), num_returns=1, timeout=1.0)
            if not ready:
                self._say_if_waiting()
            for ref in ready:
                if outcome := self._settle(ref, self.seats.pop(ref)):
                    yield outcome

    def close(self) -> None:
        for seat in (*self.seats.values(), *self.idle):
            ray.kill(seat.actor)

    def _fill_seats(self) -> None:
        while self.queue and self.idle:
            self._next_unit(self.idle.pop())
        now = time.monotonic()
        if now - self.looked_at >= CAPACITY_INTERVAL:
            self.wanted, self.looked_at = self.num_workers or self._capacity(), now
        busy = sum(seat.unit is not None for seat in self.seats.values())
        while len(self.seats) < min(max(self.wanted, 1), len(self.queue) + busy):
            actor = _Worker.options(num_cpus=self.resources.cpus, num_gpus=self.resources.gpus).remote()
            self.seats[actor.setup.remote(self.resources.cpus, self.build, *self.args)] = _Seat(actor)

    def _capacity(self) -> int:
        return sum(self.resources.fit_into(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def _settle(self, ref: Any, seat: _Seat) -> Done | Failed | None:
        """Take what a worker answered, and give it the next unit."""
        try:
            answer: Any = ray.get(ref)
        except rx.RayTaskError as error:
            return self._raised(seat, error)
        except rx.RayError as error:  # the actor died, its machine was lost, or its answer was
            return self._lost(seat, error)
        self.failed_starts = 0
        if seat.unit is None:
            seat.node = answer
            self._next_unit(seat)
            return None
        unit = seat.unit
        self._next_unit(seat)
        return Done(unit, answer)

    def _next_unit(self, seat: _Seat) -> None:
        if self.queue:
            seat.unit = self.queue.popleft()
            self.seats[seat.actor.run.remote(seat.unit)] = seat
        elif self.may_grow:
            seat.unit = None
            self.idle.append(seat)
        else:
            ray.kill(seat.actor)

    def _raised(self, seat: _Seat, error: rx.RayTaskError) -> Failed | None:
        cause = error.cause if isinstance(error.cause, Exception) else error
        reason = f"{type(cause).__name__}: {cause}"
        if seat.unit is None:
            ray.kill(seat.actor)
            if isinstance(cause, UserError):
                raise cause
            self._failed_start(reason)
            return None
        unit = seat.unit
        self._next_unit(seat)
        return self._again_or_failed(unit, reason, hopeless=isinstance(cause, self.give_up_on))

    def _lost(self, seat: _Seat, error: rx.RayError) -> Failed | None:
        ray.kill(seat.actor)
        reason = f"worker lost: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if seat.unit is None:
            self._failed_start(reason)
            return None
        if seat.node not in alive and self._record(seat.unit).losses < MAX_LOSSES:
            self._record(seat.unit).losses += 1
            log.warning("unit %s goes back to the queue: its machine was lost", seat.unit)
            self.queue.appendleft(seat.unit)
            return None
        return self._again_or_failed(seat.unit, reason, smaller=self.smaller)

    def _again_or_failed(
        self, unit: Any, reason: str, *, hopeless: bool = False, smaller: Callable[[Any], Any] | None = None
    ) -> Failed | None:
        record = self.records.pop(unit, None) or _Record()
        record.attempts += 1
        record.reasons.append(reason)
        if hopeless or record.attempts >= MAX_ATTEMPTS:
            return Failed(unit, record.reasons[-1], record.attempts)
        log.warning("unit %s, attempt %d of %d: %s", unit, record.attempts, MAX_ATTEMPTS, reason)
        again = smaller(unit) if smaller else unit
        self.records[again] = record
        self.queue.append(again)
        return None

    def _failed_start(self, reason: str) -> None:
        self.failed_starts += 1
        log.warning("a worker did not start: %s", reason)
        if self.failed_starts >= MAX_ATTEMPTS:
            raise WorkersCannotStart(f"{self.failed_starts} workers in a row could not be set up; the last: {reason}")

    def _record(self, unit: Any) -> _Record:
        return self.records.setdefault(unit, _Record())

    def _say_if_waiting(self) -> None:
        now = time.monotonic()
        if any(seat.unit is not None for seat in self.seats.values()):
            self.waiting_since = now
        elif now - self.waiting_since > WAITING_INTERVAL:
            self.waiting_since = now
            wish = f"{self.resources.cpus} CPUs and {self.resources.gpus:g} GPUs"
            log.warning("no worker yet: starting, or waiting for %s among %s", wish, describe_resources())
