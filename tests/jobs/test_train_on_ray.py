"""A data-parallel training whose ranks have no Ray; with one: tests/test_train.py."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bat_dist.data.datasets import load_dataset
from bat_dist.errors import UserError
from bat_dist.jobs import train_on_ray
from bat_dist.jobs.training_plan import make_plan
from bat_dist.settings.train import TrainSettings
from bat_dist.workers.resources import Resources
from bat_dist.workers.terms import ClusterTerms, FolderProbe


def test_a_rank_on_a_machine_that_does_not_see_the_folder_does_not_train(tmp_path: Path) -> None:
    """It would write the checkpoints to a disk of its own, or begin anew where the others go on."""
    probe = FolderProbe(str(tmp_path), ".visible-0", b"of the driver")
    outcome = train_on_ray._train_rank({"terms": ClusterTerms(probe=probe)})
    assert f"{tmp_path} is not the same folder on all nodes" in outcome["refused"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_rank_has_refused_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def trainer(rank: Any, *, train_loop_config: Any, **_: Any) -> Any:
        given.append(train_loop_config["terms"])
        return SimpleNamespace(fit=lambda: SimpleNamespace(return_value={"refused": "w7 does not see the folder"}))

    monkeypatch.setattr(train_on_ray, "TorchTrainer", trainer)
    monkeypatch.setattr(train_on_ray.ray, "put", lambda value: None)
    monkeypatch.setattr(train_on_ray, "_followed", lambda *_: nullcontext())
    asked = TrainSettings(dataset="digits", method="erm", out=str(tmp_path), num_workers=2, num_val=10, batch_size=16)
    plan = make_plan(load_dataset("digits", num_train=60, num_test=20), asked)
    terms, epochs = ClusterTerms(source="0123456789ab"), SimpleNamespace()
    with pytest.raises(UserError, match="w7 does not see the folder"):
        train_on_ray.train_on_ray(plan, Resources(), terms, 1, epochs, None)  # pyright: ignore[reportArgumentType]
    assert given == [terms]
