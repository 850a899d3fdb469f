"""What a setting decides: declared beside its help, and derived from there by all who must know it."""

import functools
import typing
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from bat_dist.config import Group, to_dict
from bat_dist.data.table import own_name

M = TypeVar("M")


class Decides(Enum):
    """What a setting decides: RESULT, where its declaration says nothing."""

    RESULT = "the numbers; identities hold its value"
    DATA = "which data are taken; identities hold its value, and checkpoints the fingerprint of the data"
    CONTENT = "the numbers, by what lies in that place; identities hold a digest of it, and not the place"
    WORKING = "no number, but a way of working, which a later call goes on with"
    CALL = "no number, but what this call does and where; a later call does not take it over"


@dataclass(frozen=True)
class SaidIn:
    """The fact of a checkpoint that tells a setting's value, where it has no fact of its own name."""

    fact: str


@dataclass(frozen=True)
class SameInSweep:
    """A setting that cannot vary within a sweep, since all its runs share this."""

    what: str


@dataclass(frozen=True)
class Later:
    """Folders of earlier versions do not know the setting; `was`, or else its default, says what was so then."""

    was: Any = None


@dataclass(frozen=True)
class GivenWith:
    """A setting that belongs to the value of another: a later call that gives the other does not take it over."""

    other: str


def names_of(settings_class: Any) -> tuple[str, ...]:
    """All settings of a class."""
    return tuple(settings_class.__dataclass_fields__)


@functools.cache
def marks(settings_class: Any, kind: type[M]) -> Mapping[str, M]:
    """Each setting's mark of a kind (`Decides`, `SaidIn`, ...), or that of its group; nothing for one without."""
    found = {}
    for name, hint in typing.get_type_hints(settings_class, include_extras=True).items():
        own = getattr(hint, "__metadata__", ())
        of_group = [mark for group in own if isinstance(group, Group) for mark in group.marks]
        if fit := [mark for mark in (*own, *of_group) if isinstance(mark, kind)]:
            found[name] = fit[0]
    return found


def deciding(settings_class: Any, *kinds: Decides) -> tuple[str, ...]:
    """The settings that decide one of these."""
    marked = marks(settings_class, Decides)
    return tuple(name for name in names_of(settings_class) if marked.get(name, Decides.RESULT) in kinds)


def identity_values(settings: Any) -> Mapping[str, Any]:
    """What an identity holds of settings; a later one only where it is not as it always was."""
    held = deciding(type(settings), Decides.RESULT, Decides.DATA)
    default = {name: field.default for name, field in settings.__dataclass_fields__.items()}
    later = marks(type(settings), Later).items()
    always = {name: [default[name], *([] if mark.was is None else [mark.was])] for name, mark in later}
    values = {name: value for name, value in to_dict(settings).items() if name in held}
    if own := own_name(str(values.get("dataset"))):  # data of one's own are told apart by their pixels, not by a path
        values["dataset"] = own
    return {name: value for name, value in values.items() if name not in always or value not in always[name]}


def facts_of(settings_class: Any) -> Mapping[str, str]:
    """For each setting that decides a result, but not the data: the fact of a checkpoint that tells its value."""
    said = marks(settings_class, SaidIn)
    return {name: said[name].fact if name in said else name for name in deciding(settings_class, Decides.RESULT)}


def facts_as_asked(settings: Any, *, without: Container[str]) -> Mapping[str, Any]:
    """The facts that are settings just as they were asked for."""
    own = {name for name, fact in facts_of(type(settings)).items() if name == fact and name not in without}
    return {name: value for name, value in identity_values(settings).items() if name in own}
