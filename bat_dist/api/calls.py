"""What every function of the Python API does around its work.  Imports neither torch nor ray."""

import functools
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from bat_dist.config import from_dict
from bat_dist.errors import ConfigError, naming_extras
from bat_dist.program import handlers_kept

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

ONLY_OF_COMMANDS = ("status",)


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the API, which keeps signal handlers and says which extra a package that is missing belongs to."""

    @functools.wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> R:
        with naming_extras(), handlers_kept():  # a Ray session puts its own handlers in their place
            return function(*args, **named)

    return called


def settings_of(
    settings_class: Callable[..., S],
    given: Mapping[str, Any],
    *,
    call: str,
    stand_in: Mapping[str, Any],
    without: Container[str] = (),
) -> S:
    """The settings of a command from the keyword arguments of a call, checked as the command checks its options.

    call: the function's name, for messages. stand_in: settings that the call gives in another form, such as a network,
    with values that are valid; the caller puts its own in their place. without: settings that the call does not have.
    Raises ConfigError with all errors at once, each with the nearest valid name.
    """
    strange = [name for name in given if name in ONLY_OF_COMMANDS or name in stand_in or name in without]
    errors = [f"{name} is no argument of {call}()" for name in strange]
    plain = {name: _plain(value) for name, value in given.items() if name not in strange}
    try:
        settings = from_dict(settings_class, {**stand_in, **plain}, f"{call}()")
    except ConfigError as error:
        raise ConfigError([*errors, *error.errors]) from error.__cause__
    if errors:
        raise ConfigError(errors)
    return settings


def _plain(value: Any) -> Any:
    """A path as text, a number of numpy's as Python's."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
