"""The model of a fleet whose machines are taken away, against closed forms and invariants; what is made of it."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fleet_calibration import Parameters, fitted, markdown, real_run, rows
from benchmarks.fleet_figures import lost_percent
from benchmarks.fleet_study import QUANTITIES, Scenario, draw, found, scenarios, write_csv
from benchmarks.preemptible_fleet import GIVEN_UP_AFTER, Fleet, Run, attempts_seconds, simulate


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


def test_machines_are_asked_for_as_fast_as_ray_does() -> None:
    fleet = Fleet(25, 1, boot=100, worker_start=0, idle_timeout=0, preemptions_per_hour=0)
    assert simulate(fleet, 25, 60.0, 0, spread=0).seconds == 10 + 100 + 60  # ten at once, the last five after 10 s
    slow = Fleet(5, 1, boot=100, worker_start=0, idle_timeout=0, preemptions_per_hour=0, upscaling_speed=1)
    assert simulate(slow, 5, 60.0, 0, spread=0).seconds == 20 + 100 + 60  # one at once as long as none is up


def test_the_first_machines_of_a_real_fleet_are_up_at_its_start() -> None:
    fleet = Fleet(12, 1, boot=100, worker_start=0, preemptions_per_hour=0, first_boot=7)
    assert simulate(fleet, 12, 60.0, 0, spread=0).seconds == 7 + 60


def test_a_trial_that_is_lost_too_often_is_given_up() -> None:
    outcome = simulate(Fleet(1, 1, boot=0, worker_start=0, notice=1, preemptions_per_hour=60), 1, 36000.0, 0)
    assert (outcome.given_up, outcome.repeated) == (1, GIVEN_UP_AFTER - 1)
    assert outcome.preempted == GIVEN_UP_AFTER == 33  # thirty are forgiven, and three attempts may fail


def test_lost_work_is_what_the_closed_form_says() -> None:
    fleet = Fleet(1, 1, boot=0, worker_start=0, notice=0, idle_timeout=0, preemptions_per_hour=1)
    lost = np.array([simulate(fleet, 1, 3600.0, seed, spread=0).lost_seconds for seed in range(600)]) / 36
    assert lost_percent(60, 1) == pytest.approx(100 * (math.e - 2))
    assert abs(lost.mean() - lost_percent(60, 1)) < 3 * lost.std() / math.sqrt(len(lost))


def test_the_study_asks_each_question_once_and_answers_in_useful_units() -> None:
    asked = [(scenario.question, scenario.value) for scenario in scenarios()]
    assert len(set(asked)) == len(asked)
    fleet = Fleet(2, 2, boot=0, worker_start=0, idle_timeout=0, preemptions_per_hour=0)
    quantities = found(Scenario("alone", 0, fleet, 60.0), 40, 3)
    assert tuple(quantities) == QUANTITIES
    assert quantities["hours"].mean == pytest.approx(10, rel=0.05)  # trials of 1 h that differ by 5%
    assert quantities["paid_over_useful"].mean == pytest.approx(1, rel=0.05)
    assert quantities["usd"].mean == pytest.approx(0.40 * 20 + 0.20 * 10, rel=0.05)


def test_the_study_is_written_as_a_table_and_two_figures(tmp_path: Path) -> None:
    nothing = found(Scenario("", 0, Fleet(preemptions_per_hour=0)), 1, 2)
    table: dict[str, dict[float, Any]] = {}
    for scenario in scenarios():
        table.setdefault(scenario.question, {})[scenario.value] = nothing
    write_csv(table, tmp_path / "scenarios.csv")
    draw(table, tmp_path, 1, 2)
    with (tmp_path / "scenarios.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(list(scenarios())) * len(QUANTITIES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.png", "scenarios.csv", "settings.png"]


def told_by_a_fleet(**more: Any) -> dict[str, Any]:
    """What tests/workers/fleet.py says of four trials on a node with two workers that died once, at 1,010 s."""
    attempts = [(0, "started", 1002, 11), (1, "started", 1004, 12), (0, "done", 1006, 11), (2, "started", 1006.5, 11)]
    attempts += [(1, "done", 1008, 12), (3, "started", 1008.5, 12)]
    attempts += [(2, "lost", 1013, 11), (3, "lost", 1013, 12), (2, "started", 1020, 21), (3, "started", 1022, 22)]
    attempts += [(2, "done", 1024, 21), (3, "done", 1026, 22)]
    told = {"units": 4, "nodes": 1, "workers_per_node": 2, "trial_seconds": 4.0, "seconds_between_deaths": 10.0}
    return (
        told | {"start": 1000, "death_times": [1010], "seconds": 26.0, "attempts": attempts, "load": [[1], [2]]} | more
    )


def test_a_real_run_is_measured() -> None:
    run = real_run(told_by_a_fleet())
    assert (run.every, run.deaths, run.repeated) == (10, 1, 2)
    assert run.lost_seconds == 3.5 + 1.5
    assert (run.first_start, run.replacement, run.notice, run.between) == (3, 11, 3, 0.5)
    assert run.load == "1.0 to 2.0"


def test_the_model_with_the_parameters_of_a_run_is_that_run() -> None:
    """Both workers lose a trial when their node dies after 10 s; it is replaced after 11 s, and they begin anew."""
    run = real_run(told_by_a_fleet())
    parameters = fitted([run, real_run(told_by_a_fleet(death_times=[], attempts=run_without_deaths()))])
    assert parameters == Parameters(first_start=3, replacement=11, notice=3, between=0.5)
    (row,) = rows([run], parameters, "fit")
    # A death may find a trial at any point: 2.25 s of two are lost on average.  A few runs end before it.
    assert row["model seconds"] == pytest.approx(10 + 11 + 4.5, rel=0.05)
    assert row["model repeated"] == pytest.approx(2, rel=0.07)
    assert row["model lost seconds"] == pytest.approx(2 * 2.25, rel=0.1)
    assert row["error seconds"] == pytest.approx(100 * (row["model seconds"] / 26 - 1))
    assert row["own seconds"] == row["error seconds"]  # the parameters are those of this run
    assert f"model {row['model seconds']:.0f} (" in markdown([row])
    (row,) = rows([run], parameters._replace(replacement=21.0), "judge")
    assert row["error seconds"] - row["own seconds"] == pytest.approx(100 * 10 / 26, rel=0.1)


def run_without_deaths() -> list[tuple[int, str, float, int]]:
    return [(0, "started", 1002, 1), (1, "started", 1004, 2), (0, "done", 1006, 1), (2, "started", 1006.5, 1)]
