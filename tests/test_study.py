"""`bat-dist study` as its users call it: shared runs, resumed, redrawn, refused, removed."""

import json
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from bat_dist.artifacts.scores import SampleNames
from bat_dist.data.datasets import load_dataset
from bat_dist.reporting.studies.report import redraw
from bat_dist.results.find import find_results
from bat_dist.results.study_file import read_studies
from bat_dist.storage.files import Folder
from bat_dist.study import main
from tests.helpers.waiting import until

DATA = ["--scale", "small", "--num_train", "200", "--num_test", "100", "--ray_address", "local", "--seeds", "0", "1"]
QUICK = [
    *shlex.split("--memorize num_trials=60 epochs=15 --train epochs=3 num_val=20 num_steps=1"),
    *("--watch_steps", "2"),
]
SHARES = ["--shares", "0", "100"]
NUM_RUNS = 2 * 2 * (1 + 2 + 2)  # seeds, methods; the whole set, the shares and the controls


def call(*words: object) -> int:
    return main([*map(str, words)])


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies")
    assert call("atypical", "typical", *DATA, *QUICK, *SHARES, "--out", out) == 0
    return out


def weights(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): load_file(path) for path in sorted(folder.rglob("last.safetensors"))}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[run][name]) for run in one for name, value in one[run].items()
    )


@pytest.mark.slow
def test_each_run_is_trained_once_and_on_the_samples_that_its_name_says(studies: Path) -> None:
    runs = read_studies(Folder(str(studies))).runs
    assert len(runs) == len(set(runs)) == NUM_RUNS
    sets = np.load(studies / "scores/typicality.npz")
    typical, atypical = sets["train_typical"], sets["train_atypical"]
    taken = {
        name: np.load(studies / f"subsets/{name}_seed1.npz")["indices"]
        for name in {run.subset for run in runs} - {"whole"}
    }
    assert taken["atypical0"].tolist() == np.flatnonzero(typical).tolist()
    assert taken["atypical100"].tolist() == np.flatnonzero(typical | atypical).tolist()
    for control in ("random_removed", "typical_removed"):
        assert len(taken[control]) == typical.sum()
        assert (typical | atypical)[taken[control]].all()
    mem = np.load(studies / "scores/memorization.npz")["mem"]
    out = np.setdiff1d(np.flatnonzero(typical | atypical), taken["typical_removed"])
    assert mem[out].max() <= mem[taken["typical_removed"]].min()
    facts = json.loads((studies / "runs/erm/atypical0/seed1/run.json").read_text())["identity"]
    assert facts["num_train"] < typical.sum()  # without the validation split


@pytest.mark.slow
def test_the_last_accuracies_are_those_of_the_last_networks(studies: Path) -> None:
    """The history counts while it trains; the outputs are of the saved network, in another pass."""
    dataset, members = load_dataset("digits", num_train=200, num_test=100), np.load(studies / "scores/typicality.npz")
    for place in ("pgd_at/whole/seed0", "erm/atypical100/seed1"):
        row = pd.read_csv(studies / "runs" / place / "history.csv").iloc[-1]
        outputs = np.load(studies / "runs" / place / "outputs.npz")
        right = outputs["test_clean"].argmax(1) == dataset.test.labels
        for kind in ("typical", "atypical"):
            assert row[f"clean_test_{kind}"] == pytest.approx(right[members[f"test_{kind}"]].mean())


@pytest.mark.slow
def test_findings_follow_from_histories(studies: Path) -> None:
    found = {
        one["claim"]: one for one in json.loads((studies / "studies/atypical/findings.json").read_text())["findings"]
    }
    last = [
        pd.read_csv(studies / f"runs/pgd_at/whole/seed{seed}/history.csv")["clean_train_atypical"].iloc[-1]
        for seed in (0, 1)
    ]
    assert found["at_fits_clean"]["estimate"] == pytest.approx(np.mean(last))
    table = pd.read_csv(studies / "studies/typical/curves.csv")
    end = (
        table[(table.epoch == 3) & (table.kind == "clean") & (table.method == "erm")]
        .groupby("training_set")
        .accuracy.mean()
    )
    drop = {
        one["claim"]: one for one in json.loads((studies / "studies/typical/findings.json").read_text())["findings"]
    }
    assert drop["erm_does_not_drop"]["estimate"] == pytest.approx(end["atypical0"] - end["atypical100"])


@pytest.mark.slow
def test_figures_are_drawn_again_from_the_data_alone(studies: Path, tmp_path: Path) -> None:
    for name in ("atypical", "typical"):
        folder = studies / "studies" / name
        drawn = {path.name: path.read_bytes() for path in folder.glob("*.png")}
        assert drawn
        copy = Folder(str(tmp_path / name))
        copy.create()
        for path in [*folder.glob("*.csv"), *folder.glob("*.json"), *folder.glob("*.npz")]:
            copy.write(path.name, path.read_bytes())
        redraw(name, copy)
        assert {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} == drawn


@pytest.mark.slow
def test_another_call_trains_nothing_and_status_says_so(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in studies.rglob("*.safetensors")}
    assert call("--out", studies) == 0
    assert {path: path.stat().st_mtime_ns for path in studies.rglob("*.safetensors")} == before
    capsys.readouterr()
    assert call("--status", "--out", studies) == 0
    said = capsys.readouterr().out
    assert f"trainings: {NUM_RUNS} of {NUM_RUNS} done" in said
    assert not find_results([str(studies)]).unfinished  # its trials are a finished run of memorize
    assert "atypical, typical: complete" in said


@pytest.mark.slow
def test_other_settings_are_refused(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["atypical", "theory", *DATA, *QUICK, *SHARES, "--out", str(studies)]
    assert main([word.replace("epochs=3", "epochs=4") for word in words]) == 2
    assert "epochs: 3 in the store, 4 now" in capsys.readouterr().err
    assert call("--out", studies) == 0  # nothing of what was refused is taken up
    assert read_studies(Folder(str(studies))).studies == ("atypical", "typical")


@pytest.mark.slow
def test_killed_it_ends_as_if_undisturbed(studies: Path, tmp_path: Path) -> None:
    asked = ["typical", *DATA[:-1], *QUICK, *SHARES, "--no_controls", "--out", str(tmp_path)]  # the first seed alone
    with subprocess.Popen(
        [sys.executable, "-m", "bat_dist.study", *asked], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until(lambda: list(tmp_path.glob("runs/*/*/*/outputs.npz")), what="a trained run")
        process.send_signal(signal.SIGKILL)
    assert call(*asked) == 0
    ended = sorted(tmp_path.glob("runs/*/*/seed0"))
    assert len(ended) == 2 * 2
    for run in ended:
        before = studies / run.relative_to(tmp_path)
        assert same(weights(run), weights(before))
        one, other = (np.load(place / "outputs.npz") for place in (run, before))
        assert all(np.array_equal(one[name], other[name]) for name in (*one, *other))
    assert (tmp_path / "studies/typical/findings.json").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["atypicals"], "study must be"),
        ([], "study is required"),
        (["typical", "--shares", "0", "0"], "shares must differ"),
        (["typical", "--shares", "0", "120"], r"each a number in \[0, 100\], got 0 120"),
        (["typical", "--train", "seed=3"], "train seed: it is given to the studies, not to their parts"),
        (["typical", "--train", "epoch=3"], "epochs"),
        (["typical", "--train", "num_workers=2"], "train num_workers: it is given to the studies"),
        (["typical", "--memorize", "score=confidence"], "memorize score: it is given to the studies"),
    ],
)
def test_words_that_are_no_study(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(*words, "--scale", "small", "--out", tmp_path / "out") == 2
    assert re.search(problem, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_scores_without_atypical_samples_are_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load_dataset("digits", num_train=200, num_test=100)
    names, fingerprint = SampleNames.of(dataset), np.array(dataset.fingerprint)
    (tmp_path / "scores").mkdir()
    Folder(str(tmp_path)).write_npz("scores/memorization.npz", mem=np.zeros(200), **asdict(names))
    members = {"train_typical": np.ones(200, bool), "train_atypical": np.zeros(200, bool)}
    members |= {"test_typical": np.ones(100, bool), "test_atypical": np.zeros(100, bool)}
    Folder(str(tmp_path)).write_npz("scores/typicality.npz", **members, fingerprint=fingerprint)
    words = ["typical", *DATA, "--scores", tmp_path / "scores/memorization.npz", "--out", tmp_path / "out"]
    assert call(*words) == 2
    assert "there is no atypical sample in the training set" in capsys.readouterr().err
    assert not (tmp_path / "out/runs").exists()
    other = [word if word != "100" else "90" for word in map(str, words)]
    assert call(*other) == 2
    assert "of these data, or of another order of them" in capsys.readouterr().err
