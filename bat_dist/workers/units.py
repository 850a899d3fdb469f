"""A unit of work, and how it ended.  Imports no ray."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bat_dist.storage.unit_log import Record

Row = dict[str, Any]
Work = Callable[[Any], Row]


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
