"""A setting as its declaration has it: what it may be, in words, and the value that words or YAML stand for."""

import dataclasses
import functools
import re
import typing
from collections import Counter
from collections.abc import Callable
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from bat_dist.config.plain import shown
from bat_dist.config.yaml_file import read_yaml
from bat_dist.errors import UserError
from bat_dist.wording import nearest

_KINDS = {
    **{"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"},
    **{"array": "a list", "object": "lines of `name: value`", "null": "none"},
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
    """The heading under which `--help` lists a field.  marks: those of all fields under it that have no other."""

    title: str
    marks: tuple[Any, ...] = ()


class Setting:
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
        said_by_metavar = "^(a whole number|a number|a list, each text|text|true or false) ?"
        note = re.sub(said_by_metavar, "", self.rule.removesuffix(" or none"))
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
        each = found if isinstance(found, list | tuple) else [found]
        if any(isinstance(one, str) and not one.strip() for one in each):
            raise UserError(f"{self.name} must not be empty, got {shown(value)}: is a variable unset?")
        return found

    def _complaint(self, value: Any, error: Any) -> str:
        if error["type"] == "value_error":  # a validator's own words
            message = error["msg"].removeprefix("Value error, ")
            got = "" if str(error["input"]) in message else f" {shown(error['input'])}"
            return f"{self.name}{got}: {message}"
        quote = "; put it in quotes" if error["type"] == "string_type" else ""
        near = nearest(str(error["input"]), self.choices)
        return f"{self.name} must be {self.rule}, got {shown(value)}{near}{quote}"

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
            raise UserError(f"{self.name} takes one value, {self.rule}, got {shown(words)}")
        return words[0]

    def _pair(self, word: str) -> tuple[str, Any]:
        """`alpha=[0, 1]`: the value as YAML has it."""
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{self.name} wants NAME=VALUE ..., got {shown(word)}")
        try:
            return name.strip(), read_yaml(value)
        except yaml.constructor.ConstructorError as error:
            raise UserError(f"{self.name}: {shown(value)} is not plain YAML: {error.problem}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"{self.name}: {shown(value)} is not plain YAML") from error


@functools.cache
def declared(settings_class: Any) -> dict[str, Setting]:
    """The settings of a class by name, in their order."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    return {
        f.name: Setting(
            f.name, hints[f.name], f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        )
        for f in dataclasses.fields(settings_class)
    }


def required_names(settings_class: Callable[..., Any]) -> frozenset[str]:
    """The settings that have no default."""
    return frozenset(s.name for s in declared(settings_class).values() if s.required)


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
