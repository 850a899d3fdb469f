"""One ensemble serves all cheaper scores; what its members did not keep is refused, and old folders go on."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.artifacts.scores import ENSEMBLE
from bat_dist.artifacts.trak import TRAK_FIELDS, read_trak
from bat_dist.config import parse
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.errors import UserError
from bat_dist.jobs import memorize as job
from bat_dist.jobs.ensemble_fields import DYNAMICS, ensemble_fields
from bat_dist.jobs.scores import ensemble_scores
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore
from bat_dist.training.score_file import read_scores
from bat_dist.training.trial import EnsembleSettings, run_member

ASKED = (
    "--dataset digits --num_train 60 --num_test 20 --arch tinynet --ensemble_archs tinynet --epochs 2 --batch_size 20 "
    "--loader memory --precision fp32 --num_members 2 --score {score} --out {out}"
)
Rows = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=60, num_test=20)


def settings_of(place: Path, score: str) -> MemorizeSettings:
    return parse(MemorizeSettings, shlex.split(ASKED.format(score=score, out=place)), prog="")[0]


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> Rows:
    """Two members, with made-up gradients in the place of TRAK's."""
    settings = EnsembleSettings(("tinynet",), settings_of(Path("x"), "el2n").training, "fp32", 0)
    loaders = {f"{name}_loader": dataset_loader("memory", dataset, name) for name in ("train", "test")}
    how = {"settings": settings, "dataset": dataset, "device": torch.device("cpu"), **loaders}
    rng = np.random.default_rng(0)
    shapes = ((60, 15), (20, 15), (60,), (60,))
    made = [{name: rng.random(shape) for name, shape in zip(TRAK_FIELDS, shapes, strict=True)} for _ in range(2)]
    return [{**run_member(k, **how), **made[k]} for k in range(2)]


def begun(place: Path, dataset: Dataset, rows: Rows, fields: dict[str, Field]) -> Folder:
    """A folder of which `memorize` believes that it has trained the members itself."""
    folder = Folder(place)
    members = EnsembleSettings(("tinynet",), settings_of(place, "el2n").training, "fp32", 0)
    identity = job.identity_of_rows(members, dataset)
    store = RowStore.open(folder / ENSEMBLE, fields=fields, identity=identity, num_rows=len(rows))
    for number, row in enumerate(rows):
        store.write(number, row)
    return folder


def fields_of(dataset: Dataset, tmp_path: Path, *, history: bool = True, gradients: bool = False) -> dict[str, Field]:
    if gradients:
        pytest.importorskip("trak", reason="traker is not installed: the extra attribution brings it")
    score = "self_influence" if gradients else "disagreement"
    fields = ensemble_fields(Folder(tmp_path / "none"), settings_of(tmp_path, score), dataset)
    return {name: one for name, one in fields.items() if history or name not in DYNAMICS}


def test_every_score_is_in_the_file_whichever_was_asked_for(dataset: Dataset, rows: Rows, tmp_path: Path) -> None:
    folder = begun(tmp_path, dataset, rows, fields_of(dataset, tmp_path))
    found, _ = ensemble_scores(folder, dataset, settings_of(tmp_path, "disagreement"))
    assert set(found.scores) == {"disagreement", "confidence", "true_class_confidence", *DYNAMICS}
    for name in DYNAMICS:
        np.testing.assert_allclose(found.scores[name], np.mean([row[name] for row in rows], axis=0), rtol=1e-6)
        assert read_scores(f"{folder}/ensemble_scores.npz", dataset, score=name, sigma=1.0).name == name
    assert (found.scores["learning_time"] >= 1).all()
    assert (found.scores["el2n"] <= np.sqrt(2)).all()
    assert read_trak(folder) is None


def test_members_with_gradients_have_self_influence_too(dataset: Dataset, rows: Rows, tmp_path: Path) -> None:
    folder = begun(tmp_path, dataset, rows, fields_of(dataset, tmp_path, gradients=True))
    found, _ = ensemble_scores(folder, dataset, settings_of(tmp_path, "forgetting"))
    leverage, out_to_loss = (
        np.mean([row[f"trak_{name}"] for row in rows], axis=0) for name in ("leverage", "out_to_loss")
    )
    np.testing.assert_allclose(found.scores["self_influence"], leverage * out_to_loss, rtol=1e-5)
    trak = read_trak(folder)
    assert trak is not None
    np.testing.assert_allclose(trak.test_gradients, [row["trak_test_gradients"] for row in rows], rtol=1e-6)


def test_an_ensemble_of_an_earlier_version_goes_on_with_the_scores_that_it_has(
    dataset: Dataset, rows: Rows, tmp_path: Path
) -> None:
    folder = begun(tmp_path, dataset, rows, fields_of(dataset, tmp_path, history=False))
    found, filled = ensemble_scores(folder, dataset, settings_of(tmp_path, "confidence"))
    assert (filled.kept, filled.computed) == (2, 0)
    assert set(found.scores) == {"disagreement", "confidence", "true_class_confidence"}


@pytest.mark.parametrize("score", [*DYNAMICS, "self_influence"])
def test_what_finished_members_did_not_keep_is_refused(
    score: str, dataset: Dataset, rows: Rows, tmp_path: Path
) -> None:
    folder = begun(tmp_path, dataset, rows, fields_of(dataset, tmp_path, history=False))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = f"{folder / ENSEMBLE} holds members without what {score} needs, .*another --out, or here with --fresh"
    with pytest.raises(UserError, match=said):
        ensemble_scores(folder, dataset, settings_of(tmp_path, score))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_self_influence_names_its_extra(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trak", None)
    with pytest.raises(UserError, match=r"trak is not installed: .*\[attribution\]"):
        ensemble_fields(Folder(tmp_path / "none"), settings_of(tmp_path, "self_influence"), dataset)
