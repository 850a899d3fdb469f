"""All measurements, one after another, as one table.

    python -m benchmarks [--images cifar10-images.zip] [--only NAME ...] [--quick] [--list]

Each measurement has a process of its own, and does its sides in turn within it.  What is finished is written at once to
results.unfinished.json, from which the same command goes on if it was ended; at the end the results go into
results.json, by class of machine and number of cores.  A figure that is worse by more than 10% than the recorded one of
the same kind of machine is flagged, the exit code is 1, and the record stays, unless --accept takes the new results.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from bat_dist.errors import UserError
from benchmarks.catalogue import MEASUREMENTS
from benchmarks.machine import Machine, num_cores, this_machine
from benchmarks.measurement import Context, MachineClass, Measured, Measurement, measure
from benchmarks.record import Entry, Fall, Results, entry_of, falls, read, write
from benchmarks.table import table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results.json")
QUICK_ROUNDS = 2


def options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="as for --dataset image_folder; without it they are synthetic")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these measurements")
    parser.add_argument("--list", action="store_true", help="names, what is measured and the goals, without measuring")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds; results are not recorded")
    parser.add_argument("--accept", action="store_true", help="record results that are worse than recorded, too")
    parser.add_argument(
        "--fresh", action="store_true", help="measure again what an earlier, unfinished run has measured"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help=f"default: {RESULTS.name}")
    parser.add_argument("--rounds_into", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def chosen(names: Sequence[str] | None) -> list[Measurement]:
    """The measurements of these names, or all that a run includes by default.  Raises UserError for unknown names."""
    known = {measurement.name: measurement for measurement in MEASUREMENTS}
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"no measurement is called {', '.join(unknown)}: choose of {', '.join(known)}")
    return [one for one in MEASUREMENTS if (one.name in names if names else one.by_default)]


def listing(measurements: Sequence[Measurement]) -> str:
    """Names and goals."""
    lines = []
    for one in measurements:
        lines.append(f"{one.name}: {one.what} (about {one.minutes:g} min{'' if one.by_default else ', if asked for'})")
        for figure in one.figures:
            goals = {goal for kind in get_args(MachineClass) if (goal := figure.goal(kind))}
            wanted = " or ".join(f"{sign} {goal:g}" for sign, goal in sorted(goals, key=str))
            lines.append(f"    {figure.text}, {figure.unit}{f': {wanted}' if wanted else ''}")
    return "\n".join(lines)


def rounds_here(measurement: Measurement, context: Context) -> Measured:
    """Measure in this process."""
    if measurement.on_ray:
        from bat_dist.workers.private_ray import prepare_environment

        os.environ.pop("RAY_ADDRESS", None)
        prepare_environment("local")
    rounds = measurement.rounds if context.size == "full" else QUICK_ROUNDS
    return measure(measurement, context, rounds=rounds, warm_up=measurement.warm_up, say=tell)


def rounds_apart(measurement: Measurement, asked: argparse.Namespace) -> Measured | str:
    """Measure in a process of its own; if it fails, how it ended."""
    with tempfile.TemporaryDirectory() as place:
        into = Path(place) / "rounds.json"
        words = ["--only", measurement.name, "--rounds_into", str(into)]
        words += ["--images", str(asked.images.resolve())] if asked.images else []
        words += ["--quick"] if asked.quick else []
        ended = subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, check=False)
        if ended.returncode or not into.exists():
            return f"failed with exit code {ended.returncode}"
        return Measured(**json.loads(into.read_text()))


def tell(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)


def run(asked: argparse.Namespace, measurements: Sequence[Measurement]) -> int:
    """Measure what an unfinished run has not measured, print the table and record the results; the exit code."""
    from bat_dist.storage.provenance import source_hash

    machine, source = this_machine(), source_hash()
    unfinished = asked.results.with_suffix(".unfinished.json")
    recorded, done = read(asked.results), Results() if asked.fresh or asked.quick else read(unfinished)
    entries, failed = dict[str, Entry](), dict[str, str]()
    for number, one in enumerate(measurements):
        images = (asked.images.name if asked.images else "synthetic") if one.images else ""
        kept = done.of(machine).get(one.name)
        if kept and (kept.source, kept.images) == (source, images):
            tell(f"{one.name}: measured {kept.at}")
            entries[one.name] = kept
            continue
        tell(f"{number + 1} of {len(measurements)}: {one.name}: {one.what}; about {one.minutes:g} min")
        found = rounds_apart(one, asked)
        if isinstance(found, str):
            failed[one.name] = found
            continue
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entries[one.name] = entry_of(one, found, machine=machine, at=at, source=source, images=images)
        if not asked.quick:
            done.of(machine)[one.name] = entries[one.name]
            write(unfinished, done)
    fallen = [
        fall
        for one in measurements
        if one.name in entries
        for fall in falls(one, entries[one.name], recorded.of(machine))
    ]
    print(table(machine, measurements, entries, [] if asked.quick else fallen, failed))
    if asked.quick:
        return int(bool(failed))
    for name in keep(asked, machine, recorded, entries, fallen):
        del done.of(machine)[name]
    write(unfinished, done) if any(done.machines.values()) else unfinished.unlink(missing_ok=True)
    return int(bool(failed or (fallen and not asked.accept)))


def keep(
    asked: argparse.Namespace,
    machine: Machine,
    recorded: Results,
    entries: dict[str, Entry],
    fallen: Sequence[Fall],
) -> list[str]:
    """Record the entries, those with a fallen figure only if that is accepted; the names of what is recorded."""
    worse = {fall.measurement for fall in fallen} if not asked.accept else set()
    kept = {name: entry for name, entry in entries.items() if name not in worse}
    recorded.of(machine).update(kept)
    write(asked.results, recorded)
    if worse:
        tell(f"worse than recorded: {', '.join(sorted(worse))}; the record stays; see --accept and --fresh")
    return list(kept)


def main(words: Sequence[str] | None = None) -> int:
    asked = options(sys.argv[1:] if words is None else words)
    try:
        measurements = chosen(asked.only)
        if asked.list:
            print(listing(measurements if asked.only else MEASUREMENTS))
            return 0
        if asked.images and not asked.images.exists():
            raise UserError(f"--images {asked.images} does not exist: give a folder or an archive, or leave it out")
        if asked.rounds_into is None:
            return run(asked, measurements)
        context = Context(asked.images, num_cores(), "quick" if asked.quick else "full")
        (measurement,) = measurements
        asked.rounds_into.write_text(json.dumps(rounds_here(measurement, context)._asdict()))
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
