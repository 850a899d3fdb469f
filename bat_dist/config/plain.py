"""Settings as plain values, for files and messages."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml


def to_dict(settings: Any) -> Mapping[str, Any]:
    """Plain values (lists for tuples), fit for YAML and JSON."""
    return {field.name: plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def dump_yaml(settings: Any) -> str:
    """A YAML file that `parse` reads back to equal settings."""
    return yaml.safe_dump(to_dict(settings), sort_keys=False)


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two dicts of settings, as `epochs: 15 in the store, 20 now`."""
    a, b = ({name: plain(value) for name, value in side.items()} for side in (stored, now))
    return [
        f"{name}: {shown(a.get(name, 'absent'))} in the store, {shown(b.get(name, 'absent'))} now"
        for name in a | b
        if (name in a, a.get(name)) != (name in b, b.get(name))
    ]


def plain(value: Any) -> Any:
    """A value with lists for tuples, at any depth."""
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def shown(value: Any) -> str:
    """A value on one short line, as one would type it."""
    if isinstance(value, list):
        text = " ".join(map(shown, value)) or "nothing"
    elif isinstance(value, str):
        text = value if value.isprintable() and value.strip() == value != "" else repr(value)
    else:
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
