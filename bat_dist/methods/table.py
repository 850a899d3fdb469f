"""The methods by name.  A new one is a file in this folder and an entry here (docs/extending.md).  Imports no torch."""

import dataclasses
import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bat_dist.methods.own import OwnMethod
from bat_dist.parts import check_reference, is_reference


class MethodEntry(NamedTuple):
    """What is known of a method before it is built.

    place: its module in this folder, and its class. label: what tables call it, as papers do. about: the method and its
    source in words, for the card of an exported network.
    """

    place: str
    label: str
    about: str


METHODS = {
    "erm": MethodEntry(
        "erm.Erm",
        "ERM",
        "empirical risk minimization: no adversarial training, so hardly any robustness is to be expected",
    ),
    "pgd_at": MethodEntry("pgd_at.PgdAt", "PGD-AT", "PGD adversarial training (Madry et al. 2018, arXiv:1706.06083)"),
    "trades": MethodEntry("trades.Trades", "TRADES", "TRADES (Zhang et al. 2019, arXiv:1901.08573)"),
    "mart": MethodEntry("mart.Mart", "MART", "MART (Wang et al. 2020)"),
    "gairat": MethodEntry("gairat.Gairat", "GAIRAT", "GAIRAT (Zhang et al. 2021, arXiv:2010.01736)"),
    "bat": MethodEntry(
        "bat.Bat",
        "BAT",
        "Benign Adversarial Training (Towards the Memorization Effect of Neural Networks in Adversarial Training)",
    ),
}
"""In the order in which tables list them."""


class Method(Protocol):
    """A frozen dataclass of hyper-parameters, which it checks when it is made, and a loss.

    One of the user's own need not be derived from this class, nor have `check_attack`.
    """

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


def check_method_or_own(name: str) -> str:
    """The same; FILE.py:NAME and package.module:NAME are valid too by their form."""
    return check_reference(name, what="method") if is_reference(name) else check_method(name)


def build_method(name: str | OwnMethod, hyper_parameters: Mapping[str, float | str | None]) -> Method:
    """The method with these hyper-parameters, given as values or as text ("0.5"); its own defaults for the rest.

    Raises ValueError for a name or value that it does not take.
    """
    if isinstance(name, OwnMethod):
        cls = name.made
    else:
        module, _, class_name = METHODS[check_method(name)].place.partition(".")
        cls = getattr(importlib.import_module(f"{__package__}.{module}"), class_name)
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
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
