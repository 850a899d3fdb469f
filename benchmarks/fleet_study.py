"""What preemption costs: a thousand leave-out trials on fleets of spot machines, by the model `preemptible_fleet`.

    python -m benchmarks.fleet_study [--num_trials 1000] [--repetitions 50] [--out docs/results/preemption]

Prints a line for each scenario, and writes `scenarios.csv` and two figures.  Scenarios differ from `Fleet()` in one
thing each, but for the first question, which asks for all lengths of a trial at all rates.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bat_dist.figures.style import DPI
from benchmarks.fleet_figures import Interval, Line, length_and_rate, lost_percent, settings_of_the_autoscaler
from benchmarks.preemptible_fleet import HOUR, MINUTE, Fleet, simulate

LENGTHS = (1, 10, 60, 240, 720)  # minutes of a trial
RATES = (0.0, 0.02, 0.05, 0.1, 0.3, 1.0)  # preemptions of one machine, per hour
USD_HEAD, USD_WORKER = 0.20, 0.40  # an hour, as cluster/gpu.yaml says; the worker on spot
TRIAL_MINUTES = 10.0
QUANTITIES = ("hours", "machine_hours", "usd", "paid_over_useful", "lost_percent", "repeated", "preempted", "given_up")


class Scenario(NamedTuple):
    """What is asked for: its question, the value of what varies, the fleet and the minutes of a trial."""

    question: str
    value: float
    fleet: Fleet
    minutes: float = TRIAL_MINUTES


Table = Mapping[str, Mapping[float, Mapping[str, Interval]]]  # question -> value -> quantity


def scenarios() -> Iterator[Scenario]:
    """All of them, by question.  Machines beside the first question: 25, unless their number varies."""
    usual = Fleet(max_machines=25)
    for rate in RATES:
        for minutes in LENGTHS:
            fleet = Fleet(max_machines=200, preemptions_per_hour=rate)
            yield Scenario(f"minutes of a trial at {rate:g} preemptions an hour", minutes, fleet, minutes)
    for machines in (4, 10, 25, 50, 84, 125, 200, 250):
        yield Scenario("max_workers", machines, replace(usual, max_machines=machines))
    for minutes in (1, 2, 5, 10, 30):
        yield Scenario("idle_timeout_minutes", minutes, replace(usual, idle_timeout=minutes * MINUTE))
        yield Scenario("idle_timeout_minutes of 200 machines", minutes, replace(Fleet(), idle_timeout=minutes * MINUTE))
    for speed in (0.1, 1, 10, 100):
        yield Scenario("upscaling_speed", speed, replace(usual, upscaling_speed=speed))
        yield Scenario("upscaling_speed of 200 machines", speed, replace(Fleet(), upscaling_speed=speed))
    for workers in (1, 2, 4, 8):
        yield Scenario("trials at a time on a machine", workers, replace(usual, workers_per_machine=workers))
    for minutes in (1, 2, 6, 15, 30):
        yield Scenario("minutes until a machine is up", minutes, replace(usual, boot=minutes * MINUTE))


def found(scenario: Scenario, num_trials: int, repetitions: int) -> Mapping[str, Interval]:
    """The quantities of a scenario, by name.

    hours: until the last trial. machine_hours: that are paid for. usd: machines and head. paid_over_useful: paid
    machine-hours over those that the trials alone would take on machines that are always full. lost_percent: work on
    trials that were cut off, of the useful work.
    """
    useful = num_trials * scenario.minutes * MINUTE
    runs = [simulate(scenario.fleet, num_trials, scenario.minutes * MINUTE, seed) for seed in range(repetitions)]
    rows = [
        (
            run.seconds / HOUR,
            run.machine_seconds / HOUR,
            (USD_WORKER * run.machine_seconds + USD_HEAD * run.seconds) / HOUR,
            run.machine_seconds * scenario.fleet.workers_per_machine / useful,
            100 * run.lost_seconds / useful,
            run.repeated,
            run.preempted,
            run.given_up,
        )
        for run in runs
    ]
    means, (lows, highs) = np.mean(rows, axis=0), np.quantile(rows, [0.025, 0.975], axis=0)
    return {name: Interval(*three) for name, *three in zip(QUANTITIES, means, lows, highs, strict=True)}


def lines(table: Table, question: str, quantity: str) -> Line:
    """A quantity by the value of what varies, without values at which a trial or more was given up in a mean run."""
    kept = {value: found for value, found in table[question].items() if found["given_up"].mean < 1}
    return Line(list(kept), [found[quantity] for found in kept.values()])


def draw(table: Table, out: Path, num_trials: int, repetitions: int) -> None:
    """Write losses.png and settings.png."""
    runs = f"means and central 95% of {repetitions} simulated runs of {num_trials:,} trials"
    by_rate = {rate: f"minutes of a trial at {rate:g} preemptions an hour" for rate in RATES}
    losses = length_and_rate(
        {rate: lines(table, question, "lost_percent") for rate, question in by_rate.items()},
        {rate: lines(table, question, "paid_over_useful") for rate, question in by_rate.items()},
        expected={rate: [lost_percent(minutes, rate) for minutes in LENGTHS] for rate in RATES},
        note=f"preemptions of one machine, per hour; 200 machines; dashed: closed form\n{runs}",
    )
    machines, idle, up = "max_workers", "idle_timeout_minutes", "minutes until a machine is up"
    settings = settings_of_the_autoscaler(
        {
            "machine-hours by machines": (machines, {"": lines(table, machines, "machine_hours")}),
            "hours until the last trial, by machines": (machines, {"": lines(table, machines, "hours")}),
            "machine-hours by idle timeout": (
                idle,
                {
                    "200 machines": lines(table, f"{idle} of 200 machines", "machine_hours"),
                    "25 machines": lines(table, idle, "machine_hours"),
                },
            ),
            "machine-hours by time to start, 25 machines": (up, {"": lines(table, up, "machine_hours")}),
        },
        useful=num_trials * TRIAL_MINUTES / 60 / Fleet().workers_per_machine,
        note=f"trials of {TRIAL_MINUTES:g} minutes, 0.05 preemptions an hour; dotted: the trials alone\n{runs}",
    )
    for name, fig in (("losses", losses), ("settings", settings)):
        fig.savefig(out / f"{name}.png", dpi=DPI * 3 / 4, metadata={"Software": None})


def write_csv(table: Table, path: Path) -> None:
    """One row for each quantity of each scenario."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["question", "value", "quantity", "mean", "low", "high"])
        for question, values in table.items():
            for value, quantities in values.items():
                for name, one in quantities.items():
                    writer.writerow([question, f"{value:g}", name, *(f"{number:.6g}" for number in one)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_trials", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--out", type=Path, help="folder for scenarios.csv and the figures")
    args = parser.parse_args()
    table: dict[str, dict[float, Mapping[str, Interval]]] = {}
    for scenario in scenarios():
        quantities = found(scenario, args.num_trials, args.repetitions)
        table.setdefault(scenario.question, {})[scenario.value] = quantities
        cells = (f"{name} {one.mean:.3g} ({one.low:.3g} to {one.high:.3g})" for name, one in quantities.items())
        print(f"{scenario.question} = {scenario.value:g}:", *cells, sep="  ", flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(table, args.out / "scenarios.csv")
        draw(table, args.out, args.num_trials, args.repetitions)


if __name__ == "__main__":
    main()
