"""Points proposed by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), with one goal or several.

What it knows is rebuilt from the results, so that nothing but the sweep's own record has to survive a lost driver.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from bat_dist.sweep.space import Dimension, Point, point_name, rounded

STARTUP = 10  # points drawn at random before it models anything
TRIES = 50  # for a point that is not there yet


class Proposals:
    """Asks for points, and tells what came of them.  Values: more is better."""

    def __init__(self, space: Sequence[Dimension], *, num_goals: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = list(space)
        self._distributions: dict[str, BaseDistribution] = {
            d.name: CategoricalDistribution(d.values) if d.values else FloatDistribution(d.low, d.high, log=d.log)
            for d in space
        }
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
        self._study = optuna.create_study(directions=[StudyDirection.MAXIMIZE] * num_goals, sampler=sampler)
        self._asked: dict[str, optuna.Trial] = {}

    def know(self, point: Mapping[str, Any], values: Sequence[float] | None) -> None:
        """A point that has ended before; None: it failed.  One that lies outside the space teaches nothing."""
        params = self._params(point)
        if params is None:
            return
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        values = values and list(values)
        self._study.add_trial(
            create_trial(state=state, params=params, distributions=self._distributions, values=values)
        )

    def begun(self, point: Mapping[str, Any]) -> None:
        """A point that is at work, though it was not proposed here."""
        if (params := self._params(point)) is not None:
            self._study.enqueue_trial(params)
            self._asked[point_name(point)] = self._study.ask(self._distributions)

    def propose(self, known: Sequence[Mapping[str, Any]]) -> Point | None:
        """Another point than those that are known; None if there seems to be none."""
        names = {point_name(point) for point in known}
        for _ in range(TRIES):
            trial = self._study.ask(self._distributions)
            drawn = {d.name: trial.params[d.name] for d in self._space}
            point = {d.name: drawn[d.name] if d.values else rounded(drawn[d.name]) for d in self._space}
            if point_name(point) not in names:
                self._asked[point_name(point)] = trial
                return point
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def ended(self, point: Mapping[str, Any], values: Sequence[float] | None) -> None:
        """What came of a point that was proposed or begun; None: it failed."""
        trial = self._asked.pop(point_name(point), None)
        if trial is not None and values is None:
            self._study.tell(trial, state=TrialState.FAIL)
        elif trial is not None:
            self._study.tell(trial, list(values or ()))

    def _params(self, point: Mapping[str, Any]) -> dict[str, Any] | None:
        inside = all(d.name in point and d.holds(point[d.name]) for d in self._space)
        return {d.name: point[d.name] for d in self._space} if inside else None
