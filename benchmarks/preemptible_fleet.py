"""What preemption costs: a thousand leave-out trials on machines that may be taken away, as a discrete-event model.

    python benchmarks/preemptible_fleet.py [--num_trials 1000] [--trial_minutes 10] [--repetitions 50] [--out DIR]
    python benchmarks/preemptible_fleet.py --like_drill 1000 8 10      the fleet of tests/workers/fleet.py

A fleet of 200 machines does not fit here, so its time passes in the model (SimPy). The rules are those of
`workers.pool` and of Ray's autoscaler: a worker takes the next trial of the queue; a machine that is taken away loses
its running trials, which return to the head of the queue when the driver notices; a machine is asked for as long as
there is more work than room; a worker without work ends, and a machine without workers is given back after the idle
timeout.
What cannot be derived (how long a machine takes to start, a worker, to be missed) is a parameter.
"""

import argparse
import csv
import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import simpy

Process = Generator[simpy.Event, None, None]
HOUR, MINUTE = 3600.0, 60.0


@dataclass(frozen=True)
class Fleet:
    """Machines and what happens to them; times in seconds.

    boot: from the request of a machine until a worker can be started on it. worker_start: until that worker has a
    trial. notice: from the loss of a machine until its trials are in the queue again. idle_timeout: until a machine
    without workers is given back. preemptions_per_hour: of one machine; 0 for one on demand. deaths_every: instead of
    random preemption, one machine, drawn at random, is lost each time so many seconds have passed.
    """

    max_machines: int = 200
    workers_per_machine: int = 4
    boot: float = 6 * MINUTE
    worker_start: float = 15.0
    notice: float = 15.0
    idle_timeout: float = 10 * MINUTE
    preemptions_per_hour: float = 0.05
    deaths_every: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What one run took.

    seconds: until the last trial was done. machine_seconds: from the start of each machine until it is given back or
    lost, which is what is paid for. lost_seconds: of work on trials that were cut off. preempted: machines; repeated:
    trials, with multiplicity.
    """

    seconds: float
    machine_seconds: float
    lost_seconds: float
    preempted: int
    repeated: int


class Run:
    """One run of a fleet over a queue of trials.  trial_seconds: [trials]."""

    def __init__(self, fleet: Fleet, trial_seconds: np.ndarray, seed: int):
        self.fleet, self.trial_seconds, self.env = fleet, trial_seconds, simpy.Environment()
        self.queue = deque(range(len(trial_seconds)))
        self.rng = np.random.default_rng(seed)
        self.done: list[int] = []
        self.machines: list[Machine] = []
        self.machine_seconds = self.lost_seconds = 0.0
        self.preempted = self.repeated = self.noticing = 0
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
        return Outcome(seconds, self.machine_seconds, self.lost_seconds, self.preempted, self.repeated)

    def scale_up(self) -> None:
        """Start workers where there is room, and ask for machines while there is more work than room."""
        for machine in self.machines:
            if machine.up:
                machine.start_workers()
        starting = sum(
            machine.workers_starting if machine.up else self.fleet.workers_per_machine for machine in self.machines
        )
        missing = len(self.queue) - starting
        for _ in range(
            min(math.ceil(missing / self.fleet.workers_per_machine), self.fleet.max_machines - len(self.machines))
        ):
            self.machines.append(Machine(self))

    def waiting(self) -> int:
        """Trials in the queue for which no worker is being started."""
        return len(self.queue) - sum(machine.workers_starting for machine in self.machines)

    def complete(self, trial: int) -> None:
        self.done.append(trial)
        if len(self.done) == len(self.trial_seconds):
            self.finished.succeed()

    def return_lost(self, trials: list[int]) -> Process:
        """The driver notices that a machine is gone."""
        yield self.env.timeout(self.fleet.notice)
        self.queue.extendleft(reversed(trials))
        self.repeated += len(trials)
        self.scale_up()

    def deaths(self, every: float) -> Process:
        while True:
            yield self.env.timeout(every)
            if up := [machine for machine in self.machines if machine.up]:
                up[self.rng.integers(len(up))].lose()


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
            self._set_idle_since(None)
            self.workers.append(self.run.env.process(self._work()))

    def lose(self) -> None:
        """The provider takes the machine away, or it fails."""
        run, now = self.run, self.run.env.now
        run.machines.remove(self)
        run.preempted += 1
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
            yield env.timeout(min(run.fleet.boot, end - env.now))
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


QUANTITIES = ("hours", "machine_hours", "work_lost_percent", "preempted", "repeated")


def repeated_runs(fleet: Fleet, num_trials: int, trial_seconds: float, repetitions: int) -> np.ndarray:
    """[repetitions, QUANTITIES]; the work that is lost is a share of the useful work."""
    runs = [simulate(fleet, num_trials, trial_seconds, seed) for seed in range(repetitions)]
    useful = num_trials * trial_seconds
    return np.array(
        [
            (
                run.seconds / HOUR,
                run.machine_seconds / HOUR,
                100 * run.lost_seconds / useful,
                run.preempted,
                run.repeated,
            )
            for run in runs
        ]
    )


def scenarios(trial_minutes: float) -> dict[str, list[tuple[str, Fleet, float]]]:
    """By question: (label, fleet, minutes of a trial)."""
    usual = Fleet()
    return {
        "preemptions of a machine, per hour": [
            (f"{rate:g}", replace(usual, preemptions_per_hour=rate), trial_minutes)
            for rate in (0, 0.02, 0.05, 0.1, 0.3, 1)
        ],
        "minutes of a trial": [(f"{minutes:g}", usual, minutes) for minutes in (1, 10, 60, 240, 720)],
        "max_workers": [
            (str(most), replace(usual, max_machines=most), trial_minutes) for most in (4, 10, 25, 50, 84, 125, 200, 250)
        ],
        "idle_timeout_minutes": [
            (f"{minutes:g}", replace(usual, idle_timeout=minutes * MINUTE), trial_minutes)
            for minutes in (1, 2, 5, 10, 30)
        ],
        "trials on one machine at a time": [
            (str(workers), replace(usual, workers_per_machine=workers), trial_minutes) for workers in (1, 2, 4, 8)
        ],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_trials", type=int, default=1000)
    parser.add_argument("--trial_minutes", type=float, default=10)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--out", type=Path, help="folder for the table as csv")
    parser.add_argument(
        "--like_drill",
        nargs=3,
        type=float,
        metavar=("TRIALS", "MACHINES", "SECONDS"),
        help="between two deaths; trials of 1 s",
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.like_drill:
        trials, machines, every = args.like_drill
        fleet = Fleet(int(machines), 2, boot=0, worker_start=0, notice=0, preemptions_per_hour=0, deaths_every=every)
        print(simulate(fleet, int(trials), 1.0, 0, spread=0))
        return
    rows = []
    for question, fleets in scenarios(args.trial_minutes).items():
        print(f"\n{question}: mean (95% of {args.repetitions} runs)")
        for label, fleet, minutes in fleets:
            found = repeated_runs(fleet, args.num_trials, minutes * MINUTE, args.repetitions)
            low, high = np.quantile(found, [0.025, 0.975], axis=0)
            cells = [
                f"{name} {mean:.3g} ({a:.3g} to {b:.3g})"
                for name, mean, a, b in zip(QUANTITIES, found.mean(axis=0), low, high, strict=True)
            ]
            print(f"  {label:>5}  " + "  ".join(cells), flush=True)
            for name, values in zip(QUANTITIES, found.T, strict=True):
                rows.append([question, label, name, values.mean(), *np.quantile(values, [0.025, 0.975])])
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        with (args.out / "preemption.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["question", "value", "quantity", "mean", "low", "high"], *rows])


if __name__ == "__main__":
    main()
