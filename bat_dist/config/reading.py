"""Settings from the command line, a file and what folders know, with all errors at once."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from bat_dist.config.command_line import Parser, make_parser, read_command_line
from bat_dist.config.declared import Setting, declared
from bat_dist.config.plain import plain, shown
from bat_dist.config.yaml_file import Lines, read_files
from bat_dist.errors import ConfigError, UserError
from bat_dist.wording import nearest

log = logging.getLogger(__name__)

S = TypeVar("S")
COMMAND_LINE = "command line"


class Given(NamedTuple):
    """A setting's value, and where it stands: `command line`, `x.yaml line 3`, `runs/bat/config.yaml`."""

    value: Any
    where: str


Known = Callable[[Mapping[str, Given]], Mapping[str, Given]]


def parse(
    settings_class: Callable[..., S],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str = "",
    examples: str = "",
    known: Known | None = None,
) -> tuple[S, dict[str, str]]:
    """The settings, and where each given one came from (`command line`, `x.yaml line 3`).

    A value on the command line replaces the file's unseen; `none` there means None where None is allowed.
    examples: lines at the end of `--help`, as they are.
    known: is asked, with what was given, for values that folders know already. They stand above the defaults and below
    all that is given, in a block of YAML key by key; a line of the log says which were taken. It may raise UserError.
    Raises ConfigError with all errors. `--help` prints and raises SystemExit(0).
    """
    settings = declared(settings_class)
    parser = make_parser(settings, prog, description, examples)
    read = _read(settings, sys.argv[1:] if argv is None else argv, parser)
    errors, found = read.errors, dict[str, Given]()
    try:
        found = dict(known(read.given)) if known and read.is_readable else {}
    except UserError as error:
        errors.append(str(error))
        read.is_readable = False
    taken, unfit = _taken(settings, found, read.given)
    errors += _of_each(settings, {**unfit, **read.unfit}, known={*read.given, *found} if read.is_readable else settings)
    values = {name: one.value for name, one in read.given.items()}
    for name, one in taken.items():
        values[name] = one.value | values[name] if name in values else one.value
    said = _in_words(settings, taken)
    try:
        made = _made(settings_class, values, errors)
    except ConfigError as error:
        raise error if errors else ConfigError([*error.errors, *said]) from error.__cause__
    for line in said:
        log.info(line)
    return made, {name: one.where for name, one in (taken | read.given).items()}


def status_asked(
    settings_class: Callable[..., Any], argv: Sequence[str], *, prog: str, description: str = "", examples: str = ""
) -> Mapping[str, Given] | None:
    """What was given, if `status` was: then nothing is required but `out`.  None if it was not, for `parse`.

    Raises ConfigError with all errors. `--help` prints and raises SystemExit(0).
    """
    settings = declared(settings_class)
    read = _read(settings, argv, make_parser(settings, prog, description, examples))
    if "status" not in read.given or not read.given["status"].value:
        return None
    only_out = {name: setting for name, setting in settings.items() if name == "out" or name in read.unfit}
    errors = read.errors + _of_each(only_out, read.unfit, known=read.given if read.is_readable else settings)
    if errors:
        raise ConfigError(errors)
    return read.given


@dataclasses.dataclass
class _Read:
    """What the user wrote.  unfit: by setting, why it cannot be read.  is_readable: no file was refused."""

    given: dict[str, Given]
    unfit: dict[str, str]
    errors: list[str]
    is_readable: bool


def _read(settings: "dict[str, Setting]", argv: Sequence[str], parser: Parser) -> _Read:
    """What command line and file give."""
    typed, files, unknown = read_command_line(settings, argv, parser)
    try:
        lines, unreadable = read_files(files), []
    except ConfigError as error:
        lines, unreadable = [], error.errors
    filed, strange = _known(settings, lines)
    return _Read(*_values(settings, typed, filed), unknown + unreadable + strange, not unreadable)


def _values(
    settings: "dict[str, Setting]", typed: Mapping[str, list[str]], filed: Mapping[str, tuple[Any, str]]
) -> tuple[dict[str, Given], dict[str, str]]:
    """What is given for each setting, and of what cannot be read: why."""
    given, unfit = dict[str, Given](), dict[str, str]()
    for name, setting in settings.items():
        if name not in typed and name not in filed:
            continue
        raw, where = (typed[name], COMMAND_LINE) if name in typed else filed[name]
        try:
            value = setting.read(raw, is_words=name in typed)
            if setting.is_mapping and name in typed and name in filed:
                value = setting.read(filed[name][0], is_words=False) | value
                where = f"{filed[name][1]} and {COMMAND_LINE}"
            given[name] = Given(value, where)
        except UserError as error:
            unfit[name] = f"{error} ({where})"
    return given, unfit


def _of_each(settings: "dict[str, Setting]", unfit: Mapping[str, str], *, known: Container[str]) -> list[str]:
    """What is wrong with a setting's value, or that a required one has none."""
    return [
        unfit.get(s.name) or f"{s.name} is required: --{s.name} {s.metavar}{s.note}"
        for s in settings.values()
        if s.name in unfit or (s.required and s.name not in known)
    ]


def _taken(
    settings: "dict[str, Setting]", found: Mapping[str, Given], given: Mapping[str, Given]
) -> tuple[dict[str, Given], dict[str, str]]:
    """What folders know and nobody gave (in a mapping: the keys that nobody gave), and what of it cannot be read."""
    taken, unfit = dict[str, Given](), dict[str, str]()
    for name, (raw, where) in found.items():
        if name not in settings:
            log.debug("%s: %s is no setting here", where, name)
            continue
        if name in given and not settings[name].is_mapping:
            continue
        try:
            value = settings[name].read(raw, is_words=False)
        except UserError as error:
            unfit[name] = f"{error} ({where}): give --{name}"
            continue
        if name in given:
            value = {key: item for key, item in value.items() if key not in given[name].value}
        taken[name] = Given(value, where)
    return taken, unfit


def _in_words(settings: "dict[str, Setting]", taken: Mapping[str, Given]) -> list[str]:
    """`from runs/bat/config.yaml: dataset digits, num_train 300`: a line a place, without what are defaults anyway."""
    lines: dict[str, list[str]] = {}
    for name, (value, where) in taken.items():
        if value == settings[name].default or (settings[name].is_mapping and not value):
            continue
        items = [f"{key}={shown(item)}" for key, item in value.items()] if isinstance(value, dict) else []
        lines.setdefault(where, []).append(f"{name} {' '.join(items) or shown(plain(value))}")
    return [f"from {where}: {', '.join(parts)}" for where, parts in lines.items()]


def from_dict(settings_class: Callable[..., S], given: Mapping[str, Any], where: str) -> S:
    """The settings from plain values, checked as `parse` checks those of a file.  where: `base`, for messages.

    Raises ConfigError with all errors.
    """
    settings = declared(settings_class)
    filed, errors = _known(settings, [(name, value, where) for name, value in given.items()])
    values, unfit = _values(settings, {}, filed)
    wanted = [name for name, setting in settings.items() if name in unfit or (setting.required and name not in given)]
    errors += [unfit.get(name) or f"{name} is required ({where})" for name in wanted]
    return _made(settings_class, {name: one.value for name, one in values.items()}, errors)


def _made(settings_class: Callable[..., S], values: dict[str, Any], errors: list[str]) -> S:
    if errors:
        raise ConfigError(errors)
    try:
        return settings_class(**values)
    except ConfigError:
        raise
    except ValueError as error:  # from __post_init__
        raise ConfigError([str(error)]) from error


def _known(settings: dict[str, Setting], lines: Lines) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """The value and the place of each setting in a file, and what is unknown or there twice."""
    given, errors = {}, []
    for name, value, where in lines:
        if name not in settings:
            errors.append(f"unknown setting {shown(name)} ({where}){nearest(name, settings)}")
        elif name in given:
            errors.append(f"{name} is given twice ({given[name][1]} and {where})")
        else:
            given[name] = (value, where)
    return given, errors
