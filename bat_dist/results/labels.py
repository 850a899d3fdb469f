"""What methods and rows of tables are called."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bat_dist.methods.table import METHODS

_GREEK = {"alpha": "α", "beta": "β", "sigma": "σ"}


def label_of(method: str, own: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> str:
    """`BAT (α = 1, β = 0.2)`: the method, and each setting in which it and others of the same method differ.

    own, rivals: how they were trained, but for the seeds, by flat names; own is among the rivals.
    """
    always = [name for name in ("method_settings.alpha", "method_settings.beta") if method == "bat" and name in own]
    keys = dict.fromkeys(name for rival in rivals for name in rival)
    names = always + [key for key in keys if key not in always and len({repr(rival.get(key)) for rival in rivals}) > 1]
    if "recipe.epochs" in names and "epochs" in names:
        names.remove("recipe.epochs")
    words = ", ".join(_setting(name, own.get(name)) for name in names)
    return f"{method_name(method)} ({words})" if words else method_name(method)


def method_name(method: str) -> str:
    """The method's name as papers write it."""
    return METHODS[method].label if method in METHODS else name_of_own(method)


def name_of_own(text: str) -> str:
    """`MyLoss` for `MyLoss 1a2b3c4d5e6f`, a method of the user's own with the digest of its source; else the text."""
    return re.sub(r" [0-9a-f]{12}$", "", text)


def _setting(name: str, value: Any) -> str:
    """`α = 1` for `method_settings.alpha`."""
    short = name.rpartition(".")[2]
    return f"{_GREEK.get(short, short)} = {f'{value:.4g}' if isinstance(value, float) else value}"
