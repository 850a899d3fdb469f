"""Typed settings: defaults < what folders know < YAML file < command line.

Every error at once, each with the nearest valid name.

A settings class is a frozen dataclass whose fields say what they mean and what they may be::

    @dataclass(frozen=True)
    class Settings:
        dataset: Annotated[Literal["digits", "cifar10"], Help("what to learn"), Group("data")]
        num_trials: Annotated[int, Ge(1), Help("number of leave-out trials")] = 1000

Fields are int, float, bool, str, Literal, a tuple or list of these, a dict, or any of them with None. A dict is a block
of YAML, and `--name key=value ...` on the command line, which then wins over the file key by key. A field without a
default is required. Constraints of `annotated_types` and validators of pydantic hold; rules between fields
belong in `__post_init__`, as ValueError.

A mistake of the user is a `UserError` wherever it is found, and `run_command` makes it exit code 2. Any other
exception, a plain ValueError from inside the house too, keeps its traceback.
"""

import argparse
import dataclasses
import functools
import logging
import re
import shutil
import sys
import typing
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from bat_dist.errors import ConfigError, UserError
from bat_dist.wording import nearest

log = logging.getLogger(__name__)

S = TypeVar("S")
COMMAND_LINE = "command line"
_Lines = list[tuple[str, Any, str]]  # name, value and place of each line of a file
_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"} | {
    "array": "a list",
    "object": "lines of `name: value`",
    "null": "none",
}
_LOW = {"exclusiveMinimum": ">", "minimum": ">=", "minItems": ">=", "minLength": ">="}
_HIGH = {"exclusiveMaximum": "<", "maximum": "<=", "maxItems": "<=", "maxLength": "<="}
_METAVARS = {"integer": "N", "number": "X", "object": "NAME=VALUE ...", "string": "TEXT"}


@dataclasses.dataclass(frozen=True)
class Help:
    """What a field means, and what `--help` calls its value (`DIR` in `--out DIR`)."""

    text: str
    metavar: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """The heading under which `--help` lists a field."""

    title: str


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
    known: Known | None = None,
) -> tuple[S, dict[str, str]]:
    """The settings, and where each given one came from (`command line`, `x.yaml line 3`).

    A value on the command line replaces the file's unseen; `none` there means None where None is allowed.
    known: is asked, with what was given, for values that folders know already. They stand above the defaults and below
    all that is given, in a block of YAML key by key; a line of the log says which were taken. It may raise UserError.
    Raises ConfigError with all errors. `--help` prints and raises SystemExit(0).
    """
    settings = _settings(settings_class)
    read = _read(settings, sys.argv[1:] if argv is None else argv, prog, description)
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
    settings_class: Callable[..., Any], argv: Sequence[str], *, prog: str, description: str = ""
) -> dict[str, Any] | None:
    """What was given, if `status` was: then nothing is required but `out`.  None if it was not, for `parse`.

    Raises ConfigError with all errors. `--help` prints and raises SystemExit(0).
    """
    settings = _settings(settings_class)
    read = _read(settings, argv, prog, description)
    if "status" not in read.given or not read.given["status"].value:
        return None
    only_out = {name: setting for name, setting in settings.items() if name == "out" or name in read.unfit}
    errors = read.errors + _of_each(only_out, read.unfit, known=read.given if read.is_readable else settings)
    if errors:
        raise ConfigError(errors)
    return {name: one.value for name, one in read.given.items()}


def help_text(settings_class: Callable[..., Any], *, prog: str, description: str, without: Iterable[str] = ()) -> str:
    """What `--help` prints, but for the settings that are named."""
    settings = {name: s for name, s in _settings(settings_class).items() if name not in set(without)}
    return _parser(settings, prog, description).format_help()


def required_names(settings_class: Callable[..., Any]) -> frozenset[str]:
    """The settings that have no default."""
    return frozenset(s.name for s in _settings(settings_class).values() if s.required)


def names_of_group(settings_class: Callable[..., Any], title: str) -> frozenset[str]:
    """The settings that `--help` lists under a heading."""
    return frozenset(s.name for s in _settings(settings_class).values() if s.group == title)


@dataclasses.dataclass
class _Read:
    """What the user wrote.  unfit: by setting, why it cannot be read.  is_readable: no file was refused."""

    given: dict[str, Given]
    unfit: dict[str, str]
    errors: list[str]
    is_readable: bool


def _read(settings: "dict[str, _Setting]", argv: Sequence[str], prog: str, description: str) -> _Read:
    """What command line and file give."""
    typed, unknown = _read_command_line(settings, argv, prog, description)
    try:
        lines, unreadable = _read_files(typed.pop("config", [])), []
    except ConfigError as error:
        lines, unreadable = [], error.errors
    filed, strange = _known(settings, lines)
    given, unfit = dict[str, Given](), dict[str, str]()
    for setting in settings.values():
        name = setting.name
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
    return _Read(given, unfit, unknown + unreadable + strange, not unreadable)


def _of_each(settings: "dict[str, _Setting]", unfit: Mapping[str, str], *, known: Container[str]) -> list[str]:
    """What is wrong with a setting's value, or that a required one has none."""
    return [
        unfit.get(s.name) or f"{s.name} is required: --{s.name} {s.metavar}{s.note}"
        for s in settings.values()
        if s.name in unfit or (s.required and s.name not in known)
    ]


def _taken(
    settings: "dict[str, _Setting]", found: Mapping[str, Given], given: Mapping[str, Given]
) -> tuple[dict[str, Given], dict[str, str]]:
    """Of what folders know what was not given (of a mapping: the keys that were not), and what of it cannot be."""
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


def _in_words(settings: "dict[str, _Setting]", taken: Mapping[str, Given]) -> list[str]:
    """`from runs/bat/config.yaml: dataset digits, num_train 300`: a line a place, without what are defaults anyway."""
    lines: dict[str, list[str]] = {}
    for name, (value, where) in taken.items():
        if value == settings[name].default or (settings[name].is_mapping and not value):
            continue
        shown = " ".join(f"{key}={_shown(item)}" for key, item in value.items()) if isinstance(value, dict) else None
        lines.setdefault(where, []).append(f"{name} {shown or _shown(_plain(value))}")
    return [f"from {where}: {', '.join(parts)}" for where, parts in lines.items()]


def from_dict(settings_class: Callable[..., S], given: Mapping[str, Any], where: str) -> S:
    """The settings from plain values, checked as `parse` checks those of a file.  where: `base`, for messages.

    Raises ConfigError with all errors.
    """
    settings = _settings(settings_class)
    _, errors = _known(settings, [(name, value, where) for name, value in given.items()])
    values = {}
    for setting in settings.values():
        if setting.name in given:
            try:
                values[setting.name] = setting.read(given[setting.name], is_words=False)
            except UserError as error:
                errors.append(f"{error} ({where})")
        elif setting.required:
            errors.append(f"{setting.name} is required ({where})")
    return _made(settings_class, values, errors)


def _made(settings_class: Callable[..., S], values: dict[str, Any], errors: list[str]) -> S:
    if errors:
        raise ConfigError(errors)
    try:
        return settings_class(**values)
    except ConfigError:
        raise
    except ValueError as error:  # from __post_init__
        raise ConfigError([str(error)]) from error


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain values (lists for tuples), fit for YAML and JSON."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def dump_yaml(settings: Any) -> str:
    """A YAML file that `parse` reads back to equal settings."""
    return yaml.safe_dump(to_dict(settings), sort_keys=False)


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two dicts of settings, as `epochs: 15 in the store, 20 now`."""
    a, b = ({name: _plain(value) for name, value in side.items()} for side in (stored, now))
    return [
        f"{name}: {_shown(a.get(name, 'absent'))} in the store, {_shown(b.get(name, 'absent'))} now"
        for name in a | b
        if (name in a, a.get(name)) != (name in b, b.get(name))
    ]


class _Setting:
    """One field of a settings class, as the command line and YAML see it."""

    def __init__(self, name: str, hint: Any, default: Any):
        metadata = getattr(hint, "__metadata__", ())
        self.name, self.default, self.required = name, default, default is dataclasses.MISSING
        self.help = next((m for m in metadata if isinstance(m, Help)), Help(""))
        self.group = next((m.title for m in metadata if isinstance(m, Group)), "options")
        self.adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
        schema = self.adapter.json_schema()
        members = _members(schema)
        leaves = [leaf for member in members for leaf in _members(member.get("items", member))]
        self.rule = _rule(schema)
        note = self.rule.removesuffix(" or none")
        note = re.sub(
            "^(a whole number|a number|a list, each text|text|true or false) ?", "", note
        )  # the metavar says that
        self.note = note and f", {note}"
        self.choices = {str(choice): choice for leaf in leaves for choice in _choices(leaf)}
        self.kinds = {member.get("type") for member in members}
        self.leaf_kinds = {leaf.get("type") for leaf in leaves}
        self.is_mapping = "object" in self.kinds
        metavar = next((_METAVARS[kind] for kind in _METAVARS if kind in self.leaf_kinds), "")
        metavar = self.help.metavar or ("NAME" if self.choices else metavar)
        self.metavar = "" if "boolean" in self.kinds else metavar + " ..." * ("array" in self.kinds)

    def read(self, raw: Any, *, is_words: bool) -> Any:
        """The value that the words of the command line, or a value of YAML, stand for; UserError if none."""
        value = self._from_words(raw) if is_words else raw
        if value == "none" and "null" in self.kinds and (is_words or "string" not in self.kinds):
            return None
        parts = value if isinstance(value, list) else [value]
        parts = [self.choices.get(str(part), part) for part in parts]
        if "boolean" not in self.leaf_kinds:  # pydantic would take true for 1, but no list
            parts = [[part] if isinstance(part, bool) else part for part in parts]
        try:
            found = self.adapter.validate_python(parts if isinstance(value, list) else parts[0])
        except ValidationError as error:
            raise UserError(self._complaint(value, error.errors()[0])) from error
        if any(
            isinstance(one, str) and not one.strip() for one in (found if isinstance(found, list | tuple) else [found])
        ):
            raise UserError(f"{self.name} must not be empty, got {_shown(value)}: is a variable unset?")
        return found

    def _complaint(self, value: Any, error: Any) -> str:
        if error["type"] == "value_error":  # a validator's own words
            message = error["msg"].removeprefix("Value error, ")
            got = "" if str(error["input"]) in message else f" {_shown(error['input'])}"
            return f"{self.name}{got}: {message}"
        quote = "; put it in quotes" if error["type"] == "string_type" else ""
        near = nearest(str(error["input"]), self.choices)
        return f"{self.name} must be {self.rule}, got {_shown(value)}{near}{quote}"

    def _from_words(self, words: list[str]) -> Any:
        if self.is_mapping:
            pairs = list(map(self._pair, words))
            if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
                raise UserError(f"{self.name}: {', '.join(twice)} is given twice")
            return dict(pairs)
        if "array" in self.kinds and words != ["none"]:
            return words
        if "boolean" in self.kinds and not words:
            return "true"
        if len(words) != 1:
            raise UserError(f"{self.name} takes one value, {self.rule}, got {_shown(words)}")
        return words[0]

    def _pair(self, word: str) -> tuple[str, Any]:
        """`alpha=[0, 1]`: the value as YAML has it."""
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{self.name} wants NAME=VALUE ..., got {_shown(word)}")
        try:
            return name.strip(), yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"{self.name}: {_shown(value)} is not plain YAML") from error


@functools.cache
def _settings(settings_class: Any) -> dict[str, _Setting]:
    hints = typing.get_type_hints(settings_class, include_extras=True)
    settings = {}
    for f in dataclasses.fields(settings_class):
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        settings[f.name] = _Setting(f.name, hints[f.name], default)
    return settings


class _Parser(argparse.ArgumentParser):
    """Collects in `twice` the options that are given more than once: argparse would let the last one win."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.twice: list[str] = []

    def error(self, message: str) -> NoReturn:
        raise ConfigError([message])


class _Once(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            parser.twice.append(self.dest)
        setattr(namespace, self.dest, values)


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=min(100, shutil.get_terminal_size().columns) - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return str(action.metavar or super()._format_action_invocation(action))


def _parser(settings: dict[str, _Setting], prog: str, description: str) -> _Parser:
    """Takes any number of words after each option; how many there must be is checked later, with all else."""
    required = " ".join(f"--{s.name} {s.metavar}" for s in settings.values() if s.required)
    parser = _Parser(
        prog=prog,
        usage=" ".join(filter(None, (prog, required, "[options]"))).replace("%", "%%"),
        description=description,
        formatter_class=_Formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    file_help = "settings from a file, one `name: value` a line; the command line wins over it"
    parser.add_argument("--config", action="append", nargs="*", metavar="--config FILE.yaml", help=file_help)
    titles = dict.fromkeys(s.group for s in settings.values() if s.group != "options")
    groups = {title: parser.add_argument_group(title) for title in titles}
    for s in settings.values():
        option = f"--{s.name}, --no_{s.name}" if "boolean" in s.kinds else f"--{s.name} {s.metavar}"
        default = "required" if s.required else f"default {_shown(_plain(s.default))}"
        text = f"{s.help.text} [{default}{s.note}]".strip().replace("%", "%%")
        groups.get(s.group, parser).add_argument(f"--{s.name}", action=_Once, nargs="*", metavar=option, help=text)
    return parser


def _read_command_line(
    settings: dict[str, _Setting], argv: Sequence[str], prog: str, description: str
) -> tuple[dict[str, Any], list[str]]:
    """The words after each option (a list of such lists for `config`), and a line for each unknown one."""
    negations = {f"--no_{s.name}": f"--{s.name}=false" for s in settings.values() if "boolean" in s.kinds}
    names = [*settings, "config", "help", *(option.removeprefix("--") for option in negations)]
    words = [re.sub("(?<=^--)[^=]+", lambda name: name[0].replace("-", "_"), word) for word in argv]
    parser = _parser(settings, prog, description)
    typed, extra = parser.parse_known_args([negations.get(w, w) for w in words])
    unknown = [word for word in extra if word.startswith("-")]
    errors = [
        f"unknown option {_shown(word)} (command line)"
        + nearest(word.lstrip("-").partition("=")[0], names, prefix="--")
        for word in unknown
    ]
    if extra and not unknown:  # else they may be the values of the unknown
        errors = [f"{_shown(extra)} follows no option (command line): write --name value"]
    errors += [f"{name} is given twice (command line)" for name in dict.fromkeys(parser.twice)]
    return vars(typed), errors


def _known(settings: dict[str, _Setting], lines: _Lines) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """The value and the place of each setting in a file, and what is unknown or there twice."""
    given, errors = {}, []
    for name, value, where in lines:
        if name not in settings:
            errors.append(f"unknown setting {_shown(name)} ({where}){nearest(name, settings)}")
        elif name in given:
            errors.append(f"{name} is given twice ({given[name][1]} and {where})")
        else:
            given[name] = (value, where)
    return given, errors


def _read_files(files: list[list[str]]) -> _Lines:
    """The one file after `--config`, as `yaml.safe_load` reads it, but duplicates stay."""
    if not files:
        return []
    if [len(words) for words in files] != [1]:
        words = [word for group in files for word in group]
        raise ConfigError([f"--config takes one file, got {_shown(words)} (command line)"])
    file = files[0][0]
    try:
        loader = yaml.SafeLoader(Path(file).read_bytes())
        root = loader.get_single_node() or yaml.MappingNode("", [])
        pairs = root.value if isinstance(root, yaml.MappingNode) else None
        lines = [(key, loader.construct_object(value, deep=True)) for key, value in pairs or []]
    except OSError as error:
        raise ConfigError([f"--config {_shown(file)}: {error.strerror} (command line)"]) from error
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError([f"{file}{line} is not plain YAML: {error.problem}"]) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ConfigError([f"{file} is not plain YAML: {' '.join(str(error).split())}"]) from error
    if pairs is None:
        raise ConfigError([f"{file} must hold lines of `name: value`"])
    if twice := [line for _, value in pairs for line in _given_twice(value, file)]:
        raise ConfigError(twice)
    return [(str(key.value), value, f"{file} line {key.start_mark.line + 1}") for key, value in lines]


def _given_twice(node: yaml.Node, file: str) -> list[str]:
    """A line for each name that a block of YAML gives twice, at any depth: YAML itself would let the last one win."""
    if isinstance(node, yaml.SequenceNode):
        return [line for value in node.value for line in _given_twice(value, file)]
    if not isinstance(node, yaml.MappingNode):
        return []
    places: dict[str, list[str]] = {}
    for key, _ in node.value:
        places.setdefault(str(key.value), []).append(str(key.start_mark.line + 1))
    lines = [f"{name} is given twice ({file} lines {' and '.join(at)})" for name, at in places.items() if len(at) > 1]
    return lines + [line for _, value in node.value for line in _given_twice(value, file)]


def _members(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return schema.get("anyOf", [schema])


def _choices(schema: dict[str, Any]) -> list[Any]:
    return schema.get("enum", [schema["const"]] if "const" in schema else [])


def _rule(schema: dict[str, Any]) -> str:
    """What a value must be, in words, from its JSON schema: `a whole number >= 1 or none`."""
    if "anyOf" in schema:
        return " or ".join(map(_rule, schema["anyOf"]))
    if choices := _choices(schema):
        return "one of " * (len(choices) > 1) + ", ".join(map(str, choices))
    items = ", each " + _rule(schema["items"]) if "items" in schema else ""
    return _KINDS.get(schema.get("type", ""), "valid") + _bounds(schema) + items


def _bounds(schema: dict[str, Any]) -> str:
    """The bounds of a JSON schema: ` >= 1`, ` in (0, 1]`, ` of length >= 1`."""
    bounds = {key: sign for key, sign in (_LOW | _HIGH).items() if key in schema}
    length = " of length" * any(key.endswith(("Items", "Length")) for key in bounds)
    low, high = ([key for key in bounds if key in side] for side in (_LOW, _HIGH))
    if low and high and schema[low[0]] == schema[high[0]]:
        return f"{length} {schema[low[0]]}"
    if low and high:
        left, right = "(" if bounds[low[0]] == ">" else "[", ")" if bounds[high[0]] == "<" else "]"
        return f"{length} in {left}{schema[low[0]]}, {schema[high[0]]}{right}"
    return length + "".join(f" {sign} {schema[key]}" for key, sign in bounds.items())


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _shown(value: Any) -> str:
    """A value on one short line, as one would type it."""
    if isinstance(value, list):
        text = " ".join(map(_shown, value)) or "nothing"
    elif isinstance(value, str):
        text = value if value.isprintable() and value.strip() == value != "" else repr(value)
    else:
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
