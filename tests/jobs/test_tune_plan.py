"""What a sweep is refused for before anything is trained, and which runs it is made of."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.config import to_dict
from bat_dist.data.datasets import load_dataset
from bat_dist.errors import UserError
from bat_dist.jobs.tune import carry_out_sweep
from bat_dist.jobs.tune_plan import Sweep, plan_sweep
from bat_dist.jobs.tune_proposer import PointProposer
from bat_dist.jobs.tune_run import score_key
from bat_dist.jobs.tune_test import judge_chosen
from bat_dist.reporting.sweep import read_results
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.sweep.record import RunOutcome, SweepRun, note_failure
from bat_dist.sweep.results import Results, summarize
from bat_dist.training.splits import hold_out
from tests.helpers.made_results import write_evaluation, write_training

SIZES: dict[str, Any] = {"dataset": "digits", "num_train": 60, "num_test": 20, "num_val": 10}


def test_a_metric_of_samples_that_the_validation_split_has_not(tmp_path: Path) -> None:
    digits = load_dataset("digits", num_train=60, num_test=20)
    held = hold_out(digits.train.labels, 10, seed=0)
    mem = np.zeros(60)
    mem[held.train[:8]] = 0.5
    mem[held.validation[0]] = 0.2
    np.savez(tmp_path / "memorization.npz", mem=mem, fingerprint=np.array(digits.fingerprint))

    def plan(sigma: list[float], metric: str) -> None:
        base = {"method": "pgd_at", **SIZES, "arch": "tinynet", "scores": str(tmp_path / "memorization.npz")}
        asked = TuneSettings(out=str(tmp_path / "out"), base=base, space={"sigma": sigma}, metric=(metric,))  # pyright: ignore[reportArgumentType]
        plan_sweep(Folder(asked.out), digits, asked)

    plan([0.15], "val_pgd_atypical")
    plan([0.15, 0.3], "val_pgd_typical")
    with pytest.raises(
        UserError, match=r"none of the 10 validation samples is atypical for sigma=0\.3; .* raise num_val"
    ):
        plan([0.15, 0.3], "val_pgd_atypical")


def asked_for(out: Path, values: list[float], **asked: Any) -> Sweep:
    """A sweep over PGD-AT's number of steps."""
    base = {"method": "pgd_at", **SIZES, "arch": "tinynet"}
    settings = TuneSettings(out=str(out), base=base, space={"num_steps": values}, **asked)
    return plan_sweep(Folder(settings.out), load_dataset("digits", num_train=60, num_test=20), settings)


def planned(out: Path, values: list[float], **asked: Any) -> Sweep:
    """The same, and its points are on record."""
    sweep = asked_for(out, values, **asked)
    sweep.record.add(sweep.settings.known_points, to_dict(sweep.settings))
    return sweep


def results_of(sweep: Sweep) -> Results:
    return summarize(sweep.outcomes(), metric=sweep.settings.metric, which=sweep.settings.which)


def end(sweep: Sweep, steps: int, seed: int = 0) -> None:
    """A run that failed has come to an end as one that is done has."""
    note_failure(sweep.folder / SweepRun({"num_steps": steps}, seed).name, "the GPU was full")


def test_a_sweep_that_was_narrowed_is_complete_without_the_points_left_out(tmp_path: Path) -> None:
    planned(tmp_path, [1, 2, 3])  # and interrupted
    narrow = planned(tmp_path, [1, 2])
    end(narrow, 1)
    assert not results_of(narrow).is_complete
    end(narrow, 2)
    assert results_of(narrow).is_complete
    assert read_results(narrow.folder).is_complete  # as --status and report say


def test_a_call_that_has_nothing_to_train_says_which_points_it_is_about(tmp_path: Path) -> None:
    planned(tmp_path, [1, 2])
    write_training(tmp_path / "runs/num_steps=1/seed0")
    assert not read_results(Folder(tmp_path)).is_complete
    carry_out_sweep(asked_for(tmp_path, [1]))
    assert read_results(Folder(tmp_path)).is_complete


def test_an_earlier_point_counts_where_it_has_ended_with_all_seeds(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        end(planned(tmp_path, [1, 2, 3]), steps)
    assert {point.name for point in results_of(planned(tmp_path, [1, 2])).points} == {
        f"num_steps={n}" for n in (1, 2, 3)
    }
    more = planned(tmp_path, [1, 2], seeds=(0, 1))
    end(more, 1, seed=1)
    assert not results_of(more).is_complete
    end(more, 2, seed=1)
    assert results_of(more).is_complete
    assert read_results(more.folder).is_complete
    assert {point.name for point in results_of(more).points} == {"num_steps=1", "num_steps=2"}


def test_judged_points_have_the_attacks_that_are_asked_for_in_their_order(tmp_path: Path) -> None:
    """Two seeds, judged before by other calls: one by more attacks, one in another order."""
    sweep = planned(tmp_path, [1], seeds=(0, 1), test_attacks=("clean", "pgd20"))
    row = {"epoch": 1, "val_clean": 0.9, "val_pgd": 0.5}
    outcomes = [RunOutcome(run, "done", epochs=1, best=row, last=row) for run in sweep.runs()]
    right = np.ones(10, bool)
    found = [("pgd20", "fgsm", "clean", "worst_case"), ("clean", "pgd20")]
    for seed, attacks in enumerate(found):
        asked = {"attacks": [name for name in attacks if name != "worst_case"]}
        write_evaluation(tmp_path / f"test/num_steps=1/seed{seed}", dict.fromkeys(attacks, right), settings=asked)
    judged = judge_chosen(sweep, summarize(outcomes, metric=("val_pgd",), which="best"))
    assert [[row.attack for row in rows] for rows in judged.values()] == [["clean", "pgd20"]] * 2


def test_points_of_an_earlier_search_are_not_counted_as_proposed(tmp_path: Path) -> None:
    planned(tmp_path, [1, 2, 3])
    sweep = planned(tmp_path, list(range(1, 9)), search="tpe", num_points=2)
    assert (sweep.num_wanted(), sweep.num_points()) == (2, 5)
    assert len(PointProposer(sweep, {}).more()) == 1
    again = planned(tmp_path, list(range(1, 9)), search="tpe", num_points=2)
    assert (again.num_wanted(), again.num_points()) == (1, 5)


def test_a_sweep_of_an_earlier_version_goes_on_with_what_tpe_proposed(tmp_path: Path) -> None:
    sweep = planned(tmp_path, [1, 2, 3], search="tpe", num_points=2)
    sweep.record.add([{"num_steps": 3}], to_dict(sweep.settings), proposed=True)
    document = json.loads((tmp_path / "sweep.json").read_text())
    del document["proposed"]
    (tmp_path / "sweep.json").write_text(json.dumps(document))
    assert planned(tmp_path, [1, 2, 3], search="tpe", num_points=2).num_wanted() == 1


def test_the_scores_of_every_point_that_can_be_proposed_are_read(tmp_path: Path) -> None:
    """Also of two settings that together decide them."""
    digits = load_dataset("digits", num_train=60, num_test=20)
    mem = np.linspace(0, 1, 60)
    np.savez(tmp_path / "memorization.npz", mem=mem, fingerprint=np.array(digits.fingerprint))
    base = {"method": "pgd_at", **SIZES, "arch": "tinynet", "scores": str(tmp_path / "memorization.npz")}
    space = {"sigma": [0.15, 0.3], "undefined": ["neutral", "typical"], "lr": {"uniform": [0.01, 0.1]}}
    asked = TuneSettings(out=str(tmp_path / "out"), base=base, space=space, search="tpe", num_points=3)
    found = plan_sweep(Folder(asked.out), digits, asked).scores
    for sigma, undefined in itertools.product(*list(space.values())[:2]):
        point = {"sigma": sigma, "undefined": undefined, "lr": 0.05}
        assert found.get(score_key(asked.of_run(point, seed=0, out="x"))) is not None
