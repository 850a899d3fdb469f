"""`Scores`: the arrays are those of the files, and the rest is counted by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bat_dist import Scores, load_scores
from bat_dist.artifacts.scores import SampleNames, write_ensemble_scores, write_influence, write_memorization
from bat_dist.data.datasets import Dataset
from bat_dist.data.own import dataset_of
from bat_dist.errors import UserError
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.exchange import FeldmanZhang, save_feldman_zhang
from bat_dist.memorization.influence import InfluencePairs
from bat_dist.storage.files import Folder

TRIALS = 8
# mem by sample: 1 (right with it alone), 0 (always right), 0.5, NaN (never out), and 1 again.
IN = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [1, 0, 1, 1, 0]] + [[0, 1, 0, 1, 1]] * 4, bool)
CORRECT = np.array(
    [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    + [[0, 1, 0, 1, 1]] * 2
    + [[0, 1, 1, 1, 1]] * 2,
    bool,
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    images = np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(5, 8, 8, 3)
    return dataset_of((images, np.array([0, 1, 0, 1, 0])), (images[:2], np.array([0, 1])), name="five")


@pytest.fixture(scope="module")
def folder(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scores")
    write_memorization(Folder(place), SampleNames.of(data), estimate_memorization(IN, CORRECT), None)
    pairs = InfluencePairs(
        np.array([4, 0, 2]), np.array([1, 0, 1]), np.array([0.9, 0.8, 0.5]), np.array([0.1, 0.2, 0.3]), 3
    )
    write_influence(Folder(place), pairs, data.fingerprint)
    return place


@pytest.fixture
def scores(folder: Path, data: Dataset) -> Scores:
    return load_scores(folder, data)


def test_arrays(scores: Scores) -> None:
    assert np.array_equal(scores.mem, [1, 0, 0.5, np.nan, 1], equal_nan=True)
    assert scores.n_in.tolist() == [4, 6, 4, 8, 6]
    assert scores.n_out.tolist() == [4, 2, 4, 0, 2]
    assert scores.mem_se[2] == pytest.approx(np.sqrt(0.5 * 0.5 / 4))
    assert (scores.low[:3] <= scores.mem[:3]).all()
    assert (scores.mem[:3] <= scores.high[:3]).all()
    assert scores.labels.tolist() == [0, 1, 0, 1, 0]
    assert scores.ids.tolist() == ["0", "1", "2", "3", "4"]
    assert len(scores) == 5


def test_sets_of_samples(scores: Scores) -> None:
    assert scores.atypical().tolist() == [0, 2, 4]
    assert scores.atypical(0.5).tolist() == [0, 4]
    assert scores.top(3).tolist() == [0, 4, 2], "equal ones in their order"
    assert scores.top(100).tolist() == [0, 4, 2, 1], "an undefined score is never at the top"
    assert scores.top(0).tolist() == []


def test_influence(scores: Scores) -> None:
    found = scores.influence(test=1)
    assert found.train_index.tolist() == [4, 2]
    assert found.influence.tolist() == [0.9, 0.5]
    assert found.num_found == 2
    assert scores.influence(train=0).test_index.tolist() == [0]
    assert scores.influence(train=4, test=0).num_found == 0
    with pytest.raises(UserError, match="whose influence"):
        scores.influence()
    with pytest.raises(UserError, match="train must be a position from 0 to 4, got 5"):
        scores.influence(train=5)
    for position in (2, -1):
        with pytest.raises(UserError, match=f"test must be a position from 0 to 1, got {position}"):
            scores.influence(test=position)


def test_as_a_table_and_in_words(scores: Scores) -> None:
    table = scores.to_pandas()
    assert table.columns.tolist() == ["id", "label", "mem", "mem_se", "low", "high", "n_in", "n_out"]
    assert table["mem"].tolist()[:3] == [1, 0, 0.5]
    assert "3 of 5 training samples (60.0%)" in repr(scores)
    assert "from 8 trials" in repr(scores)


def test_in_a_notebook(scores: Scores, folder: Path) -> None:
    with_pictures, without = scores._repr_html_(), load_scores(folder)._repr_html_()
    assert with_pictures.count("<img") == 4
    assert without.count("<img") == 0
    assert without.count("<td") == 4
    picture = scores.plot(2)
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_names_in_a_notebook_are_text(tmp_path: Path, folder: Path, data: Dataset) -> None:
    arrays = dict(np.load(folder / "memorization.npz"))
    np.savez(tmp_path / "x.npz", **{**arrays, "train_ids": np.array(["<b>"] * 5)})
    assert "<b>" not in load_scores(tmp_path / "x.npz", data)._repr_html_()


def test_a_file_of_feldman_and_zhang(tmp_path: Path, data: Dataset) -> None:
    influence = {0: np.array([[0.5], [0.75], [0.25]], np.float32), 1: np.array([[0.0], [np.nan]], np.float32)}
    mem = np.array([0.1, 0.2, 0.3, np.nan, 0.9])
    save_feldman_zhang(tmp_path / "x.npz", FeldmanZhang(mem, data.train.labels, data.test.labels, influence))
    scores = load_scores(tmp_path / "x.npz", data)
    assert np.array_equal(scores.mem, mem, equal_nan=True)
    assert np.isnan(scores.low).all()
    assert scores.influence(test=0).train_index.tolist() == [2, 0, 4], "all pairs of the class, the largest first"
    assert scores.influence(test=1).influence.tolist() == [0]
    with pytest.raises(UserError, match="test must be a position from 0 to 1, got 2"):
        scores.influence(test=2)
    assert load_scores(tmp_path / "x.npz").ids.tolist() == ["0", "1", "2", "3", "4"]
    assert load_scores(tmp_path / "x.npz").plot.__doc__
    other = dataset_of((data.train.images, 1 - data.train.labels), (data.test.images, data.test.labels), name="other")
    with pytest.raises(UserError, match="another set"):
        load_scores(tmp_path / "x.npz", other)


def test_cheaper_scores(tmp_path: Path, data: Dataset) -> None:
    found = {"disagreement": np.linspace(0, 1, 5), "confidence": np.linspace(1, 0, 5)}
    write_ensemble_scores(Folder(tmp_path), SampleNames.of(data), found)
    scores = load_scores(tmp_path, data, score="confidence")
    assert scores.top(1).tolist() == [0]
    assert scores.kind == "confidence"
    assert load_scores(tmp_path).top(1).tolist() == [4]
    assert "confidence" in scores.to_pandas()
    with pytest.raises(UserError, match="a scale of its own"):
        scores.atypical()
    with pytest.raises(UserError, match="no influences"):
        scores.influence(test=0)
    with pytest.raises(UserError, match="neither mem nor doubt"):
        load_scores(tmp_path, score="doubt")


def test_data_and_scores_must_belong_together(folder: Path, data: Dataset, tmp_path: Path) -> None:
    other = dataset_of((data.train.images[::-1], data.train.labels), (data.test.images, data.test.labels), name="x")
    with pytest.raises(UserError, match="of other data than those given"):
        load_scores(folder, other)
    both = (data.train.images, data.train.labels), (data.test.images, data.test.labels)
    assert load_scores(folder, both).data is not None
    with pytest.raises(UserError, match="images are not at hand"):
        load_scores(folder).plot()
    with pytest.raises(UserError, match="does not exist"):
        load_scores(tmp_path / "nothing")
    Image.new("RGB", (1, 1)).save(tmp_path / "x.png")
    with pytest.raises(UserError):
        load_scores(tmp_path / "x.png")


def test_a_package_that_is_missing_is_named_with_its_extra(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pandas is not installed.*pip install '\.\[report\]' in the clone"):
        scores.to_pandas()
