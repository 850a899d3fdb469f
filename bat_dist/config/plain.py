"""Settings as plain values, for files and messages."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from bat_dist.parts import Own


def to_dict(settings: Any) -> Mapping[str, Any]:
    """Plain values (lists for tuples), fit for YAML and JSON."""
    return {field.name: plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def dump_yaml(settings: Any) -> str:
    """A YAML file that `parse` reads back to equal settings."""
    values = {field.name: plain(getattr(settings, field.name), _as_given) for field in dataclasses.fields(settings)}
    return yaml.safe_dump(values, sort_keys=False)


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two dicts of settings, as `epochs: 15 in the store, 20 now`."""
    a, b = ({name: plain(value) for name, value in side.items()} for side in (stored, now))
    return [
        f"{name}: {shown(a.get(name, 'absent'))} in the store, {shown(b.get(name, 'absent'))} now"
        for name in a | b
        if (name in a, a.get(name)) != (name in b, b.get(name))
    ]


def plain(value: Any, own: Callable[[Own], str] = str) -> Any:
    """A value with lists for tuples, and text for parts of the user's own, at any depth.  own: gives that text."""
    if isinstance(value, (tuple, list)):
        return [plain(item, own) for item in value]
    if isinstance(value, dict):
        return {name: plain(item, own) for name, item in value.items()}
    return own(value) if isinstance(value, Own) else value


def _as_given(own: Own) -> str:
    return own.reference or str(own)


def shown(value: Any) -> str:
    """A value on one short line, as one would type it."""
    if isinstance(value, list):
        text = " ".join(map(shown, value)) or "nothing"
    elif isinstance(value, str):
        text = value if value.isprintable() and value.strip() == value != "" else repr(value)
    else:
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
