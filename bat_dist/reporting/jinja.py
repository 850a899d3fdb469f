"""The texts of `templates/`, to be filled in.  Loads no library of figures."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates(**options: Any) -> Environment:
    """The folder `templates/`, in which an unknown name is an error.  options: of jinja2."""
    loader = PackageLoader("bat_dist.reporting")
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)
