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


OWN = {
    "FILE.py:NAME": "your own, made by NAME of that file (how to: docs/howto)",
    "package.module:NAME": "the same, of a module that is installed",
}
_HUB = {"hf:NAME": "a data set of the Hugging Face Hub, or from disk", "torchvision:NAME": "a data set of torchvision"}
_LIBRARIES = {"timm:NAME": "a network of timm", "torchvision:NAME": "a network of torchvision"}


def names() -> Mapping[str, Mapping[str, str]]:
    """By kind: the line about each name, or pattern of names, from the tables in which the programs look names up."""
    return {
        "datasets": {**{name: spec.about for name, spec in DATASETS.items()}, **OWN, **_HUB},
        "archs": {**ARCHITECTURES, **OWN, **_LIBRARIES},
        "methods": {**{name: entry.about for name, entry in METHODS.items()}, **OWN},
        "attacks": ATTACKS,
    }
