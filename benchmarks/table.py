"""The table of all figures, as Markdown."""

from collections.abc import Mapping, Sequence

from benchmarks.machine import Machine
from benchmarks.measurement import Figure, MachineClass, Measurement
from benchmarks.record import Entry, Fall, Summary

HEAD = ("measurement", "figure", "median (lowest to highest)", "goal", "goal met", "against the record")


def table(
    machine: Machine,
    measurements: Sequence[Measurement],
    entries: Mapping[str, Entry],
    fallen: Sequence[Fall],
    failed: Mapping[str, str],
) -> str:
    """What was measured, with the machine above it.

    fallen: figures that are worse than recorded. failed: measurements without a result, and why.
    """
    below = {(fall.measurement, fall.figure): fall for fall in fallen}
    rows, notes = [HEAD, ("---",) * len(HEAD)], list[str]()
    for measurement in measurements:
        entry = entries.get(measurement.name)
        if entry is None:
            rows.append((measurement.name, measurement.what, failed.get(measurement.name, "not measured"), "", "", ""))
            continue
        for figure in measurement.figures:
            fall = below.get((measurement.name, figure.text))
            cells = _cells(figure, entry.figures.get(figure.text), machine.machine_class)
            rows.append((measurement.name, figure.text, *cells, f"FELL, was {fall.before:.3g}" if fall else ""))
        notes += [f"{measurement.name}: {side} left out: {why}" for side, why in entry.left_out.items()]
        if measurement.images and entry.images == "synthetic":
            notes.append(f"{measurement.name}: synthetic images of CIFAR-10's shape")
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*machine.lines(), "", *lines, *([""] if notes else []), *notes])


def _cells(figure: Figure, found: Summary | None, machine_class: MachineClass) -> tuple[str, str, str]:
    """The figure, its goal, and whether it is met."""
    sign, goal = figure.goal(machine_class) or ("", 0.0)
    wanted = f"{sign} {number(goal, figure.unit)}" if sign else ""
    if found is None:
        return "left out", wanted, ""
    spread = f"{number(found.median, figure.unit)} ({found.lowest:.3g} to {found.highest:.3g})"
    met = found.median >= goal if sign == ">=" else found.median <= goal
    return spread, wanted, ("yes" if met else "NO") if sign else ""


def number(value: float, unit: str) -> str:
    """Three digits and the unit: `x2.57`, `97.5%`, `6.7 s`."""
    text = f"{value:.3g}"
    return f"x{text}" if unit == "x" else f"{text}%" if unit == "%" else f"{text} {unit}".rstrip()
