"""`bat-dist export --scores`: what others load is what was found, and nothing of this machine goes with it."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bat_dist import load_scores
from bat_dist.config import to_dict
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.export import main
from bat_dist.jobs.scores import imported_scores, leave_out_scores
from bat_dist.reporting.summary import leave_out_summary
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import provenance
from tests.helpers.made_trials import NUM_TEST, NUM_TRAIN, made_trials, settings_for

ALL = {
    *("README.md", "provenance.json", "scores.parquet", "influence.parquet", "memorization.npz", "influence.npz"),
    *("feldman_zhang.npz", "typicality.npz"),
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=NUM_TRAIN, num_test=NUM_TEST)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Folder:
    """As `bat-dist memorize` leaves it, without the pictures; typed by alice, with a password."""
    place = str(tmp_path_factory.mktemp("runs") / "scored")
    folder = made_trials(place, dataset, range(12))
    settings = settings_for(place, "--num_trials", "12")
    scores, _ = leave_out_scores(folder, dataset, settings)
    asked = dict(to_dict(settings)) | {"data_dir": "/home/alice/data", "arch": "/home/alice/net.py:Net"}
    origin = {**provenance([{"cpu": "EPYC", "threads": 1}]), "command": "memorize --out s3://alice:hunter2@host/x"}
    summary = leave_out_summary(dataset, scores, influence_threshold=0.15, failed={})
    folder.write_json("summary.json", {**summary, "settings": asked, "provenance": origin})
    return folder


@pytest.fixture
def exported(scored: Folder, tmp_path: Path) -> Path:
    assert export(scored, tmp_path / "out", "--license", "cc-by-4.0") == 0
    return tmp_path / "out"


def export(scores: Folder | Path, out: Path, *options: str) -> int:
    return main(["--scores", str(scores), "--out", str(out), *options])


def assert_equal_arrays(one: Any, other: Any, names: tuple[str, ...]) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


# ---------------------------------------------------------------------------------------------------- round trips


def test_what_is_loaded_is_what_was_found(scored: Folder, exported: Path, dataset: Dataset) -> None:
    assert {path.name for path in exported.iterdir()} == ALL
    found, original = load_scores(exported), load_scores(str(scored))
    assert_equal_arrays(found, original, ("mem", "mem_se", "low", "high", "n_in", "n_out", "labels", "ids"))
    assert found.pairs is not None
    assert original.pairs is not None
    assert len(found.pairs.influence) > 0
    pairs = ("train_index", "test_index", "influence", "influence_se")
    assert_equal_arrays(found.pairs, original.pairs, pairs)
    table = pd.read_parquet(exported / "influence.parquet")
    for name in pairs:
        np.testing.assert_array_equal(table[name], getattr(original.pairs, name))
    assert table["train_id"].tolist() == dataset.train.ids[original.pairs.train_index].tolist()
    assert table["test_id"].tolist() == dataset.test.ids[original.pairs.test_index].tolist()
    assert table["train_label"].tolist() == table["test_label"].tolist()
    assert found.data is not None, "the data are named in provenance.json"
    assert found.data.fingerprint == dataset.fingerprint


def test_the_datasets_library_loads_it(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    library = pytest.importorskip("datasets")
    how = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    for config, table in ((None, "scores.parquet"), ("influence", "influence.parquet")):
        found = library.load_dataset(str(exported), config, **how).to_pandas()
        pd.testing.assert_frame_equal(found, pd.read_parquet(exported / table), check_dtype=False)


def test_a_script_for_the_published_files_reads_ours(scored: Folder, exported: Path) -> None:
    """Written from the description of the published files alone; and importing them gives the same scores."""
    file = np.load(exported / "feldman_zhang.npz")
    mem, pairs = np.asarray(file["tr_mem"]), {}
    for label in np.unique(file["tr_labels"]):
        matrix = file[f"infl_matrix_class{label}"]
        for a, b in zip(*np.nonzero(matrix > 0.15), strict=True):
            pairs[int(file[f"tr_classidx_{label}"][a]), int(file[f"tt_classidx_{label}"][b])] = float(matrix[a, b])
    original = load_scores(str(scored))
    assert original.pairs is not None
    np.testing.assert_array_equal(mem, original.mem)
    columns = (original.pairs.train_index.tolist(), original.pairs.test_index.tolist())
    assert pairs.keys() == set(zip(*columns, strict=True))
    expected = dict(zip(zip(*columns, strict=True), original.pairs.influence, strict=True))
    assert all(value == pytest.approx(expected[pair], abs=1e-6) for pair, value in pairs.items())


def test_what_is_imported_again_is_equal(scored: Folder, exported: Path, dataset: Dataset, tmp_path: Path) -> None:
    """Export, import, and export of the import."""
    file, place = str(exported / "feldman_zhang.npz"), tmp_path / "imported"
    settings = settings_for(str(place), "--import_scores", file)
    imported_scores(Folder(place), dataset, settings, file)
    found, original = load_scores(place), load_scores(str(scored))
    np.testing.assert_array_equal(found.mem, original.mem)
    one, other = (  # equal influences may come in another order after they were rounded to float32
        {(i, j): value for i, j, value in zip(p.train_index, p.test_index, p.influence, strict=True)}
        for p in (found.pairs, original.pairs)
        if p is not None
    )
    assert one.keys() == other.keys()
    assert all(value == pytest.approx(one[pair], abs=1e-6) for pair, value in other.items())
    assert export(Folder(place), tmp_path / "again") == 0
    np.testing.assert_array_equal(load_scores(tmp_path / "again").mem, original.mem)
    card = (tmp_path / "again/README.md").read_text()
    assert "as published in a file of Feldman and Zhang's format" in card
    assert "Not known: there was no summary.json" in card


# -------------------------------------------------------------------------------------------------------- the card


def card_of(out: Path) -> tuple[dict[str, Any], str]:
    match = re.fullmatch(r"---\n(.*?)\n---\n(.*)", (out / "README.md").read_text(), flags=re.DOTALL)
    assert match
    return yaml.safe_load(match[1]), match[2]


def test_the_card_says_what_is_known(exported: Path, dataset: Dataset) -> None:
    head, text = card_of(exported)
    assert head["license"] == "cc-by-4.0"
    assert head["configs"] == [
        {"config_name": "scores", "data_files": "scores.parquet", "default": True},
        {"config_name": "influence", "data_files": "influence.parquet"},
    ]
    assert head["size_categories"] == ["n<1K"]
    assert {"memorization", "digits"} <= {*head["tags"]}
    for part in ("# Memorization of digits", "from 12 leave-out trials", "| trials | 12 |", dataset.fingerprint):
        assert part in text, part
    assert "| reliability of memorization |" in text
    assert "bat-dist memorize --dataset digits --num_train 100 --num_test 50 --num_trials 12 --arch net.py:Net" in text
    assert "| computed_on | cpu EPYC, threads 1 |" in text
    assert "| data | digits, 100 training and 50 test samples |" in text


def test_a_name_and_no_license(scored: Folder, tmp_path: Path) -> None:
    words = ["--name", "My | scores", "--authors", "A. Author", "--link", "https://arxiv.org/abs/2106.01234"]
    assert export(scored, tmp_path / "out", *words) == 0
    head, text = card_of(tmp_path / "out")
    assert "license" not in head
    assert head["pretty_name"] == "My | scores"
    for part in (r"# My \| scores", "By A. Author.", "More: <https://arxiv.org/abs/2106.01234>"):
        assert part in text, part


def test_nothing_of_this_machine_goes_with_it(scored: Folder, exported: Path) -> None:
    everything = b"".join(path.read_bytes() for path in exported.iterdir())
    for secret in (b"alice", b"hunter2", str(scored).encode(), str(Path.home()).encode() + b"/"):
        assert secret not in everything, secret
    about = json.loads((exported / "provenance.json").read_text())
    assert about["settings"]["arch"] == "net.py:Net"
    assert not {"data_dir", "out", "ray_address", "num_workers"} & about["settings"].keys()
    assert about["num_trials"] == 12
    assert {"bat_dist", "versions", "computed_on"} <= about["origin"].keys()


# ------------------------------------------------------------------------------------------- bad input, interruption


def test_an_earlier_export_is_replaced_and_nothing_else(
    scored: Folder, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (exported / "ensemble_scores.npz").write_bytes(b"of the first")
    assert export(scored, exported) == 0
    assert {path.name for path in exported.iterdir()} == ALL
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    assert export(scored, tmp_path / "mine") == 2
    assert "is not empty, and holds no earlier export" in capsys.readouterr().err
    assert main(["--scores", str(scored), "--out", str(scored)]) == 2
    assert "is the folder itself that is exported" in capsys.readouterr().err


def test_an_export_that_breaks_off_does_not_load(
    scored: Folder, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Folder, name: str, data: bytes) -> None:
        raise OSError("full")

    monkeypatch.setattr(Folder, "write", full)
    with pytest.raises(OSError, match="full"):
        export(scored, exported)
    monkeypatch.undo()
    assert not (exported / "memorization.npz").exists()
    assert export(scored, exported) == 0


def test_what_is_no_folder_of_scores(scored: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Folder(tmp_path / "copy")
    copy.create()

    def said() -> str:
        assert export(copy, tmp_path / "out") == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "has no memorization.npz: name a folder of bat-dist memorize" in said()
    copy.write("memorization.npz", scored.read("memorization.npz"))
    assert "has no scores.parquet" in said()
    copy.write("scores.parquet", b"PAR1")
    assert "scores.parquet cannot be read" in said()
    pd.DataFrame({"mem": np.zeros(NUM_TRAIN)}).to_parquet(tmp_path / "copy/scores.parquet")
    assert "has other scores than memorization.npz" in said()
    copy.write("scores.parquet", scored.read("scores.parquet"))
    copy.write_json("summary.json", {"fingerprint": "abc"})
    assert "summary.json is of other data" in said()
    copy.remove("summary.json")
    copy.write_npz("influence.npz", fingerprint=np.array("abc"))
    assert "influence.npz was computed on other data" in said()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give one of the two: checkpoint, of a network, or scores"),
        ("--checkpoint a --scores b", "give one of the two"),
        ("--scores b --onnx", "which, model and onnx are of networks"),
        ("--scores b --which last", "which, model and onnx are of networks"),
    ],
)
def test_bad_input(words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--out", str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err


def test_scores_go_to_the_hub_as_a_data_set(
    scored: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: dict[str, Any] = {}

    def create_repo(name: str, **how: Any) -> str:
        asked.update(how, name=name)
        return f"https://hub/datasets/{name}"

    api = SimpleNamespace(create_repo=create_repo, upload_folder=lambda **how: asked.update(upload=how))
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_of_a_test")
    assert export(scored, tmp_path / "out", "--push", "me/scores") == 0
    assert (asked["name"], asked["repo_type"], asked["private"]) == ("me/scores", "dataset", True)
    upload = asked["upload"]
    assert (upload["repo_id"], upload["repo_type"]) == ("me/scores", "dataset")
    assert ALL <= {*upload["allow_patterns"]} == {*upload["delete_patterns"]}
    assert "(load_scores('hf://datasets/me/scores') reads it)" in capsys.readouterr().out
