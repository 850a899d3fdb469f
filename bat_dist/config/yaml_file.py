"""The lines of a settings file with their places, so that messages can name them."""

import re
from pathlib import Path
from typing import Any

import yaml

from bat_dist.config.plain import shown
from bat_dist.errors import ConfigError

_BASE_8_OR_60 = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$")
Lines = list[tuple[str, Any, str]]  # name, value and place of each line of a file


class _Loader(yaml.SafeLoader):
    """Refuses the numbers that YAML 1.1 reads in another base than people do: 0300 as 192, and 1:30 as 90."""

    def construct_decimal(self, node: yaml.ScalarNode) -> int | float:
        """The number that is written in the file."""
        if _BASE_8_OR_60.match(node.value):
            number = "give a decimal number without leading zeros or colons, or put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(
                problem=f"{node.value} means another number to YAML: {number}", problem_mark=node.start_mark
            )
        is_whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_decimal)


def read_yaml(text: str | bytes) -> Any:
    """The document, as `yaml.safe_load` reads it, but numbers are decimal.  Raises YAMLError or ValueError."""
    return yaml.load(text, _Loader)  # noqa: S506  # it is a SafeLoader


def read_files(files: list[list[str]]) -> Lines:
    """The one file after `--config`, as `yaml.safe_load` reads it, but duplicates stay."""
    if not files:
        return []
    if [len(words) for words in files] != [1]:
        words = [word for group in files for word in group]
        raise ConfigError([f"--config takes one file, got {shown(words)} (command line)"])
    file = files[0][0]
    try:
        loader = _Loader(Path(file).read_bytes())
        root = loader.get_single_node() or yaml.MappingNode("", [])
        pairs = root.value if isinstance(root, yaml.MappingNode) else None
        lines = [(key, loader.construct_object(value, deep=True)) for key, value in pairs or []]
    except OSError as error:
        raise ConfigError([f"--config {shown(file)}: {error.strerror} (command line)"]) from error
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
