"""What trials and trainings cost, counted in pieces that can be timed.  Pure arithmetic, no torch.

A piece is what happens to one image: a training step, a forward pass, a step of an attack. `Work` is how many of each;
it becomes seconds once a device's `Speed` is known, and its uncertainty is that of the speeds.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Piece(StrEnum):
    """One image's share of a batch."""

    TRIAL_STEP = "plain training step of trials"
    PLAIN_STEP = "plain training step"
    PGD_STEP = "PGD training step"
    FORWARD = "forward pass"
    TRIAL_FORWARD = "forward pass of trials"  # where their network is another one than that of the trainings
    CRAFT_STEP = "step of the attack in training"  # not timed: what a PGD step takes longer than a plain one
    EXACT_FORWARD = "forward pass of evaluation"  # fp32, small batches, folded weights
    EXACT_STEP = "attack step of evaluation"  # the same, forward and backward


Work = Mapping[Piece, float]

FURTHER: dict[str, Work] = {
    # methods/trades.py: natural images go forward and backward too, and its attack first looks at them (attacks/pgd.py,
    # `against`: one forward pass).
    "trades": {Piece.PLAIN_STEP: 1, Piece.FORWARD: 1},
    # methods/mart.py: natural images go forward and backward too; its attack looks at labels.
    "mart": {Piece.PLAIN_STEP: 1},
}
"""What a training step of a method does beyond that of PGD-AT, for one image.

Nothing for pgd_at. Nothing for gairat (methods/gairat.py): kappa is counted in passes that the attack makes anyway. And
nothing for bat (methods/bat.py): logits and features come from one pass, and the similarities of a batch are a product
of batch x width matrices, under a thousandth of a pass.
"""


@dataclass(frozen=True)
class Rate:
    """How many seconds one piece takes, and their standard error, in seconds too.

    They come from `num_batches` timed batches of `batch_size` images. full_batch: images of a batch in the work itself.
    """

    seconds: float
    standard_error: float
    num_batches: int
    batch_size: int
    full_batch: int

    @classmethod
    def of(
        cls,
        seconds_per_batch: Iterable[float],
        batch_size: int,
        *,
        full_batch: int,
        pieces: int = 1,
        per_round: int = 1,
    ) -> "Rate":
        """The rate from the seconds of single batches, or from their means over rounds of `per_round`: two at least.

        pieces: how many each image had in a batch.
        """
        each = [seconds / (batch_size * pieces) for seconds in seconds_per_batch]
        mean = sum(each) / len(each)
        variance = sum((value - mean) ** 2 for value in each) / (len(each) - 1)
        return cls(mean, math.sqrt(variance / len(each)), len(each) * per_round, batch_size, full_batch)


@dataclass(frozen=True)
class Speed:
    """What was timed on one device.  num_steps: how many steps the attack has in `Piece.PGD_STEP`."""

    device: str
    rates: Mapping[Piece, Rate]
    num_steps: int

    def slower(self, times: float) -> "Speed":
        """The speed of a device on which all takes that many times as long."""
        changes = {p: (times * rate.seconds, times * rate.standard_error) for p, rate in self.rates.items()}
        rates = {p: replace(self.rates[p], seconds=each, standard_error=error) for p, (each, error) in changes.items()}
        return replace(self, rates=rates)

    def seconds(self, work: Work) -> float:
        """How many seconds one worker takes."""
        return sum(count * self.rates[piece].seconds for piece, count in timed(work, self.num_steps).items())

    def standard_error(self, work: Work) -> float:
        """The standard error of `seconds`, from those of the rates: work in one piece is wrong by one factor."""
        counts = timed(work, self.num_steps)
        return math.hypot(*(count * self.rates[piece].standard_error for piece, count in counts.items()))


def timed(work: Work, num_steps: int) -> dict[Piece, float]:
    """The same work in pieces that are timed: an attack's step is (PGD step - plain step) / num_steps."""
    counts = dict(work)
    craft = counts.pop(Piece.CRAFT_STEP, 0) / num_steps
    apart = added({Piece.PGD_STEP: craft, Piece.PLAIN_STEP: -craft}, counts)
    return {piece: count for piece, count in apart.items() if count}


def added(*works: Work) -> dict[Piece, float]:
    """The sum of several works."""
    total: Counter[Piece] = Counter()
    for work in works:
        total.update(work)  # pyright: ignore[reportArgumentType, reportCallIssue]  # counts need not be whole
    return dict(total)


def times(number: float, work: Work) -> dict[Piece, float]:
    """The work that many times."""
    return {piece: number * count for piece, count in work.items()}


def trial_work(*, num_kept: int, num_judged: int, epochs: int, forward: Piece = Piece.FORWARD) -> dict[Piece, float]:
    """A leave-out trial: epochs over the samples that it keeps, then a look at all of both splits."""
    return {Piece.TRIAL_STEP: epochs * num_kept, forward: num_judged}


def step_work(method: str, num_steps: int) -> dict[Piece, float]:
    """A training step, for one image.  A method that is not known here counts as PGD-AT."""
    if method == "erm":
        return {Piece.PLAIN_STEP: 1}
    return added({Piece.PLAIN_STEP: 1, Piece.CRAFT_STEP: num_steps}, FURTHER.get(method, {}))


def training_work(
    method: str, *, num_train: int, num_val: int, epochs: int, num_steps: int, val_steps: int
) -> dict[Piece, float]:
    """A training: in each epoch a step on all that is not held out, and the validation of what is.

    Validation is a forward pass, and with val_steps > 0 an attack and another one.
    """
    validation = {Piece.FORWARD: 2 if val_steps else 1, Piece.CRAFT_STEP: val_steps}
    trained = times(num_train - num_val, step_work(method, num_steps))
    return times(epochs, added(trained, times(num_val, validation)))
