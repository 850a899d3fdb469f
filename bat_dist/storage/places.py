"""Where results may lie, judged by the name alone. So lean that `--help` answers at once."""

import re
from typing import Annotated

from pydantic import AfterValidator

_LOST = frozenset({"memory"})
_READ_ONLY = frozenset(
    {"http", "https", "data", "hf", "git", "github", "gist", "reference", "tar", "zip", "libarchive"}
)
_WAY_OUT = "give a folder, or a URI such as s3://bucket/run"


def check_place(location: str) -> str:
    """The location, if results can be written there and found again; else ValueError."""
    match = re.match(r"([A-Za-z][\w+.-]+):(/+)", location)
    protocol = match[1].lower() if match else ""
    if protocol in _LOST:
        raise ValueError(f"{location} would be lost with the process: {_WAY_OUT}")
    if protocol in _READ_ONLY:
        raise ValueError(f"{location}: nothing can be written by {protocol}: {_WAY_OUT}")
    if match and match[2] == "/":
        meant = f"{protocol}://{location[match.end() :]}"
        raise ValueError(f"{location} has one slash where a URI has two; did you mean {meant}?")
    return location


Place = Annotated[str, AfterValidator(check_place)]
"""The type of a setting that says where results go."""
