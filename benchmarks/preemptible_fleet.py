"""A model of leave-out trials on machines that may be taken away: a discrete-event simulation (SimPy).

A fleet of 200 machines does not fit here, so its time passes in the model.  The rules are those of `workers.pool` and
of Ray's autoscaler (v2, Ray 2.60): a worker takes the next trial of the queue; a machine that is taken away loses its
running trials, which return to the head of the queue when the driver notices; a machine is asked for as long as there
is more work than room; a worker without work ends, and a machine without workers is given back after the idle timeout.
What cannot be derived (how long a machine takes to start, a worker, to be missed) is a parameter.

`fleet_study` asks the model what preemption costs, `fleet_calibration` compares it with real fleets.
"""

import math
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import simpy

from bat_dist.workers.retry import MAX_ATTEMPTS, MAX_LOSSES

Process = Generator[simpy.Event, None, None]
HOUR, MINUTE = 3600.0, 60.0
AUTOSCALER_INTERVAL, MAX_LAUNCHES = 5.0, 10  # of Ray: seconds between looks at the queue, and requests in one of them
GIVEN_UP_AFTER = MAX_LOSSES + MAX_ATTEMPTS  # losses of one trial


@dataclass(frozen=True)
class Fleet:
    """Machines and what happens to them; times in seconds.

    boot: from the request of a machine until a worker can be started on it. worker_start: until that worker has a
    trial. notice: from the loss of a machine until its trials are in the queue again. idle_timeout: until a machine
    without workers is given back. upscaling_speed: Ray asks at once for at most this many times the machines that are
    up. preemptions_per_hour: of one machine; 0 for one on demand. deaths_every: instead of random preemption, one
    machine, drawn at random, is lost each time so many seconds have passed and a trial has ended. first_boot: of the
    machines that are asked for when the run begins, if other than `boot`; Ray then asks for all of them at once.
    """

    max_machines: int = 200
    workers_per_machine: int = 4
    boot: float = 6 * MINUTE
    worker_start: float = 15.0
    notice: float = 15.0
    idle_timeout: float = 5 * MINUTE
    preemptions_per_hour: float = 0.05
    upscaling_speed: float = 100.0
    deaths_every: float | None = None
    first_boot: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What one run took.

    seconds: until the last trial was done or given up. machine_seconds: from the request of each machine until it is
    given back or lost, which is what is paid for. lost_seconds: of work on trials that were cut off. preempted:
    machines; repeated: trials, with multiplicity; given_up: trials that were lost too often.
    """

    seconds: float
    machine_seconds: float
    lost_seconds: float
    preempted: int
    repeated: int
    given_up: int


class Run:
    """One run of a fleet over a queue of trials.  trial_seconds: [trials]."""

    def __init__(self, fleet: Fleet, trial_seconds: np.ndarray, seed: int):
        self.fleet, self.trial_seconds, self.env = fleet, trial_seconds, simpy.Environment()
        self.queue = deque(range(len(trial_seconds)))
        self.rng = np.random.default_rng(seed)
        self.done: list[int] = []
        self.machines: list[Machine] = []
        self.machine_seconds = self.lost_seconds = 0.0
        self.workers_starting = self.preempted = self.repeated = self.given_up = 0
        self.losses: Counter[int] = Counter()
        self.asking = False
        self.finished = self.env.event()

    def outcome(self) -> Outcome:
        """Let time pass until every trial is done and every machine given back."""
        self.scale_up()
        if self.fleet.deaths_every:
            self.env.process(self.deaths(self.fleet.deaths_every))
        self.env.run(self.finished)
        seconds = self.env.now
        for machine in self.machines:  # all are idle now, or still starting
            since = machine.idle_since if machine.idle_since is not None else seconds
            self.machine_seconds += since + self.fleet.idle_timeout - machine.asked
        return Outcome(seconds, self.machine_seconds, self.lost_seconds, self.preempted, self.repeated, self.given_up)

    def scale_up(self) -> None:
        """Start workers where there is room, and ask for machines while there is more work than room."""
        up = [machine for machine in self.machines if machine.up]
        for machine in up:
            machine.start_workers()
        starting = (len(self.machines) - len(up)) * self.fleet.workers_per_machine
        missing = math.ceil((self.waiting() - starting) / self.fleet.workers_per_machine)
        missing = min(missing, self.fleet.max_machines - len(self.machines))
        at_once = min(MAX_LAUNCHES, math.ceil(self.fleet.upscaling_speed * max(len(up), 1)))
        if self.fleet.first_boot is not None and not self.env.now:
            at_once = missing
        for _ in range(min(missing, at_once)):
            self.machines.append(Machine(self))
        if missing > at_once and not self.asking:
            self.asking = True
            self.env.process(self.ask_again())

    def ask_again(self) -> Process:
        yield self.env.timeout(AUTOSCALER_INTERVAL)
        self.asking = False
        self.scale_up()

    def waiting(self) -> int:
        """Trials in the queue for which no worker is being started."""
        return len(self.queue) - self.workers_starting

    def complete(self, trial: int) -> None:
        self.done.append(trial)
        self.end_if_settled()

    def end_if_settled(self) -> None:
        if len(self.done) + self.given_up == len(self.trial_seconds) and not self.finished.triggered:
            self.finished.succeed()

    def return_lost(self, trials: list[int]) -> Process:
        """The driver notices that a machine is gone."""
        yield self.env.timeout(self.fleet.notice)
        self.losses.update(trials)
        again = [trial for trial in trials if self.losses[trial] < GIVEN_UP_AFTER]
        self.queue.extendleft(reversed(again))
        self.repeated += len(again)
        self.given_up += len(trials) - len(again)
        self.scale_up()
        self.end_if_settled()

    def deaths(self, every: float) -> Process:
        """As tests/workers/fleet.py: no machine is lost before a trial has ended since the last loss."""
        while True:
            done_then = len(self.done)
            yield self.env.timeout(every)
            while len(self.done) == done_then:
                yield self.env.timeout(0.1)
            if self.machines:
                self.machines[self.rng.integers(len(self.machines))].lose()


class Machine:
    """One machine, from its request to its end."""

    def __init__(self, run: Run):
        self.run, self.asked = run, run.env.now
        self.up, self.workers_starting = False, 0
        self.running: dict[int, float] = {}  # trial -> since when
        self.workers: list[simpy.Process] = []
        self.idle_since: float | None = None
        self.idle_changes = run.env.event()
        self.life = run.env.process(self._live())

    def start_workers(self) -> None:
        room = self.run.fleet.workers_per_machine - len(self.running) - self.workers_starting
        for _ in range(min(room, self.run.waiting())):
            self.workers_starting += 1
            self.run.workers_starting += 1
            self._set_idle_since(None)
            self.workers.append(self.run.env.process(self._work()))

    def lose(self) -> None:
        """The provider takes the machine away, or it fails."""
        run, now = self.run, self.run.env.now
        run.machines.remove(self)
        run.preempted += 1
        run.workers_starting -= self.workers_starting
        run.machine_seconds += now - self.asked
        run.lost_seconds += sum(now - since for since in self.running.values())
        self.up = False
        for process in [*self.workers, self.life]:
            if process.is_alive and process is not run.env.active_process:
                process.interrupt()
        run.env.process(run.return_lost(list(self.running)))

    def _set_idle_since(self, seconds: float | None) -> None:
        self.idle_since = seconds
        if not self.idle_changes.triggered:
            self.idle_changes.succeed()

    def _live(self) -> Process:
        run, env = self.run, self.run.env
        rate = run.fleet.preemptions_per_hour / HOUR
        end = env.now + (run.rng.exponential(1 / rate) if rate else math.inf)
        try:
            boot = run.fleet.boot if run.fleet.first_boot is None or env.now else run.fleet.first_boot
            yield env.timeout(min(boot, end - env.now))
            if env.now < end:
                self.up, self.idle_since = True, env.now
                self.start_workers()
            while env.now < end:
                idle_end = math.inf if self.idle_since is None else self.idle_since + run.fleet.idle_timeout
                if env.now >= idle_end:
                    run.machines.remove(self)
                    run.machine_seconds += env.now - self.asked
                    return
                self.idle_changes = env.event()
                yield env.timeout(min(idle_end, end) - env.now) | self.idle_changes
            self.lose()
        except simpy.Interrupt:
            return

    def _work(self) -> Process:
        run, env = self.run, self.run.env
        try:
            yield env.timeout(run.fleet.worker_start)
            self.workers_starting -= 1
            run.workers_starting -= 1
            while run.queue:
                trial = run.queue.popleft()
                self.running[trial] = env.now
                yield env.timeout(run.trial_seconds[trial])
                del self.running[trial]
                run.complete(trial)
            if not self.running and not self.workers_starting:
                self._set_idle_since(env.now)
        except simpy.Interrupt:
            return


def simulate(fleet: Fleet, num_trials: int, trial_seconds: float, seed: int, *, spread: float = 0.05) -> Outcome:
    """One run.  spread: standard deviation of a trial's seconds, as a share of them."""
    rng = np.random.default_rng([seed, 1])
    return Run(fleet, trial_seconds * np.maximum(0.1, rng.normal(1, spread, num_trials)), seed).outcome()


def attempts_seconds(trial_seconds: float, preemptions_per_hour: float, restart: float = 0.0) -> float:
    """Expected seconds until a trial is done that begins anew after each preemption, `restart` seconds later.

    (1/rate + restart) (exp(rate * trial_seconds) - 1), for preemptions as a Poisson process.
    """
    rate = preemptions_per_hour / HOUR
    return trial_seconds if not rate else (1 / rate + restart) * math.expm1(rate * trial_seconds)
