"""Results of measurements, as results.json holds them, and what is worse than recorded."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from bat_dist.errors import UserError
from benchmarks.machine import Machine
from benchmarks.measurement import Figure, Measured, Measurement

FORMAT = 1


@dataclass(frozen=True)
class Summary:
    """A figure over the rounds."""

    median: float
    lowest: float
    highest: float
    unit: str


@dataclass(frozen=True)
class Entry:
    """One measurement on one machine.

    at: the time, ISO 8601. source: hash of the package's source. images: what they were. rounds: side -> quantity ->
    value. left_out: sides that were not measured, and why. figures: by their texts.
    """

    at: str
    source: str
    machine: Machine
    images: str
    rounds: list[dict[str, dict[str, float]]]
    left_out: dict[str, str]
    figures: dict[str, Summary]


@dataclass(frozen=True)
class Results:
    """All that is recorded: machine (`Machine.key`) -> name of the measurement -> entry."""

    format: int = FORMAT
    machines: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def of(self, machine: Machine) -> dict[str, Entry]:
        """The entries of machines of this kind, to be read and changed."""
        return self.machines.setdefault(machine.key, {})


def read(path: Path) -> Results:
    """The file's results; none if there is no file.  Raises UserError if it is damaged or of another format."""
    try:
        document = json.loads(path.read_text())
        results = TypeAdapter(Results).validate_python(document)
    except FileNotFoundError:
        return Results()
    except (ValueError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path} holds no results ({why}): restore it from git, or remove it") from None
    if results.format != FORMAT:
        raise UserError(f"{path} has format {results.format}, and this version reads {FORMAT}: remove it, or update")
    return results


def write(path: Path, results: Results) -> None:
    """Replace the file in one step, so that a run that is killed leaves a whole one."""
    part = path.with_suffix(".partial")
    part.write_text(json.dumps(asdict(results), indent=1) + "\n")
    os.replace(part, path)  # noqa: PTH105


def entry_of(
    measurement: Measurement, found: Measured, *, machine: Machine, at: str, source: str, images: str
) -> Entry:
    """What is kept of the rounds."""
    figures = {figure.text: summary(figure, found) for figure in measurement.figures}
    kept = {text: one for text, one in figures.items() if one is not None}
    rounds = [{side: dict(values) for side, values in one.items()} for one in found.rounds]
    return Entry(at, source, machine, images, rounds, found.left_out, kept)


def summary(figure: Figure, found: Measured) -> Summary | None:
    """The figure over the rounds; None if one of its sides was left out."""
    if set(figure.sides) & found.left_out.keys():
        return None
    values: Sequence[float] = figure.values(found.rounds)
    return Summary(statistics.median(values), min(values), max(values), figure.unit)


class Fall(NamedTuple):
    """A figure that is worse than recorded."""

    measurement: str
    figure: str
    before: float
    now: float


def falls(measurement: Measurement, now: Entry, recorded: Mapping[str, Entry]) -> list[Fall]:
    """The figures that are worse by more than 10% than those recorded; none without a record of the same images."""
    before = recorded.get(measurement.name)
    if before is None or before.images != now.images:
        return []
    return [
        Fall(measurement.name, figure.text, before.figures[figure.text].median, now.figures[figure.text].median)
        for figure in measurement.figures
        if figure.text in before.figures
        and figure.text in now.figures
        and figure.has_fallen(before.figures[figure.text].median, now.figures[figure.text].median)
    ]
