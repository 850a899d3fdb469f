"""What a measurement is: sides that do the same work in turn, and figures that are computed from their rounds.

Imports neither torch nor ray, so that `--list` answers at once.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

SECONDS = "seconds"

Size = Literal["full", "quick", "tiny"]
MachineClass = Literal["amx", "avx512", "avx2"]
Goal = float | Mapping[MachineClass, float]
Quantities = Mapping[str, float]
"""What one round of one side gave, by name.  `seconds` is the clock's, unless the side gives its own."""
Round = Mapping[str, Quantities]
"""What each side gave in one round."""
Side = Callable[[int], Quantities | None]
"""The work of one side in the round of that number, from 0; a round that warms up has number 0 too."""
T = TypeVar("T")


class Unavailable(NamedTuple):
    """A side that cannot be measured here, and why."""

    reason: str


Sides = Mapping[str, Side | Unavailable]


@dataclass(frozen=True)
class Context:
    """How a measurement is made.

    images: a folder or archive of images, as for --dataset image_folder; None: synthetic images. cores: of this
    process. size: "tiny" is for tests, which need no meaningful numbers.
    """

    images: Path | None
    cores: int
    size: Size = "full"

    def pick(self, full: T, quick: T, tiny: T) -> T:
        """The value for the size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of a measurement, one per round, and the goal that its median has.

    at_least, at_most: the goal; none, or one for each class of machine. steady: whether two runs on one machine give
    about the same, so that a change is worth a flag.
    """

    text: str
    unit: str = "x"
    at_least: Goal | None = None
    at_most: Goal | None = None
    steady: bool = True

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides without which there is no figure."""
        raise NotImplementedError

    def values(self, rounds: Sequence[Round]) -> list[float]:
        """The figure in each round, or one value over all."""
        raise NotImplementedError

    def goal(self, machine_class: MachineClass) -> tuple[Literal[">=", "<="], float] | None:
        """What the median should be on such a machine."""
        for sign, goal in ((">=", self.at_least), ("<=", self.at_most)):
            if goal is not None:
                return sign, float(goal[machine_class] if isinstance(goal, Mapping) else goal)  # pyright: ignore[reportReturnType]
        return None

    def has_fallen(self, before: float, now: float, *, tolerance: float = 0.1) -> bool:
        """Whether a median is worse than an earlier one by more than this share."""
        if not self.steady:
            return False
        return now > before * (1 + tolerance) if self.at_most is not None else now < before * (1 - tolerance)


@dataclass(frozen=True, kw_only=True)
class Speed(Figure):
    """How many times as fast a side is as another; as the fastest of several, those that are available."""

    side: str
    over: tuple[str, ...]

    @property
    def sides(self) -> tuple[str, ...]:
        """Both; the first of several others may be the only one."""
        return (self.side, self.over[0])

    def values(self, rounds: Sequence[Round]) -> list[float]:
        """Seconds of the fastest other, over seconds of the side, round by round."""
        return [
            min(found[name][SECONDS] for name in self.over if name in found) / found[self.side][SECONDS]
            for found in rounds
        ]


@dataclass(frozen=True, kw_only=True)
class Share(Figure):
    """What a side takes of another's time, in percent."""

    side: str
    of: str
    unit: str = "%"

    @property
    def sides(self) -> tuple[str, ...]:
        """Both."""
        return (self.side, self.of)

    def values(self, rounds: Sequence[Round]) -> list[float]:
        """100 times the quotient of the seconds, round by round."""
        return [100 * found[self.side][SECONDS] / found[self.of][SECONDS] for found in rounds]


@dataclass(frozen=True, kw_only=True)
class Value(Figure):
    """A quantity of one side, as it is."""

    side: str
    quantity: str

    @property
    def sides(self) -> tuple[str, ...]:
        """The one."""
        return (self.side,)

    def values(self, rounds: Sequence[Round]) -> list[float]:
        """Round by round."""
        return [found[self.side][self.quantity] for found in rounds]


@dataclass(frozen=True, kw_only=True)
class Noise(Figure):
    """The difference of two sides' means of a quantity over all rounds, in standard errors of that difference.

    Two sides whose means are the same in truth differ by more than 2 of them in about one of twenty measurements, and
    in more where there are few rounds.
    """

    side: str
    other: str
    quantity: str
    unit: str = "SE"
    steady: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        """Both."""
        return (self.side, self.other)

    def values(self, rounds: Sequence[Round]) -> list[float]:
        """One value; 0 where nothing varies and nothing differs.  Raises ValueError for a single round."""
        both = [[found[side][self.quantity] for found in rounds] for side in self.sides]
        if len(rounds) < 2:
            raise ValueError("a standard error needs two rounds at least")
        error = (sum(statistics.variance(values) for values in both) / len(rounds)) ** 0.5
        difference = abs(statistics.fmean(both[0]) - statistics.fmean(both[1]))
        return [difference / error if error else (0.0 if not difference else float("inf"))]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Sides, measured in turn.

    setup: `module:function` of this package; the function makes the sides and ends with the measurement.
    rounds: of each side. warm_up: whether a round is done before that does not count. on_ray: whether the setup starts
    a private Ray, whose environment must be prepared first. minutes: about, of all rounds, on a quiet machine with two
    cores. by_default: whether `make bench` includes it. images: whether the sides use the images of the context.
    """

    name: str
    what: str
    setup: str
    figures: tuple[Figure, ...]
    minutes: float
    rounds: int = 5
    warm_up: bool = True
    on_ray: bool = False
    by_default: bool = True
    images: bool = True

    def open(self, context: Context) -> AbstractContextManager[Sides]:
        """The sides, in the order in which a round does them."""
        module, _, function = self.setup.partition(":")
        return getattr(import_module(f"benchmarks.{module}"), function)(context)


class Measured(NamedTuple):
    """The rounds, and the sides that could not be measured, with the reason for each."""

    rounds: list[dict[str, Quantities]]
    left_out: dict[str, str]


def measure(
    measurement: Measurement, context: Context, *, rounds: int, warm_up: bool, say: Callable[[str], object]
) -> Measured:
    """Do the rounds: in each, every side once, one after another.

    say: is given a line about each finished round.
    """
    with measurement.open(context) as sides:
        left_out = {name: side.reason for name, side in sides.items() if isinstance(side, Unavailable)}
        at_hand = {name: side for name, side in sides.items() if not isinstance(side, Unavailable)}
        if warm_up:
            for side in at_hand.values():
                side(0)
        found = list[dict[str, Quantities]]()
        for number in range(rounds):
            found.append({name: timed(side, number) for name, side in at_hand.items()})
            seconds = ", ".join(f"{name} {values[SECONDS]:.3g} s" for name, values in found[-1].items())
            say(f"{measurement.name}, round {number + 1} of {rounds}: {seconds}")
    return Measured(found, left_out)


def timed(side: Side, number: int) -> Quantities:
    """What the side gives in that round, and the seconds that it took, unless it gives these itself."""
    start = time.perf_counter()
    given = side(number)
    return {SECONDS: time.perf_counter() - start, **(given or {})}
