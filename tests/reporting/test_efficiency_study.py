"""The study `efficiency`, from folders of trials to figures; it needs no data."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.artifacts.scores import MEMORIZATION, TRIALS
from bat_dist.config import from_dict
from bat_dist.errors import UserError
from bat_dist.jobs.all_studies import Studies
from bat_dist.reporting.studies.efficiency import AGREEMENT, NEEDED, STOPPED, draw_efficiency
from bat_dist.results.findings_file import read_findings
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import Field, RowStore

NUM = 30


def write_trials(place: Path, num_trials: int = 100, *, seed: int = 0, keep: bool = False, **identity: Any) -> str:
    """A folder of trials in which a third of the samples must be memorized."""
    rng = np.random.default_rng(seed)
    mask = rng.random((num_trials, NUM)) < 0.7
    probability = np.where(mask | (np.arange(NUM) % 3 > 0), 0.9, 0.3)
    rows: dict[str, np.ndarray] = {"mask": mask, "train_correct": rng.random(mask.shape) < probability}
    if keep:
        rows["train_probability"] = probability.astype(np.float16)
    folder = Folder(str(place))
    labels, numbers = np.arange(NUM) % 3, np.arange(num_trials)
    folder.write_npz(MEMORIZATION, mem=np.zeros(NUM), train_labels=labels, trial=numbers)
    store = RowStore.open(
        folder / TRIALS,
        fields={name: Field(str(values.dtype), values.shape[1:]) for name, values in rows.items()},
        identity={"seed": seed, "mask_plan": "uniform", "arch": "tinynet", **identity},
        num_rows=num_trials,
    )
    for number in range(num_trials):
        store.write(number, {name: values[number] for name, values in rows.items()})
    return str(place)


def study(scores: str, out: Path, **more: Any) -> list[str]:
    given = {"study": ("efficiency",), "scores": scores, "out": str(out), "repetitions": 2, **more}
    settings = from_dict(StudySettings, given, "study")
    assert not settings.needs_data
    return list(Studies(settings).lines())


def test_a_store_alone_is_enough(tmp_path: Path) -> None:
    lines = study(write_trials(tmp_path / "scores", keep=True), tmp_path / "out")
    assert lines[0] == (
        "efficiency: 30 training samples, 100 trials, 2 repetitions; "
        "reference: the half of the trials that no estimate has"
    )
    folder = Folder(str(tmp_path / "out/studies/efficiency"))
    assert {*folder.names("*.png")} == {"efficiency.png", "efficiency_trials_needed.png", "efficiency_stopping.png"}
    table = folder.read(AGREEMENT).decode().splitlines()
    assert table[0] == "repetition,estimator,num_trials,spearman,jaccard,equal,rmse"
    assert len(table) == 1 + 2 * 2 * 7
    findings = read_findings(folder).findings
    assert [one.claim for one in findings] == [
        *["fewer_trials_ranking"] * 5,
        *["fewer_trials_atypical"] * 5,
        *["stops_early", "stopped_agrees"],
    ]
    assert all(0 < one.estimate <= 1 for one in findings[:10])
    assert np.isnan(findings[10].estimate)  # 50 trials are too few to decide most
    assert len(folder.read(STOPPED).decode().splitlines()) == 1 + 2 * 3
    shutil.rmtree(tmp_path / "scores")
    assert {*draw_efficiency(folder, {"note": ""})} == {
        *("efficiency", "efficiency_trials_needed", "efficiency_stopping")
    }
    assert folder.exists(NEEDED)


def test_a_store_without_probabilities_says_so(tmp_path: Path) -> None:
    """By its file too; trials with other seeds judge, and balanced ones are compared."""
    scores = write_trials(tmp_path / "scores", 60)
    others = {
        "reference": write_trials(tmp_path / "reference", 70, seed=1),
        "balanced": write_trials(tmp_path / "balanced", 30, mask_plan="balanced"),
    }
    lines = study(f"{scores}/{MEMORIZATION}", tmp_path / "out", **others)
    assert lines[0].endswith("reference: trials of another folder; no probabilities, which were not kept")
    table = (tmp_path / "out/studies/efficiency" / AGREEMENT).read_text()
    assert "probability" not in table
    assert "balanced,30" in table


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    scores, out = write_trials(tmp_path / "scores"), tmp_path / "out"
    small, other, bare = (tmp_path / name for name in ("small", "other", "bare"))
    with pytest.raises(UserError, match="has 40 trials: the study needs at least 100"):
        study(write_trials(small, 40), out)
    with pytest.raises(UserError, match="100 of the trials of"):
        study(scores, out, reference=scores)
    with pytest.raises(UserError, match=r"other settings or data.*arch"):
        study(scores, out, reference=write_trials(other, arch="resnet9", seed=1))
    with pytest.raises(UserError, match="with --mask_plan uniform"):
        study(scores, out, balanced=write_trials(tmp_path / "uniform", seed=2))
    Folder(str(bare)).write_npz(MEMORIZATION, mem=np.zeros(NUM))
    with pytest.raises(UserError, match="holds scores without trials"):
        study(str(bare), out)
