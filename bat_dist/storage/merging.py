"""Rows of several stores of one identity in one store: for work that several clusters have shared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from bat_dist.config import differences
from bat_dist.errors import RunError, UserError
from bat_dist.storage.computed_on import read_hardware
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.wording import counted, one_of

METRICS = "metrics"  # the field that tells of a unit's computation (loss, seconds), which is never twice the same
MAX_SHOWN = 10


@dataclass(frozen=True)
class StorePart:
    """The rows of one result folder. place: the folder; what: its rows are called."""

    place: Folder
    store: RowStore
    what: str

    def __str__(self) -> str:
        return str(self.place)

    @property
    def hardware(self) -> str:
        """What the rows were computed on, in words."""
        kinds = [
            " ".join(f"{name} {value}" for name, value in one.items()) for one in read_hardware(self.place, self.what)
        ]
        return "; ".join(kinds) or "hardware that is not recorded"


@dataclass
class Joined:
    """What of each part belongs into the joined store, by its position among the parts.

    rows: numbers of the rows that are taken from it, each from the first part that has it. damaged: numbers of its rows
    that fail their digest. repeated: how many rows of it an earlier part has as well, with equal values.
    """

    rows: dict[int, list[int]] = field(default_factory=dict)
    damaged: dict[int, list[int]] = field(default_factory=dict)
    repeated: dict[int, int] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        """The numbers of all rows, ascending."""
        return sorted(number for rows in self.rows.values() for number in rows)


def check_identity(part: StorePart, identity: Mapping[str, Any]) -> None:
    """Raise UserError, naming what differs, if the part's rows are of another identity."""
    if changes := differences(part.store.identity, identity):
        raise UserError(
            f"{part} holds {part.what} of other settings or data, which cannot be merged. "
            f"It differs in: {'; '.join(changes)}"
        )


def common_fields(parts: Sequence[StorePart]) -> dict[str, Field]:
    """The fields that all parts have.  Raises UserError if they have one of them in different types or shapes."""
    first, *others = parts
    found = {name: one for name, one in first.store.fields.items() if all(name in p.store.fields for p in others)}
    for other in others:
        if different := [name for name, one in found.items() if other.store.fields[name] != one]:
            raise UserError(f"{first} and {other} have rows of different forms in {', '.join(different)}")
    return found


def join(parts: Sequence[StorePart], fields: Iterable[str]) -> Joined:
    """Find out which row to take from which part, reading them all.

    Raises UserError, with the numbers of the rows and the fields, where two parts have different values in one row;
    `METRICS` may differ.
    """
    compared = [name for name in fields if name != METRICS]
    joined = Joined()
    disagreeing: dict[tuple[int, int], dict[int, list[str]]] = {}
    for number, found in enumerate(zip_longest(*(part.store.checked_rows() for part in parts))):
        first: tuple[int, Mapping[str, np.ndarray]] | None = None
        for position, (verdict, values) in enumerate(one or (None, None) for one in found):
            if verdict is False:
                joined.damaged.setdefault(position, []).append(number)
            if not verdict or values is None:
                continue
            if first is None:
                first = position, values
                joined.rows.setdefault(position, []).append(number)
            elif different := [name for name in compared if not _equal(first[1][name], values[name])]:
                disagreeing.setdefault((first[0], position), {})[number] = different
            else:
                joined.repeated[position] = joined.repeated.get(position, 0) + 1
    for (one, other), rows in disagreeing.items():
        raise UserError(_disagreement(parts[one], parts[other], rows))
    return joined


def copy_rows(part: StorePart, numbers: Iterable[int], target: RowStore) -> None:
    """Write these rows of a part into the target.  Raises RunError if one of them is not there any more."""
    wanted = set(numbers)
    for number, (verdict, values) in enumerate(part.store.checked_rows()):
        if number in wanted and verdict and values is not None:
            target.write(number, values)
            wanted.remove(number)
    if wanted:
        raise RunError(
            f"{part} has changed meanwhile: {_listed(part.what, wanted)} cannot be read any more; the same command "
            "goes on from there"
        )


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.tobytes() == other.tobytes()


def _disagreement(one: StorePart, other: StorePart, rows: Mapping[int, Sequence[str]]) -> str:
    names = list(dict.fromkeys(name for different in rows.values() for name in different))
    return (
        f"{one} and {other} disagree on {_listed(one.what, rows)}, in {', '.join(names)}: the first was computed on "
        f"{one.hardware}, the second on {other.hardware}. Hardware of another kind can change the last bits of a "
        "computation, and so which samples are classified right. Leave one of the folders out; clusters that run "
        "different trials (--first_trial) cannot disagree"
    )


def _listed(what: str, numbers: Iterable[int]) -> str:
    """`trials 3, 5 and 9 more`, or `trial 3`."""
    ordered = sorted(numbers)
    shown = ", ".join(map(str, ordered[:MAX_SHOWN]))
    more = f" and {len(ordered) - MAX_SHOWN} more" if len(ordered) > MAX_SHOWN else ""
    return f"{what if len(ordered) > 1 else one_of(what)} {shown}{more}"


def in_words(parts: Sequence[StorePart], joined: Joined) -> Iterator[str]:
    """What was taken from each part, a line for each, and which of its rows are damaged."""
    for position, part in enumerate(parts):
        taken, again = len(joined.rows.get(position, ())), joined.repeated.get(position, 0)
        equal = f", and {again:,} more that are in folders before it, with equal values" if again else ""
        yield f"{part}: {counted(taken, one_of(part.what))}{equal}"
        if damaged := joined.damaged.get(position):
            yield f"{part}: damaged, and not taken: {_listed(part.what, damaged)}"
