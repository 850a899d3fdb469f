"""Which points a sweep tries: its space, the grid over it, and points drawn from it.

A space names settings of `bat-dist train` with what each may be::

    alpha: [0, 1, 2, 3]               a list: each of these
    beta: {uniform: [0, 0.3]}         any number between
    weight_decay: {loguniform: [1e-5, 1e-3]}

A point is a dict with a value for each name.
"""

import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from bat_dist.wording import nearest

Point = dict[str, Any]
KINDS = ("grid", "choice", "uniform", "loguniform")
DIGITS = 4  # of a number that is drawn: enough for any use, and short in names
MAX_NAME = 80  # characters of a folder's name


@dataclass(frozen=True)
class Dimension:
    """What one setting may be: one of `values`, or a number in [low, high], uniform or uniform in its logarithm."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def read(cls, name: str, given: Any) -> "Dimension":
        """The dimension that a line of the space describes.  Raises ValueError, naming the rule that it breaks."""
        kind, values = ("grid", given) if isinstance(given, list) else _kind(name, given)
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name} in space: {kind} wants a list, got {values!r}")
        if kind in ("grid", "choice"):
            if len({str(value) for value in values}) < len(values):
                raise ValueError(f"{name} in space: a value is there twice in {values!r}")
            return cls(name, tuple(values))
        try:
            low, high = map(float, values)
        except (TypeError, ValueError):
            raise ValueError(f"{name} in space: {kind} wants two numbers, got {values!r}") from None
        if not low < high or (kind == "loguniform" and low <= 0):
            rule = "0 < low < high" if kind == "loguniform" else "low < high"
            raise ValueError(f"{name} in space: {kind} wants [low, high] with {rule}, got {values!r}")
        return cls(name, low=low, high=high, log=kind == "loguniform")

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that stand for all: if each of these is allowed, so is the rest."""
        return self.values or (self.low, self.high)

    def draw(self, rng: random.Random) -> Any:
        """One of its values."""
        if self.values:
            return rng.choice(self.values)
        if self.log:
            return rounded(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return rounded(rng.uniform(self.low, self.high))

    def holds(self, value: Any) -> bool:
        """Whether the value is one of its own."""
        return value in self.values if self.values else self.low <= value <= self.high


def _kind(name: str, given: Any) -> tuple[str, Any]:
    example = f"write {name}: [0, 1], or {name}: {{uniform: [0, 1]}}"
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ValueError(
            f"{name} in space must be a list of values or one of {', '.join(KINDS)}, got {given!r}: {example}"
        )
    [(kind, values)] = given.items()
    if kind not in KINDS:
        raise ValueError(f"{name} in space: there is no {kind!r}{nearest(str(kind), KINDS)}: {example}")
    return kind, values


def read_space(space: Mapping[str, Any]) -> list[Dimension]:
    """All dimensions, in their order.  Raises ValueError with a line for each that cannot be read."""
    found, errors = [], []
    for name, given in space.items():
        try:
            found.append(Dimension.read(name, given))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    return found


def grid(space: Sequence[Dimension]) -> list[Point]:
    """Every combination.  Raises ValueError for a dimension that has no list."""
    if endless := [dimension.name for dimension in space if not dimension.values]:
        raise ValueError(f"search grid needs a list of values for {', '.join(endless)}: or choose search random or tpe")
    names = [dimension.name for dimension in space]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(d.values for d in space))]


def draws(space: Sequence[Dimension], number: int, *, seed: int) -> list[Point]:
    """Different points; the first stay the same when more are asked for.  Fewer if there are not so many."""
    found: list[Point] = []
    for attempt in range(20 * number):
        rng = random.Random(f"{seed} {attempt}")
        point = {dimension.name: dimension.draw(rng) for dimension in space}
        if point not in found:
            found.append(point)
        if len(found) == number:
            break
    return found


def with_references(points: Iterable[Point], space: Sequence[Dimension], base: Mapping[str, Any]) -> list[Point]:
    """The points of BAT, and before them alpha = beta = 0, which is PGD-AT, for each combination of the listed others.

    Every point then has an alpha and a beta; what the space leaves open is the base's.  base: a value for each name.
    """
    others = [dimension for dimension in space if dimension.name not in ("alpha", "beta")]
    fixed = {d.name: base[d.name] for d in others if not d.values}
    listed = [d for d in others if d.values]
    references = [{"alpha": 0, "beta": 0, **fixed, **point} for point in grid(listed)]
    full = [{"alpha": base["alpha"], "beta": base["beta"], **point} for point in points]
    return without_repetition([*references, *full])


def is_reference(point: Mapping[str, Any]) -> bool:
    """Whether the point is alpha = beta = 0, which is PGD-AT."""
    return (point.get("alpha"), point.get("beta")) == (0, 0)


def without_repetition(points: Iterable[Point]) -> list[Point]:
    """The first of those that are equal."""
    found: dict[str, Point] = {}
    for point in points:
        found.setdefault(point_name(point), point)
    return list(found.values())


def point_name(point: Mapping[str, Any]) -> str:
    """`alpha=1,beta=0.2`: fit for a folder, different for different points."""
    exact = ",".join(f"{name}={_text(value)}" for name, value in sorted(point.items()))
    safe = re.sub(r"[^\w.,=+-]", "_", exact)
    if safe == exact and len(safe) <= MAX_NAME:
        return safe
    return f"{safe[: MAX_NAME - 9]}-{sha256(exact.encode()).hexdigest()[:8]}"


def rounded(value: float) -> float:
    """The value with as many digits as a drawn number has."""
    return float(f"{value:.{DIGITS}g}")


def _text(value: Any) -> str:
    """1 and 1.0 are one value."""
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value))
    if isinstance(value, bool | int | float):
        return repr(int(value)) if float(value).is_integer() and not isinstance(value, bool) else repr(value).lower()
    return str(value)
