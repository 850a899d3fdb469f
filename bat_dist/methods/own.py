"""Methods of the user's own: a frozen dataclass of hyper-parameters with a loss.  Imports no torch."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bat_dist.errors import UserError
from bat_dist.parts import Own, load_part

_SCALARS = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class OwnMethod(Own):
    """A method that is not one of the package's; equal where name and source are.  It travels by pickle to workers.

    name: what tables call it: the class's `LABEL`, else its name. made: the class. digest: of its source. reference:
    what it was imported from, as it was given.
    """

    name: str
    made: Any = field(compare=False, repr=False)
    digest: str
    reference: str = field(default="", compare=False)

    def __str__(self) -> str:
        return super().__str__()

    def has(self, hyper_parameter: str) -> bool:
        """Has the class a field of this name?"""
        return any(one.name == hyper_parameter for one in dataclasses.fields(self.made))


def own_method(made: Any, *, digest: str | None = None, reference: str = "") -> OwnMethod:
    """The method of a class; digest: of its source, by default that of the class, a notebook's too.

    Raises UserError unless it is a frozen dataclass of plain values with a loss.
    """
    name = getattr(made, "__name__", type(made).__name__)
    if not (isinstance(made, type) and dataclasses.is_dataclass(made)):
        raise UserError(f"method {name} must be a dataclass of its hyper-parameters, with `loss(self, batch)`")
    if not made.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        raise UserError(
            f"method {name} must be frozen, for its hyper-parameters identify a run: @dataclass(frozen=True)"
        )
    if not callable(getattr(made, "loss", None)):
        raise UserError(f"method {name} has no `loss(self, batch)`, which gives a scalar tensor to differentiate")
    for one in dataclasses.fields(made):
        if one.default is not dataclasses.MISSING and not isinstance(one.default, _SCALARS):
            raise UserError(
                f"method {name}: hyper-parameter {one.name} must be a number, a text, true, false or none, "
                f"got {one.default!r}"
            )
    if digest is None:
        from bat_dist.models.own import code_digest  # here: settings import this file without torch

        digest = code_digest(made)
    return OwnMethod(str(getattr(made, "LABEL", name)), made, digest, reference)


def named_method(reference: str) -> OwnMethod:
    """The method that FILE.py:NAME or package.module:NAME names.  Raises UserError."""
    part = load_part(reference, what="method")
    return own_method(part.made, digest=part.digest, reference=reference)
