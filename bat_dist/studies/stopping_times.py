"""When runs would have ended by a stopping rule, had the trials of a store come in another order."""

from collections.abc import Iterator
from typing import NamedTuple, get_args

import numpy as np

from bat_dist.memorization.estimators import Outcomes
from bat_dist.memorization.stopping import TARGETS, Criterion, StoppingRule, replay
from bat_dist.memorization.typicality import ATYPICAL_THRESHOLD
from bat_dist.studies.efficiency import Reference, trial_order


class StoppedRun(NamedTuple):
    """How one run ended.

    is_met: whether the rule was met; if not, the trials were too few for it, and all were used. decided: the share of
    the samples of which mem > 0.15 or its contrary is decided. agrees: the share of these that the reference has on the
    same side of 0.15; NaN for none. covered: the share of all samples whose interval has the reference's value in it,
    which misses 95% by the reference's own noise alone if the intervals are sound.
    """

    repetition: int
    criterion: Criterion
    num_trials: int
    is_met: bool
    decided: float
    agrees: float
    covered: float


def stopped_runs(
    outcomes: Outcomes, *, mask_plan: str = "uniform", reference: Outcomes | None = None, repetitions: int
) -> Iterator[StoppedRun]:
    """A run for each criterion in each repetition, with the orders and the references of `efficiency.measure`."""
    most = len(outcomes.mask) if reference else len(outcomes.mask) // 2
    for repetition in range(repetitions):
        order = trial_order(mask_plan, len(outcomes.mask), np.random.default_rng([0, repetition]))
        judges = reference or outcomes.of(order[most:])
        mem = Reference.of(judges.mask, judges.correct).mem
        known = np.isfinite(mem)
        for criterion in get_args(Criterion):
            rule = StoppingRule(criterion, TARGETS[criterion], max_trials=most)
            found = replay(outcomes.mask, outcomes.correct, rule, order[:most])
            decided = (found.verdicts != 0) & known
            same = (found.verdicts > 0) == (mem > ATYPICAL_THRESHOLD)
            yield StoppedRun(
                repetition,
                criterion,
                found.num_trials,
                found.is_met,
                float(np.mean(found.verdicts != 0)),
                float(same[decided].mean()) if decided.any() else np.nan,
                float(np.mean((found.low <= mem)[known] & (mem <= found.high)[known])),
            )
