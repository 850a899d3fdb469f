"""Counts, singulars and near names for messages."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """`; did you mean X?`, or nothing where nothing is near.  The prefix (`--`) is shown but not compared."""
    found = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {prefix}{found[0]}?" if found else ""


def counted(number: float, name: str, plural: str = "") -> str:
    """`1 CPU`, `2 CPUs`, `1,000 trials`."""
    digits = f"{number:,}" if isinstance(number, int) or number == int(number) else f"{number:g}"
    return f"{digits.removesuffix('.0')} {name if number == 1 else plural or name + 's'}"


def alternatives(names: Iterable[str]) -> str:
    """`a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}"


def one_of(what: str) -> str:
    """What one of many is called: `trials` is `trial`."""
    return what.removesuffix("s")
