"""A run of a sweep, as a worker of Tune has it done."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bat_dist.errors import UserError
from bat_dist.jobs import tune_run
from bat_dist.jobs.tune_queue import RunRequest
from bat_dist.settings.tune import TuneSettings
from bat_dist.workers.terms import ClusterTerms, FolderProbe, present_terms


def test_a_run_that_starts_workers_of_its_own_has_the_terms_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ClusterTerms] = []

    def carry_out(plan: Any, **_: Any) -> Any:
        seen.append(present_terms())
        return SimpleNamespace(last={})

    monkeypatch.setattr(tune_run, "carry_out", carry_out)
    monkeypatch.setattr(tune_run, "make_plan", lambda *_, **__: None)
    monkeypatch.setattr(tune_run, "_tell_tune", lambda row: None)
    monkeypatch.setattr(tune_run.ray, "get", lambda reference: None)
    monkeypatch.setattr(tune_run, "work_for", lambda command: None)
    terms = ClusterTerms(wait_minutes=3.0)
    sweep = TuneSettings(base={"method": "erm", "dataset": "digits"}, space={"lr": [0.1]}, out=str(tmp_path))
    shared = tune_run.SharedByRuns(sweep, sweep.out, None, {}, terms, "bat-dist tune", 0.0)
    tune_run.train_run(RunRequest(point={"lr": 0.1}, seed=0), shared=shared)
    assert seen == [terms]
    assert present_terms() == ClusterTerms()  # the process may get another run


def test_a_run_does_not_begin_on_a_machine_that_does_not_see_the_folder(tmp_path: Path) -> None:
    sweep = TuneSettings(base={"method": "erm", "dataset": "digits"}, space={"lr": [0.1]}, out=str(tmp_path / "sweep"))
    terms = ClusterTerms(probe=FolderProbe(sweep.out, ".visible-0", b"driver"))
    shared = tune_run.SharedByRuns(sweep, sweep.out, None, {}, terms, "bat-dist tune", 0.0)
    with pytest.raises(UserError, match="is not the same folder on all nodes"):
        tune_run.train_run(RunRequest(point={"lr": 0.1}, seed=0), shared=shared)
    assert not (tmp_path / "sweep").exists()
