"""Settings of `bat-dist list`, and the names that it prints.  Imports neither torch nor ray."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from bat_dist.config import Help
from bat_dist.data.table import DATASETS
from bat_dist.evaluation.names import ATTACKS
from bat_dist.methods.table import METHODS
from bat_dist.models.names import ARCHITECTURES

Kind = Literal["datasets", "archs", "methods", "attacks"]


@dataclass(frozen=True, kw_only=True)
class ListSettings:
    """`bat-dist list`."""

    what: Annotated[tuple[Kind, ...], Help("which names; the first words need no --what; default: all")] = ()
    json: Annotated[bool, Help("as JSON: an object for each kind, which gives each name its line")] = False


def names() -> Mapping[str, Mapping[str, str]]:
    """By kind: the line about each name.  Read from the tables that the programs themselves look names up in."""
    return {
        "datasets": {name: spec.about for name, spec in DATASETS.items()},
        "archs": ARCHITECTURES,
        "methods": {name: entry.about for name, entry in METHODS.items()},
        "attacks": ATTACKS,
    }
