"""Counts, bytes, singulars and near names for messages."""

import difflib
import re
from collections.abc import Iterable

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


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


def of_bytes(number: float) -> str:
    """A number of bytes as `45 MB`, `1.2 GB`, in powers of 1000."""
    place = 0
    while number >= 999.5 and place < len(_UNITS) - 1:
        number, place = number / 1000, place + 1
    return f"{number:.3g} {_UNITS[place]}"


def bytes_of(text: str) -> int:
    """The number of bytes that a text such as `500MB`, `1.5 GB` or `2GiB` means.  Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kMGTP]?)(i?)B\s*", text)
    if not found or (found[3] and not found[2]):
        raise ValueError(f"must be a number of bytes with its unit, such as 500MB or 2GiB, got {text!r}")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " kMGTP".index(found[2] or " "))
