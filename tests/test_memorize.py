"""The program as people run it: entries, results on disk, bad input, interruption."""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bat_dist.api.scores import load_scores
from bat_dist.data.datasets import load_dataset
from bat_dist.jobs import influence
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence_blocks import influence_matrix
from bat_dist.memorization.influence_parts import parts_of
from bat_dist.memorization.stopping import StoppingRule, replay
from bat_dist.memorize import main
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import cpu_name
from bat_dist.storage.rows import RowStore
from bat_dist.train import main as train
from tests.helpers.options import last_ones
from tests.helpers.waiting import PATIENCE, until

ROOT = Path(__file__).parents[1]
SMALL = shlex.split(
    "--dataset digits --num_train 200 --num_test 100 --arch tinynet --epochs 2 --batch_size 32 --loader memory "
    "--precision fp32 --num_workers 1"
)


AUTO = ("--num_trials", "auto")


def run(out: Path | str, *options: str, small: bool = True) -> int:
    return main(last_ones([*(SMALL if small else ()), "--out", out, *options]))


# ---------------------------------------------------------------------------------------------------- entries


def entries(tmp_path: Path) -> dict[str, list[str]]:
    alone = tmp_path / "elsewhere" / "memorize.py"
    alone.parent.mkdir()
    shutil.copy(ROOT / "bat_dist" / "memorize.py", alone)
    return {
        "script": [sys.executable, str(ROOT / "bat_dist" / "memorize.py")],
        "module": [sys.executable, "-m", "bat_dist.memorize"],
        "command": [str(Path(sys.executable).parent / "bat-dist"), "memorize"],
        "copied alone": [sys.executable, str(alone)],
    }


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_all_entries_are_the_same_program_and_answer_at_once(tmp_path: Path) -> None:
    helps = {}
    for name, command in entries(tmp_path).items():
        seconds = []
        for _ in range(3):
            start = cpu_seconds_of_children()
            done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True)
            seconds.append(cpu_seconds_of_children() - start)
        helps[name] = done.stdout
        assert min(seconds) < 1.0, name  # whatever else the machine does
        wrong = subprocess.run([*command, "--epochz", "3"], capture_output=True, text=True, cwd=tmp_path)
        assert wrong.returncode == 2, name
        assert "did you mean --epochs?" in wrong.stderr, name
    assert len(set(helps.values())) == 1
    assert "--num_trials N" in helps["script"]


@pytest.mark.slow
def test_a_script_copied_alone_runs_from_another_folder(tmp_path: Path) -> None:
    command = entries(tmp_path)["copied alone"]
    out = tmp_path / "out"
    done = subprocess.run(
        [*command, *SMALL, "--num_trials", "2", "--out", str(out), "--ray_address", "local"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert f"page: {out}/index.html" in done.stdout


# ---------------------------------------------------------------------------------------------------- results


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert run(out, "--num_trials", "12") == 0
    return out


def test_score_files_hold_what_the_trials_say(finished: Path) -> None:
    """Recomputed from the store with the naive formulas; names and order are the dataset's."""
    dataset = load_dataset("digits", num_train=200, num_test=100)
    store = RowStore.existing(Folder(finished / "trials"))
    assert store is not None
    rows = np.arange(12)
    mask, train_correct, test_correct = (store.read(n, rows) for n in ("mask", "train_correct", "test_correct"))
    assert (mask.sum(axis=1) == 140).all()
    with np.load(finished / "memorization.npz") as scores:
        inside = np.array([train_correct[mask[:, i], i].mean() if mask[:, i].any() else np.nan for i in range(200)])
        outside = np.array(
            [train_correct[~mask[:, i], i].mean() if (~mask[:, i]).any() else np.nan for i in range(200)]
        )
        np.testing.assert_allclose(scores["mem"], inside - outside)
        np.testing.assert_array_equal(scores["n_in"], mask.sum(axis=0))
        np.testing.assert_array_equal(scores["n_out"], (~mask).sum(axis=0))
        np.testing.assert_allclose(scores["test_accuracy"], test_correct.mean(axis=1))
        np.testing.assert_allclose(
            scores["train_accuracy_in"], [c[m].mean() for c, m in zip(train_correct, mask, strict=True)]
        )
        np.testing.assert_array_equal(scores["train_labels"], dataset.train.labels)
        np.testing.assert_array_equal(scores["train_ids"], dataset.train.ids)
        np.testing.assert_array_equal(scores["test_ids"], dataset.test.ids)
        assert str(scores["fingerprint"]) == dataset.fingerprint
    with np.load(finished / "influence.npz") as pairs:
        matrix = influence_matrix(mask, test_correct)
        same = dataset.train.labels[:, None] == dataset.test.labels[None, :]
        expected = {tuple(pair) for pair in np.argwhere((matrix > 0.15) & same).tolist()}
        found = set(zip(pairs["train_index"].tolist(), pairs["test_index"].tolist(), strict=True))
        assert found == expected
        np.testing.assert_allclose(pairs["influence"], matrix[pairs["train_index"], pairs["test_index"]])


def test_the_table_has_a_line_for_each_sample_the_most_memorized_first(finished: Path) -> None:
    table = pd.read_csv(finished / "memorization.csv")
    dataset = load_dataset("digits", num_train=200, num_test=100)
    with np.load(finished / "memorization.npz") as scores:
        known = table["mem"].notna().to_numpy()
        assert (np.diff(table["mem"][known]) <= 0).all()
        assert not known[known.sum() :].any()
        by_sample = table.sort_values("sample")
        assert by_sample["sample"].tolist() == list(range(200))
        for name in ("mem", "mem_low", "mem_high", "n_in", "n_out"):
            np.testing.assert_allclose(by_sample[name], scores[name])
    assert by_sample["id"].astype(str).tolist() == dataset.train.ids.tolist()
    np.testing.assert_array_equal(by_sample["label"], dataset.train.labels)
    parquet = pd.read_parquet(finished / "scores.parquet")
    assert parquet.columns.tolist() == table.columns.tolist()
    np.testing.assert_array_equal(parquet["mem"], by_sample["mem"])
    # Where most networks that were not trained on a sample are right, they predict its class.
    sure = ((by_sample["accuracy_out"] > 0.5) & (by_sample["n_out"] > 0)).to_numpy()
    assert sure.any()
    assert by_sample["predicted_left_out"][sure].tolist() == by_sample["class"][sure].tolist()
    np.testing.assert_allclose(by_sample["predicted_share"][sure], by_sample["accuracy_out"][sure])


def test_all_promised_files_are_there(finished: Path) -> None:
    for name in (
        "feldman_zhang.npz",
        "typicality.npz",
        "summary.json",
        "index.html",
        "explorer.html",
        "scores.parquet",
    ):
        assert (finished / name).is_file(), name
    figures = {
        "memorization_histogram",
        "memorization_gallery",
        "extremes_gallery",
        "influence_pairs_gallery",
    }
    files = {path.name for path in (finished / "figures").iterdir()}
    assert {f"{figure}.{kind}" for figure in figures for kind in ("png", "svg")} <= files
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["num_trials"] == 12
    assert summary["sets"].keys() == {"train_typical", "train_atypical", "test_typical", "test_atypical"}
    assert summary["provenance"]["versions"]["ray"]
    assert summary["provenance"]["computed_on"] == [{"cpu": cpu_name(), "threads": 1}]
    assert f"cpu={cpu_name()}, threads=1" in (finished / "index.html").read_text()
    assert summary["settings"]["seed"] == 0


def test_status_says_what_is_there_and_runs_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(finished, "--status") == 0
    text = capsys.readouterr().out
    assert "12 of 12 trials complete" in text
    assert "arch=tinynet" in text
    reliability = json.loads((finished / "summary.json").read_text())["reliability"]
    assert f"reliability of memorization: {reliability:.2f} of 1 (halves of 12 trials" in text


def test_a_second_run_runs_nothing_and_more_trials_are_added(finished: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(finished, grown)
    digests = {p.name: p.stat().st_mtime_ns for p in (grown / "trials" / "digest").iterdir()}
    assert run(grown, "--num_trials", "12") == 0
    assert run(grown, "--num_trials", "16") == 0
    kept = {p.name: p.stat().st_mtime_ns for p in (grown / "trials" / "digest").iterdir()}
    assert len(kept) == 16 + 1
    assert {name: kept[name] for name in digests if name != "zarr.json"} == {
        name: time for name, time in digests.items() if name != "zarr.json"
    }
    fresh = tmp_path / "fresh"
    assert run(fresh, "--num_trials", "16") == 0
    assert_same_scores(grown, fresh)
    assert run(grown, "--num_trials", "3") == 0  # scores are not replaced by those of fewer trials
    assert_same_scores(grown, fresh)


def assert_same_scores(a: Path, b: Path) -> None:
    """Bit-equal rows (but for the time they took) and scores."""
    stores = [RowStore.existing(Folder(path / "trials")) for path in (a, b)]
    assert stores[0] is not None
    assert stores[1] is not None
    rows = np.arange(stores[0].num_rows)
    for store in (stores[0], stores[1]):
        assert store.status().complete.all()
    for name in ("mask", "train_correct", "test_correct"):
        np.testing.assert_array_equal(stores[0].read(name, rows), stores[1].read(name, rows))
    np.testing.assert_array_equal(stores[0].read("metrics", rows)[:, 0], stores[1].read("metrics", rows)[:, 0])
    for file in ("memorization.npz", "influence.npz", "typicality.npz"):
        with np.load(a / file) as one, np.load(b / file) as other:
            assert one.files == other.files
            for name in one.files:
                np.testing.assert_array_equal(one[name], other[name], err_msg=f"{file}: {name}")


def test_many_pairs_are_computed_in_parts_on_ray(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    monkeypatch.setattr(influence, "WORK_HERE", 0)
    monkeypatch.setattr(influence, "parts_of", partial(parts_of, part_work=12 * 60 * 30))  # three classes a part
    assert run(out, "--num_trials", "12", "--num_workers", "2") == 0
    for name in ("memorization.npz", "influence.npz", "typicality.npz", "feldman_zhang.npz"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    assert sorted(path.name for path in (out / "influence").iterdir()) == ["all.npz", "parts.json"]
    assert len(list((out / "logs").glob("parts-*.jsonl"))) == 4


def test_a_rule_ends_the_run_with_the_first_trials_that_are_enough(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after 10 trials, whose intervals are wider than asked for, but after the next look; then with a number."""
    copy, rows = tmp_path / "copy", np.arange(12)
    shutil.copytree(finished, copy)
    store = RowStore.existing(Folder(copy / "trials"))
    assert store is not None
    trials = store.read("mask", rows), store.read("train_correct", rows)
    target = f"{replay(*trials, StoppingRule('width', 0.01)).looks[0].median_width - 0.02:.4f}"
    rule = ("--stop_when", "width", "--precision_target", target, "--max_trials", "60")
    assert run(copy, *AUTO, *rule) == 0
    summary, said = json.loads((copy / "summary.json").read_text()), capsys.readouterr().out
    assert summary["enough"]["is_met"]
    assert [look["num_trials"] for look in summary["enough"]["looks"]] == [10, 20]
    assert "after 20 of at most 60 trials" in said
    assert "with probability 0.95 all intervals of a sample" in said
    assert (copy / "figures" / "undecided_by_trials.png").is_file()
    store = RowStore.existing(Folder(copy / "trials"))
    assert store is not None
    first = np.arange(20)
    with np.load(copy / "memorization.npz") as scores:
        np.testing.assert_array_equal(scores["trial"], first)
        expected = estimate_memorization(store.read("mask", first), store.read("train_correct", first))
        np.testing.assert_array_equal(scores["mem"], expected.mem)
        np.testing.assert_array_equal([scores["mem_shrunk"], scores["probability_atypical"]], expected.posterior(0.15))
        low, high = scores["anytime_low"], scores["anytime_high"]
        assert np.median(high - low) <= float(target)
        np.testing.assert_array_equal(scores["decided"], np.sign((low >= 0.15).astype(int) - (high <= 0.15)))
        np.testing.assert_array_equal(load_scores(copy).decided, scores["decided"])
        np.testing.assert_array_equal(load_scores(copy).shrunk, scores["mem_shrunk"])
    assert main(["--out", str(copy), "--status"]) == 0
    assert f"20 of at most 60 trials are enough for a median width of the intervals of at most {target}" in (
        capsys.readouterr().out
    )
    # The folder knows its rule, and a number takes its place.
    assert main(["--out", str(copy), "--num_trials", "22", "--num_workers", "1"]) == 0
    with np.load(copy / "memorization.npz") as scores:
        assert len(scores["trial"]) == 22
        assert "decided" not in scores.files
    assert not (copy / "sequential.json").exists()
    assert not (copy / "figures" / "undecided_by_trials.png").exists()
    assert run(copy, *AUTO, *rule) == 0  # needs no trial more, and takes none beyond those that were enough
    assert summary["enough"] == json.loads((copy / "summary.json").read_text())["enough"]
    with np.load(copy / "memorization.npz") as scores:
        np.testing.assert_array_equal(scores["trial"], first)
    assert main(["--out", str(copy), "--status"]) == 0
    assert "2 more are finished and not used" in capsys.readouterr().out


def test_the_balanced_plan_leaves_out_equally_often(tmp_path: Path, ray_cluster: None) -> None:
    assert run(tmp_path / "out", "--num_trials", "7", "--mask_plan", "balanced", "--epochs", "1") == 0
    with np.load(tmp_path / "out" / "memorization.npz") as scores:
        assert np.ptp(scores["n_out"]) <= 1


def test_a_damaged_trial_is_run_again(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    chunk = copy / "trials" / "train_correct" / "c.5.0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert run(copy, "--num_trials", "12") == 0
    assert_same_scores(finished, copy)


def test_a_foreign_trial_cannot_be_smuggled_in(finished: Path, tmp_path: Path, ray_cluster: None) -> None:
    other, copy = tmp_path / "other", tmp_path / "copy"
    assert run(other, "--num_trials", "12", "--seed", "1", "--epochs", "1") == 0
    shutil.copytree(finished, copy)
    for chunk in (other / "trials").glob("*/c.5*"):  # of every array: a row that is whole in itself
        shutil.copy(chunk, copy / "trials" / chunk.parent.name / chunk.name)
    assert run(copy, "--num_trials", "12") == 0
    assert_same_scores(finished, copy)


def test_results_on_another_file_system_are_the_same(
    finished: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bat_dist.storage.places._LOST", frozenset())  # this process is the driver, and stays
    location = f"memory://{uuid.uuid4().hex}/run"
    assert run(location, "--num_trials", "12") == 0
    folder = Folder(location)
    with np.load(finished / "memorization.npz") as here:
        there = folder.read_npz("memorization.npz")
        np.testing.assert_array_equal(here["mem"], there["mem"])
    assert folder.exists("figures/memorization_histogram.png")
    assert folder.exists("index.html")


def test_imported_scores_and_trials_do_not_replace_each_other(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.npz"
    shutil.copytree(finished, out)
    with np.load(finished / "feldman_zhang.npz") as arrays:
        np.savez(other, **{key: value[::-1] if key == "tr_mem" else value for key, value in arrays.items()})
    imported, others = ("--import_scores", str(finished / "feldman_zhang.npz")), ("--import_scores", str(other))

    def refused(place: Path, *options: str) -> str:
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"}
        assert run(place, *options) == 2
        assert {path: path.read_bytes() for path in before} == before
        return capsys.readouterr().err

    assert "holds trials, whose scores" in refused(out, *imported)
    assert run(out, *imported, "--fresh") == 0
    assert not (out / "trials").exists()
    assert run(out, *imported) == 0
    assert "holds other scores than" in refused(out, *others)
    assert "holds scores without trials, which were imported" in refused(out, "--num_trials", "12")


def test_feldman_zhang_files_come_back_as_scores(finished: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "out", "--import_scores", str(finished / "feldman_zhang.npz")) == 0
    with (
        np.load(finished / "memorization.npz") as ours,
        np.load(tmp_path / "out" / "memorization.npz") as imported,
    ):
        np.testing.assert_allclose(imported["mem"], ours["mem"])
        assert np.isnan(imported["mem_se"]).all()
    with np.load(finished / "influence.npz") as ours, np.load(tmp_path / "out" / "influence.npz") as imported:
        assert len(ours["influence"]) == len(imported["influence"])
        np.testing.assert_allclose(imported["influence"], ours["influence"], atol=1e-6)
    assert not (tmp_path / "out" / "trials").exists()


def test_cheaper_scores_and_their_agreement_with_memorization(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    assert run(copy, "--score", "disagreement", "--num_members", "3") == 0
    store = RowStore.existing(Folder(copy / "ensemble"))
    assert store is not None
    probabilities = store.read("train_probabilities", np.arange(3)).astype(np.float64)
    with np.load(copy / "ensemble_scores.npz") as scores:
        np.testing.assert_allclose(scores["confidence"], 1 - probabilities.max(axis=2).mean(axis=0), rtol=1e-5)
        assert (scores["disagreement"] >= 0).all()
        assert scores["disagreement"].max() > 0
    summary = json.loads((copy / "ensemble_summary.json").read_text())
    assert -1 <= summary["alignment"]["disagreement"]["spearman"] <= 1
    assert (copy / "ensemble_figures" / "alignment_scatter.png").is_file()
    (copy / "memorization.npz").unlink()  # scores alone, as for a first look at data
    assert run(copy, "--score", "disagreement", "--num_members", "3") == 0
    assert json.loads((copy / "ensemble_summary.json").read_text())["alignment"] == {}


# -------------------------------------------------------------------------------------------------- bad input


def test_a_cache_that_cannot_be_written_is_said_before_anything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BAT_DIST_CACHE", str(tmp_path / "file"))
    method = ("--method", "erm", "--num_val", "20")
    common = [word for word in SMALL if word not in ("--num_workers", "1")]
    for program, words in ((main, SMALL), (train, [*common, *method])):
        assert program(last_ones([*words, "--loader", "ffcv", "--out", str(tmp_path / "out")])) == 2
        assert f"the folder of the FFCV cache, {tmp_path}/file, cannot be written to" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "cifer10"], "did you mean 'cifar10'?"),
        (["--subset_ratio", "1.7"], "subset_ratio must be a number in (0, 1), got 1.7"),
        (["--num_trials", "0"], "num_trials must be a whole number >= 2 or auto, got 0"),
        ([*AUTO, "--precision_target", "1.5"], "precision_target must be in (0, 1) for undecided, got 1.5"),
        ([*AUTO, "--precision_target", "0"], "precision_target must be a number > 0 or none, got 0"),
        ([*AUTO, "--max_trials", "1"], "max_trials must be a whole number >= 2 or none, got 1"),
        ([*AUTO, "--stop_when", "undecidd"], "did you mean undecided?"),
        ([*AUTO, "--score", "confidence"], "num_trials auto is of leave-out trials"),
        (["--num_trials", "9", "--precision_target", "0.1"], "must be given with num_trials auto alone, got 9"),
        (["--arch", "resnet19"], "there is no architecture 'resnet19'; did you mean 'resnet18'?"),
        (["--precision", "fp16"], "precision must be one of auto, bf16, fp32, tf32, got fp16"),
        (["--crop_padding", "8"], "crop_padding must be less than the 8 pixels of an image, got 8"),
        (["--crop_padding", "1", "--crop_scale", "0.1"], "got crop_padding 1 too: leave one of them out"),
        (["--image_size", "4", "--arch", "resnet9-w8"], "arch resnet9-w8 does not fit images of 4x4"),
        (["--score", "confidence", "--image_size", "4", "--ensemble_archs", "resnet9-w8", "tinynet"], "does not fit"),
        (["--num_train", "123"], "num_train must be divisible by the 10 classes, got 123"),
        (["--num_train", "20", "--subset_ratio", "0.99"], "leaves nobody out"),
        (["--dataset", "image_folder", "--data_dir", "/nowhere.zip"], "/nowhere.zip"),
        (["--dataset", "image_folder"], "data_dir"),
        (["--gpus_per_trial", "1.5"], "gpus_per_trial must be a number in [0, 1] or none, got 1.5"),
        (["--gpus_per_trial", "1"], "no room for 1 worker with 1 CPU and 1 GPU: the cluster has 1 node"),
        (["--cpus_per_trial", "500"], "lower cpus_per_trial"),
        (["--import_scores", "/nowhere.npz"], "/nowhere.npz"),
        (["--out", "nonsense://x"], "cannot open nonsense://x"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--status"], "holds no trials: run bat-dist memorize"),
    ],
)
def test_bad_input_is_one_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert run(out, *options) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not out.exists()


def test_all_mistakes_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", "nothing", "--subset_ratio", "2", "--epoch", "3"]) == 2
    errors = capsys.readouterr().err
    for part in ("subset_ratio", "dataset", "--epoch", "out is required"):
        assert part in errors


def test_other_settings_or_data_are_refused_by_name(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(finished, "--num_trials", "12", "--epochs", "3") == 2
    assert "epochs: 2 in the store, 3 now" in capsys.readouterr().err
    assert run(finished, "--num_trials", "12", "--num_train", "210") == 2
    assert "data_fingerprint" in capsys.readouterr().err
    assert run(finished, "--num_trials", "12", "--flip") == 2
    assert "flip: absent in the store, true now" in capsys.readouterr().err
    assert run(finished, "--num_trials", "12", "--crop_padding", "0") == 2
    assert "crop_padding: absent in the store, 0 now" in capsys.readouterr().err
    assert run(finished, "--num_trials", "12", "--crop_scale", "0.5") == 2
    assert "crop_scale: absent in the store, 0.5 now" in capsys.readouterr().err
    assert run(finished, "--num_trials", "12", "--crop_padding", "1", "--no_flip") == 0  # which is what digits have


def test_a_result_folder_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file", "--num_trials", "2") == 2
    assert "is a file" in capsys.readouterr().err


def test_trials_that_diverge_are_reported_and_the_exit_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None
) -> None:
    assert run(tmp_path / "out", "--num_trials", "3", "--lr", "1e30", "--precision", "fp32") == 1
    errors = capsys.readouterr().err
    assert "NonFiniteLoss: loss nan in epoch" in errors
    assert "no trial is complete" in errors


def test_no_cluster_to_be_found_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bat_dist.memorize",
            *SMALL,
            "--out",
            str(tmp_path / "o"),
            "--ray_address",
            "auto",
        ],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"RAY_TMPDIR": str(tmp_path)},
        timeout=PATIENCE,
    )
    assert done.returncode == 2, done.stderr
    assert "no Ray cluster answers at 'auto'" in done.stderr
    assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------------------------------- kill -9


@pytest.mark.slow
def test_killed_at_three_moments_nothing_is_lost_or_counted_twice(tmp_path: Path, ray_cluster: None) -> None:
    """Once while it starts, and twice between trials; the store then holds what an undisturbed run's holds."""
    options, two = ["--num_trials", "60", "--epochs", "1"], ["--ray_address", "local", "--num_workers", "2"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run(undisturbed, *options) == 0
    command = [sys.executable, "-m", "bat_dist.memorize", *last_ones([*SMALL, *options, "--out", killed, *two])]
    rng = np.random.default_rng(int(os.environ.get("DRILL_SEED", "0")))
    done_before = 0
    for new_rows in (0, 1, 15):
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as driver:
            wait_for_rows(killed, done_before + new_rows, driver)
            time.sleep(rng.uniform(0, 0.1))  # between two rows, or while one is written
            assert driver.poll() is None, "it ended before it was killed"
            driver.kill()
        done_now = num_complete(killed)
        assert done_before + new_rows <= done_now < 60
        done_before = done_now
    assert run(killed, *options) == 0
    assert_same_scores(undisturbed, killed)


def num_complete(out: Path) -> int:
    store = RowStore.existing(Folder(out / "trials")) if out.exists() else None
    return 0 if store is None else int(store.status().complete.sum())


def wait_for_rows(out: Path, number: int, driver: subprocess.Popen) -> None:
    """Until the store has so many rows; a digest is written last, by renaming a whole file into its place."""

    def there() -> bool:
        assert driver.poll() is None, "it ended by itself"
        return len(list((out / "trials" / "digest").glob("c.*.0"))) >= number

    until(there, what=f"{number} rows", every=0.02)


def test_estimates_do_not_depend_on_the_order_of_arrival() -> None:
    rng = np.random.default_rng(0)
    mask, correct = rng.random((30, 50)) < 0.7, rng.random((30, 50)) < 0.8
    order = rng.permutation(30)
    np.testing.assert_array_equal(
        estimate_memorization(mask, correct).mem, estimate_memorization(mask[order], correct[order]).mem
    )
