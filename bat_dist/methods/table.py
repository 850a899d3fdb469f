"""The methods by name.  A new one is a file in this folder and a line here.  Imports no torch."""

import dataclasses
import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Protocol, get_type_hints

from pydantic import TypeAdapter, ValidationError

METHODS = {
    "erm": "erm.Erm",
    "pgd_at": "pgd_at.PgdAt",
    "trades": "trades.Trades",
    "mart": "mart.Mart",
    "gairat": "gairat.Gairat",
    "bat": "bat.Bat",
}


class Method(Protocol):
    """A frozen dataclass of hyper-parameters, which it checks when it is made, and a loss."""

    def check_attack(self, num_steps: int) -> None:
        """Raise ValueError if the method cannot use an attack of so many steps in training."""

    def loss(self, batch: Any) -> Any:
        """The loss of a `MiniBatch`, a scalar tensor to differentiate; see `parallel` for several ranks."""
        ...


def check_method(name: str) -> str:
    """The name, if there is such a method; else ValueError with the nearest one."""
    if name in METHODS:
        return name
    near = get_close_matches(name.lower().replace("-", "_"), METHODS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"there is no method {name!r}: {hint}The methods are {', '.join(METHODS)}")


def build_method(name: str, hyper_parameters: Mapping[str, Any]) -> Method:
    """The method with these hyper-parameters, given as values or as text ("0.5"); its own defaults for the rest.

    Raises ValueError for a name or value that it does not take.
    """
    module, _, class_name = METHODS[check_method(name)].partition(".")
    cls = getattr(importlib.import_module(f"{__package__}.{module}"), class_name)
    fields = [field.name for field in dataclasses.fields(cls)]
    hints, values = get_type_hints(cls), {}
    for key, value in hyper_parameters.items():
        if key not in fields:
            known = f"its hyper-parameters are {', '.join(fields)}" if fields else "it has none"
            raise ValueError(f"{name} has no hyper-parameter {key!r}: {known}")
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(None if value == "none" else value)
        except ValidationError as error:
            raise ValueError(f"{key} of {name}, got {value!r}: {error.errors()[0]['msg']}") from None
    return cls(**values)
