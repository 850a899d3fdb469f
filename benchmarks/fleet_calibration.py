"""Real fleets against their model: the parameters from some runs of tests/workers/fleet.py, judged on others.

    python tests/workers/fleet.py 200 4 20 --trial_seconds 3 >> fit.jsonl
    python tests/workers/fleet.py 300 6 20 --trial_seconds 3 >> judge.jsonl
    python -m benchmarks.fleet_calibration --fit fit.jsonl --judge judge.jsonl [--out DIR]

Prints a table in Markdown, a row for each kind of fleet, and writes `calibration.csv`, a row for each run.
What is taken from the runs of `--fit`: when the first workers have a trial, how long a lost machine is not noticed, how
long it takes to replace, and the time between two trials of a worker.  Nothing is taken from those of `--judge` but
what was done there: their trials, nodes, and the seconds between two deaths.
"""

import argparse
import bisect
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.preemptible_fleet import Fleet, Outcome, simulate

REPETITIONS = 50


@dataclass(frozen=True)
class RealRun:
    """A run of the real fleet, times in seconds.

    every: mean time between two deaths. seconds: until the last trial. lost_seconds: of work on trials that were cut
    off. first_start: until a first worker had a trial, mean. replacement: from a death until another worker had a
    trial, mean. notice: from a death until its trials were in the queue again, mean. between: two trials of a worker,
    mean. load: the machine's over the last minute, at the start and at the end.
    """

    units: int
    nodes: int
    workers_per_node: int
    trial_seconds: float
    asked_every: float
    every: float
    deaths: int
    seconds: float
    repeated: int
    lost_seconds: float
    first_start: float
    replacement: float
    notice: float
    between: float
    load: str

    @property
    def kind(self) -> tuple[float, ...]:
        """What was asked for; runs of one kind differ in the node that dies, and in the machine's load."""
        return self.units, self.nodes, self.trial_seconds, self.asked_every


def real_run(told: Mapping[str, Any]) -> RealRun:
    """What a line of tests/workers/fleet.py says.

    Of its `attempts` ([unit, event, seconds since the epoch, process]) the first start of a process is matched with the
    last death before it, and so is the loss of a trial; the first processes, as many as there is room for, are those
    that the run began with.
    """
    start, deaths = told["start"], told["death_times"]
    attempts = sorted(told["attempts"], key=lambda one: one[2])
    first_starts: dict[int, float] = {}
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    lost, notices, between = 0.0, [], []
    for unit, event, seconds, process in attempts:
        if event == "started":
            first_starts.setdefault(process, seconds)
            begun[unit] = seconds
            if process in ended:
                between.append(seconds - ended.pop(process))
        elif event == "done":
            ended[process] = seconds
        elif event == "lost":
            death = deaths[bisect.bisect(deaths, seconds) - 1]
            lost += max(0.0, death - begun[unit])
            notices.append(seconds - death)
    room = told["nodes"] * told["workers_per_node"]
    starts = sorted(first_starts.values())
    later = [seconds - deaths[at - 1] for seconds in starts[room:] if (at := bisect.bisect(deaths, seconds))]
    return RealRun(
        units=told["units"],
        nodes=told["nodes"],
        workers_per_node=told["workers_per_node"],
        trial_seconds=told["trial_seconds"],
        asked_every=told["seconds_between_deaths"],
        every=float(np.mean([b - a for a, b in pairwise([start, *deaths])])) if deaths else float("inf"),
        deaths=len(deaths),
        seconds=told["seconds"],
        repeated=len(notices),
        lost_seconds=lost,
        first_start=_mean([seconds - start for seconds in starts[:room]]),
        replacement=_mean(later),
        notice=_mean(notices),
        between=_mean(between),
        load=" to ".join(f"{load[0]:.1f}" for load in told["load"]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


class Parameters(NamedTuple):
    """What the model is given, in seconds; see `RealRun`."""

    first_start: float
    replacement: float
    notice: float
    between: float


def fitted(runs: Sequence[RealRun]) -> Parameters:
    """The means over the runs, without those in which there was nothing to measure."""
    return Parameters(*(float(np.nanmean([getattr(run, name) for run in runs])) for name in Parameters._fields))


def predicted(run: RealRun, parameters: Parameters, repetitions: int = REPETITIONS) -> list[Outcome]:
    """What the model says of such a fleet: runs that differ in the machines that die, and in when trials begin.

    The first start is spread over the length of a trial, or a death would always find trials at the same point.
    """
    fleet = Fleet(
        run.nodes,
        run.workers_per_node,
        boot=max(0.0, parameters.replacement - parameters.notice),
        worker_start=0,
        notice=parameters.notice,
        preemptions_per_hour=0,
        deaths_every=run.every,
    )
    seconds = run.trial_seconds + parameters.between
    first = parameters.first_start + seconds * ((np.arange(repetitions) + 0.5) / repetitions - 0.5)
    return [
        simulate(replace(fleet, first_boot=max(0.0, start)), run.units, seconds, seed, spread=0)
        for seed, start in enumerate(first.tolist())
    ]


def rows(runs: Sequence[RealRun], parameters: Parameters, used: str) -> list[dict[str, Any]]:
    """A row for each kind of fleet: real and modelled means, and the error of the model in percent.

    used: `fit` or `judge`.  The model is asked with the mean time between deaths of all runs of the kind; and once more
    with the parameters of these runs themselves ("own"), where only its rules can be wrong.
    """
    table = []
    for kind, group in groupby(sorted(runs, key=lambda run: run.kind), key=lambda run: run.kind):
        real = list(group)
        every = float(np.mean([run.every for run in real]))
        like = replace(real[0], every=every)
        model, own = predicted(like, parameters), predicted(like, fitted(real))
        row: dict[str, Any] = {"used": used, "trials": int(kind[0]), "nodes": int(kind[1]), "seconds each": kind[2]}
        row |= {"every": every, "runs": len(real), "load": "; ".join(run.load for run in real)}
        for name, of in (("seconds", "seconds"), ("repeated", "repeated"), ("lost seconds", "lost_seconds")):
            is_, says, knows = (np.array([getattr(run, of) for run in group], float) for group in (real, model, own))
            row |= {f"real {name}": is_.mean(), f"from {name}": is_.min(), f"to {name}": is_.max()}
            row |= {f"model {name}": says.mean(), f"error {name}": 100 * (says.mean() / is_.mean() - 1)}
            row[f"own {name}"] = 100 * (knows.mean() / is_.mean() - 1)
        table.append(row)
    return table


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """The table for people."""
    names = ("seconds", "repeated", "lost seconds")
    heads = ["used to", "fleet", "runs", "a death every", *names, "load"]
    lines = [heads, ["---"] * len(heads)]
    for row in table:
        fleet = f"{row['trials']} trials of {row['seconds each']:g} s, {row['nodes']} nodes"
        cells = [
            f"{row[f'real {name}']:.0f} ({row[f'from {name}']:.0f} to {row[f'to {name}']:.0f}); "
            f"model {row[f'model {name}']:.0f} ({row[f'error {name}']:+.0f}%; own {row[f'own {name}']:+.0f}%)"
            for name in names
        ]
        lines.append([row["used"], fleet, str(row["runs"]), f"{row['every']:.0f} s", *cells, row["load"]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(paths: Sequence[Path]) -> list[RealRun]:
    """The runs in these files, one a line."""
    return [real_run(json.loads(line)) for path in paths for line in path.read_text().splitlines() if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, nargs="+", required=True)
    parser.add_argument("--judge", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, help="folder for calibration.csv")
    args = parser.parse_args()
    fit, judge = read(args.fit), read(args.judge)
    parameters = fitted(fit)
    print(*(f"{name} {value:.2f} s" for name, value in parameters._asdict().items()), sep=", ", end="\n\n")
    print(markdown([*rows(fit, parameters, "fit"), *rows(judge, parameters, "judge")]))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        with (args.out / "calibration.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["used", *asdict(fit[0])], lineterminator="\n")
            writer.writeheader()
            for used, runs in (("fit", fit), ("judge", judge)):
                writer.writerows({"used": used, **asdict(run)} for run in runs)


if __name__ == "__main__":
    main()
