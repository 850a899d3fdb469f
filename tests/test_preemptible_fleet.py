"""The model of a fleet whose machines are taken away, against closed forms and invariants."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

MODEL = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "preemptible_fleet.py"), run_name="loaded")
Fleet, Run, simulate, attempts_seconds = (MODEL[name] for name in ("Fleet", "Run", "simulate", "attempts_seconds"))


def test_without_preemption_time_and_price_follow_from_the_number_of_rounds() -> None:
    fleet = Fleet(2, 2, boot=100, worker_start=10, idle_timeout=50, preemptions_per_hour=0)
    run = simulate(fleet, 10, 60.0, 0, spread=0)
    assert run.seconds == pytest.approx(100 + 10 + 3 * 60)  # ten trials on four workers: three rounds
    assert run.machine_seconds == pytest.approx((290 + 50) + (230 + 50))  # the second has no trial in the third round
    assert (run.lost_seconds, run.preempted, run.repeated) == (0, 0, 0)


def test_a_trial_that_begins_anew_takes_what_the_closed_form_says() -> None:
    fleet = Fleet(1, 1, boot=200, worker_start=20, notice=30, idle_timeout=0, preemptions_per_hour=2)
    seconds = np.array([simulate(fleet, 1, 1000.0, seed, spread=0).seconds for seed in range(600)])
    expected = attempts_seconds(200 + 20 + 1000, 2, restart=30)
    assert abs(seconds.mean() - expected) < 3 * seconds.std() / math.sqrt(len(seconds))


def test_the_closed_form_without_preemption_is_the_trial_itself() -> None:
    assert attempts_seconds(600, 0) == 600
    assert attempts_seconds(600, 1e-6) == pytest.approx(600, rel=1e-6)


@pytest.mark.parametrize("rate", [0.5, 5.0])
def test_every_trial_is_done_once_and_no_work_is_paid_twice(rate: float) -> None:
    fleet = Fleet(6, 3, boot=60, worker_start=5, notice=15, idle_timeout=40, preemptions_per_hour=rate)
    trial_seconds = np.random.default_rng(0).uniform(20, 400, 120)
    run = Run(fleet, trial_seconds, 3)
    outcome = run.outcome()
    assert sorted(run.done) == list(range(120))
    assert outcome.preempted > 0
    assert outcome.repeated > 0
    assert trial_seconds.sum() + outcome.lost_seconds <= 3 * outcome.machine_seconds
    assert len(run.machines) <= 6


def test_deaths_at_fixed_times_are_as_many_as_fit() -> None:
    outcome = simulate(
        Fleet(4, 2, boot=0, worker_start=0, notice=0, deaths_every=10, preemptions_per_hour=0), 80, 5.0, 0
    )
    assert outcome.preempted == int(outcome.seconds // 10)
