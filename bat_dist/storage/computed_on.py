"""The hardware that results were computed on, in the words of those who computed them, kept beside the units' logs.

The driver may be another machine, and workers come and go: each tells what it is with every unit that it has done, and
the distinct answers stand in a file per kind of unit, `logs/trials.hardware.json`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import ComputedOn
from bat_dist.storage.unit_log import Record

TOLD = "computed_on"  # the entry of a record, and of results

OneHardware = TypeVar("OneHardware", bound=Mapping[str, object])


def hardware_name(what: str) -> str:
    """The file in the result folder, for units that are called so."""
    return f"logs/{what}.hardware.json"


def read_hardware(folder: Folder, what: str) -> list[ComputedOn]:
    """All hardware that such units were computed on; none in a folder of an older version."""
    name = hardware_name(what)
    return folder.read_json(name) if folder.exists(name) else []


def distinct(known: Iterable[OneHardware], found: Iterable[OneHardware]) -> list[OneHardware]:
    """Those of both, in their order, each once."""
    all_of_them: list[OneHardware] = []
    for one in (*known, *found):
        if one not in all_of_them:
            all_of_them.append(one)
    return all_of_them


class HardwareLog:
    """Keeps that file.  Only the folder's driver may have one."""

    def __init__(self, folder: Folder, what: str) -> None:
        self._folder, self._what = folder, what
        self._known = read_hardware(folder, what)

    def note(self, records: Sequence[Record]) -> None:
        """Add what a unit's records tell, if it is new."""
        self.add([told for record in records if (told := record.get(TOLD))])

    def add(self, found: Iterable[ComputedOn]) -> None:
        """Add these, if they are new."""
        together = distinct(self._known, found)
        if len(together) > len(self._known):
            self._known = together
            self._folder.write_json(hardware_name(self._what), together)
