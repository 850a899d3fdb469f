"""`bat-dist tune` as a user runs it: a real sweep on digits, with Ray, in a process of its own."""

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

from bat_dist.data.datasets import load_dataset
from bat_dist.reporting.sweep import PAGE
from bat_dist.tune import main
from bat_dist.workers.private_ray import START_SECONDS
from tests.helpers.options import last_ones
from tests.helpers.waiting import PATIENCE, until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NUM_TRAIN = 240
BASE = {
    **{
        "method": "bat",
        "dataset": "digits",
        "num_train": NUM_TRAIN,
        "num_test": 60,
        "arch": "tinynet",
        "loader": "memory",
    },
    **{"recipe": "fast", "epochs": 3, "batch_size": 32, "num_steps": 2, "precision": "fp32"},
}
SPACE = {"alpha": [0, 1], "beta": [0, 0.2]}


def command(out: Path, scores: Path, *words: str, base: dict | None = None, space: dict | None = None) -> list[str]:
    file = out.parent / f"{out.name}.yaml"
    space = SPACE if space is None else space
    merged = {
        name: value for name, value in {**BASE, "scores": str(scores), **(base or {})}.items() if name not in space
    }
    file.write_text(yaml.safe_dump({"base": merged, "space": space, "seeds": [0, 1]}))
    test = [] if "--test_attacks" in words else ["--test_attacks", "none"]
    bat_dist = str(Path(sys.executable).with_name("bat-dist"))
    return [bat_dist, "tune", "--config", str(file), *last_ones(["--out", out, *test, *words])]


def tune_here(out: Path, scores: Path, *words: str, code: int = 0, **how: Any) -> str:
    """In this process, on the Ray that is there and one run at a time: few processes need to start."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert main(command(out, scores, "--concurrency", "1", *words, **how)[2:]) == code, said.getvalue()
    return said.getvalue()


def tune(out: Path, scores: Path, *words: str, code: int = 0, **how: Any) -> str:
    """As a user does."""
    done = subprocess.run(command(out, scores, *words, **how), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows(out: Path) -> list[dict[str, str]]:
    """Of results.csv, without what a clock decides."""
    with (out / "results.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the digits that are trained on; a third of them atypical."""
    dataset = load_dataset("digits", num_train=NUM_TRAIN, num_test=60)
    path = tmp_path_factory.mktemp("scores") / "memorization.npz"
    mem = np.random.default_rng(0).uniform(0, 0.225, NUM_TRAIN)
    np.savez(path, mem=mem, fingerprint=np.array(dataset.fingerprint))
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, scores: Path) -> Path:
    """The undisturbed sweep."""
    out = tmp_path_factory.mktemp("swept") / "sweep"
    tune(out, scores, "--test_attacks", "clean", "pgd5")
    return out


def test_every_point_is_trained_with_every_seed_and_pgd_at_is_among_them(swept: Path) -> None:
    found = rows(swept)
    assert {(float(r["alpha"]), float(r["beta"]), int(r["seed"])) for r in found} == {
        (alpha, beta, seed) for alpha in (0, 1) for beta in (0, 0.2) for seed in (0, 1)
    }
    assert {(r["state"], r["epochs"]) for r in found} == {("done", "3")}
    table = pd.read_parquet(swept / "results.parquet")
    assert table.drop(columns="seconds").astype(str).replace({"None": ""}).to_dict("records") == pd.read_csv(
        swept / "results.csv", keep_default_na=False
    ).drop(columns="seconds").astype(str).to_dict("records")


def test_the_point_with_the_best_mean_on_the_validation_split_is_chosen(swept: Path) -> None:
    means: dict[str, float] = {}
    for row in rows(swept):
        means[row["point"]] = means.get(row["point"], 0) + float(row["best_val_pgd"]) / 2
    summary = json.loads((swept / "summary.json").read_text())
    assert summary["chosen"] == [max(means, key=lambda name: means[name])]
    assert summary["reference"] == "alpha=0,beta=0"
    points = {point["point"]: point for point in summary["points"]}
    assert {name: point["val_pgd"] for name, point in points.items()} == pytest.approx(means)


def test_a_run_of_a_sweep_is_a_run_of_train(swept: Path, tmp_path: Path) -> None:
    run = swept / "runs/alpha=1,beta=0.2/seed1"
    bat_dist = str(Path(sys.executable).with_name("bat-dist"))
    words = [bat_dist, "train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "alone")]
    subprocess.run(words, check=True, capture_output=True)
    alone, of_sweep = (load_file(place / "last.safetensors") for place in (tmp_path / "alone", run))
    for name, value in of_sweep.items():
        np.testing.assert_array_equal(alone[name], value, err_msg=name, strict=True)


def test_the_test_set_is_looked_at_for_the_chosen_point_and_pgd_at_alone(
    swept: Path, scores: Path, ray_cluster: None
) -> None:
    summary = json.loads((swept / "summary.json").read_text())
    judged = {"alpha=0,beta=0", *summary["chosen"]}
    assert {path.name for path in (swept / "test").iterdir()} == judged
    assert {(row["point"], row["attack"]) for row in summary["test"]} == {
        (p, a) for p in judged for a in ("clean", "pgd5")
    }
    written = {path: path.stat().st_mtime_ns for path in (swept / "test").rglob("evaluation.json")}
    said = tune_here(swept, scores, "--test_attacks", "clean", "pgd5")
    assert "looked at for these points alone" in said
    tune_here(swept, scores, "--test_attacks", "clean")  # fewer leave the others there
    assert {path: path.stat().st_mtime_ns for path in (swept / "test").rglob("evaluation.json")} == written


def test_the_page_fetches_nothing_and_holds_every_point(swept: Path) -> None:
    page = (swept / PAGE).read_text()
    assert len(page) < 10 * 2**20
    head = re.sub(r"(?s)<script>.*?</script>", "", page)
    assert "http://" not in head
    assert "https://" not in head
    assert "default-src &#39;none&#39;" in head or "default-src 'none'" in head
    for row in rows(swept):
        assert row["point"] in page
    for name in ("surfaces", "clean_against_robust"):
        assert (swept / f"figures/{name}.png").stat().st_size > 10_000
        assert (swept / f"figures/{name}.svg").exists()


def test_status_tells_without_running(swept: Path, scores: Path) -> None:
    said = tune_here(swept, scores, "--status")
    assert "8 runs: 8 done" in said
    assert "ended" in said


def test_killed_it_ends_as_if_undisturbed(swept: Path, tmp_path: Path, scores: Path, ray_cluster: None) -> None:
    out = tmp_path / "sweep"
    words = command(out, scores, "--seeds", "1")
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as driver:
        wait_for_runs(out, 1)
        os.kill(driver.pid, signal.SIGKILL)
    assert 1 <= num_done(out) < 4
    tune_here(out, scores, "--seeds", "1")
    assert rows(out) == [row for row in rows(swept) if row["seed"] == "1"]


def wait_for_runs(out: Path, least: int) -> None:
    until(lambda: num_done(out) >= least, what=f"{least} finished runs")


def num_done(out: Path) -> int:
    return sum('"finished": true' in path.read_text() for path in out.glob("runs/*/*/run.json"))


def test_runs_that_fail_do_not_stop_the_others(tmp_path: Path, scores: Path, ray_cluster: None) -> None:
    out, good = tmp_path / "sweep", "alpha=0,arch=tinynet,beta=0,lr=0.05"
    damaged = out / f"runs/{good}/seed0/state.safetensors"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no weights")
    # A network of a terabyte, a learning rate without end, and a state that cannot be read.
    how: dict[str, Any] = {
        "space": {"arch": ["tinynet", "wrn10-9000"], "lr": [0.05, 1e30]},
        "base": {"alpha": 0, "beta": 0},
    }
    said = tune_here(out, scores, "--seeds", "0", code=1, **how)
    found = {(r["arch"], r["lr"]): r for r in rows(out)}
    assert len(found) == 4
    assert found["tinynet", "0.05"]["state"] == "failed"
    assert "damaged" in found["tinynet", "0.05"]["reason"]
    assert found["tinynet", "1e+30"]["state"] == "diverged"
    out_of_memory = [row for (arch, _), row in found.items() if arch == "wrn10-9000"]
    assert {row["state"] for row in out_of_memory} == {"failed"}
    assert all("memory" in row["reason"] for row in out_of_memory)
    for row in found.values():
        assert row["reason"][:60] in said
    # What was wrong is mended, and the same command makes it good beside those that fail again.
    damaged.unlink()
    tune_here(out, scores, "--seeds", "0", code=1, **how)
    states = {(row["arch"], row["lr"]): row["state"] for row in rows(out)}
    assert states.pop(("tinynet", "0.05")) == "done"
    assert sorted(states.values()) == ["diverged", "failed", "failed"]


UNLUCKY = """
import os
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Unlucky:
    luck: str

    def loss(self, batch):
        if self.luck == "full":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")
        if self.luck == "died" and not (HERE / "died").exists():
            (HERE / "died").touch()
            os._exit(1)
        return torch.nn.functional.cross_entropy(batch.forward(batch.images), batch.labels)
"""


def test_a_run_whose_process_died_or_whose_gpu_was_full_is_tried_again_and_says_why(
    tmp_path: Path, ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    """By Tune's own word of the error, not a pretended one."""
    (tmp_path / "unlucky.py").write_text(UNLUCKY)
    base = ["dataset=digits", "num_train=100", "num_test=20", "arch=tinynet", "recipe=fast", "epochs=1"]
    base += ["loader=memory", "precision=fp32", f"method={tmp_path}/unlucky.py:Unlucky"]
    said = io.StringIO()
    out = tmp_path / "sweep"
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        space = ["--space", "hyper=[[luck=died],[luck=full]]", "--seeds", "0", "--test_attacks", "none"]
        assert main(["--base", *base, *space, "--concurrency", "1", "--out", str(out)]) == 1, said.getvalue()
    died, full = sorted(rows(out), key=lambda row: row["hyper"])
    assert died["state"] == "done"
    assert full["state"] == "failed"
    assert full["reason"].startswith("the GPU was full: end what else uses it, or lower the batch size")
    again = re.findall(r"hyper=luck=(\w+) seed 0 is tried again: (.*)", said.getvalue())
    assert sorted(luck for luck, _ in again) == ["died", "full", "full"]
    assert "its process died" in dict(again)["died"]
    assert "worker process has died" in dict(again)["died"]  # Ray's own words
    assert not [record for record in caplog.records if record.name.startswith("ray.tune")]


def test_points_and_seeds_can_be_added_and_other_sweeps_are_refused(
    tmp_path: Path, scores: Path, ray_cluster: None
) -> None:
    out = tmp_path / "sweep"
    tune_here(out, scores, "--seeds", "0", space={"alpha": [1], "beta": [0.2]})
    first = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/run.json")}
    assert len(first) == 2
    tune_here(out, scores, "--seeds", "0", "1", space={"alpha": [1, 2], "beta": [0.2]})
    assert len(rows(out)) == 6
    assert {path: path.stat().st_mtime_ns for path in first} == first
    said = tune_here(out, scores, code=2, base={"epochs": 4})
    assert "epochs: 3 in the store, 4 now" in said
    assert "use another --out" in said


def test_a_limit_of_time_ends_it_in_between_and_the_same_command_goes_on(
    tmp_path: Path, scores: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trackers, of which each run has its own, are told of each epoch once all the same."""
    from ray.tune.stopper import timeout
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, epochs = tmp_path / "sweep", 100
    how: dict[str, Any] = {"space": {"alpha": [1], "beta": [0.2]}, "base": {"epochs": epochs, "track": ["tensorboard"]}}
    said = tune_here(out, scores, "--max_hours", "1e-7", "--seeds", "0", code=1, **how)
    assert "no run has finished an epoch within 1e-07 hours (max_hours)" in said

    def later_once_it_has_begun() -> float:
        return time.time() + 7200 * any(out.glob("runs/*/*/history.csv"))

    with monkeypatch.context() as patch:
        patch.setattr(timeout, "time", SimpleNamespace(time=later_once_it_has_begun))
        tune_here(out, scores, "--max_hours", "1", "--seeds", "0", code=1, **how)
    first = {row["state"] for row in rows(out)}
    assert "unfinished" in first
    assert first <= {"done", "unfinished", "waiting"}
    assert not list(out.glob("test/*"))
    tune_here(out, scores, "--seeds", "0", **how)
    assert [(row["state"], row["epochs"]) for row in rows(out)] == 2 * [("done", str(epochs))]
    for place in out.glob("runs/*/*"):
        told = EventAccumulator(str(place / "tensorboard")).Reload().Scalars("val_pgd")
        history = pd.read_csv(place / "history.csv")
        assert [event.step for event in told] == history.epoch.tolist() == list(range(1, epochs + 1))
        np.testing.assert_allclose([event.value for event in told], history.val_pgd, rtol=1e-6)


def test_tpe_with_two_goals_proposes_points_and_more_later(tmp_path: Path, scores: Path, ray_cluster: None) -> None:
    out = tmp_path / "sweep"
    how = ["--search", "tpe", "--seeds", "0", "--metric", "val_clean", "val_pgd"]
    space = {"alpha": {"uniform": [0, 3]}, "beta": {"uniform": [0, 0.3]}}
    tune_here(out, scores, *how, "--num_points", "2", space=space)
    first = rows(out)
    assert len(first) == 3
    assert first[0]["point"] == "alpha=0,beta=0"
    tune_here(out, scores, *how, "--num_points", "4", space=space)
    assert rows(out)[:3] == first
    assert len({row["point"] for row in rows(out)}) == 5
    assert {row["state"] for row in rows(out)} == {"done"}
    found = {row["point"]: (float(row["best_val_clean"]), float(row["best_val_pgd"])) for row in rows(out)}
    chosen = json.loads((out / "summary.json").read_text())["chosen"]
    for point in chosen:
        assert not any(
            a >= found[point][0] and b >= found[point][1] and (a, b) != found[point] for a, b in found.values()
        )


def test_asha_stops_laggards_which_go_on_without_it(tmp_path: Path, scores: Path, ray_cluster: None) -> None:
    out = tmp_path / "sweep"
    base = {"epochs": 9, "beta": 0, "alpha": 0}
    space = {"lr": [0.1, 1e-6, 2e-6, 3e-6]}
    tune_here(out, scores, "--scheduler", "asha", "--asha_first", "1", "--asha_factor", "2", space=space, base=base)
    found = {(float(r["lr"]), r["seed"]): r for r in rows(out)}
    stopped = [row for row in found.values() if row["state"] == "stopped"]
    assert stopped
    assert all(6 <= int(row["epochs"]) < 9 for row in stopped)  # the rate is at half its peak after 5.6 of 9 epochs
    assert {row["state"] for (lr, _), row in found.items() if lr == 0.1} == {"done"}
    tune_here(out, scores, "--scheduler", "none", space=space, base=base)
    assert {row["state"] for row in rows(out)} == {"done"}


DDP = """
import sys
import time
import ray
from bat_dist.config import parse
from bat_dist.data.datasets import load_dataset
from bat_dist.jobs.tune import carry_out_sweep
from bat_dist.jobs.tune_plan import plan_sweep
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.workers.session import start_in_time

settings, _ = parse(TuneSettings, sys.argv[1:], prog="tune")
how = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
start_in_time(lambda: ray.init(address="local", num_cpus=2, **how))
sweep = plan_sweep(Folder(settings.out), load_dataset("digits", **settings.example.data), settings)
states = [outcome.state for outcome in carry_out_sweep(sweep)[1]]
from ray.util import placement_group_table
groups = [group["state"] for group in placement_group_table().values()]
import time
end = time.time() + 600
while ray.available_resources().get("CPU", 0) < 2 and time.time() < end:
    time.sleep(0.5)
print("FOUND", states, set(groups), ray.available_resources().get("CPU"))
"""


def test_data_parallel_runs_share_the_room_and_leave_nothing(tmp_path: Path, scores: Path) -> None:
    """One run of two workers fits at a time, which takes all of the machine; there are two."""
    out, script = tmp_path / "sweep", tmp_path / "job.py"
    script.write_text(DDP)
    space, base = {"alpha": [2], "beta": [0.2]}, {"num_workers": 2, "epochs": 2}
    words = command(out, scores, "--seeds", "0", space=space, base=base)[2:]
    env = {**os.environ, **START_SECONDS, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=PATIENCE, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert line == f"FOUND {['done'] * 2} {{'REMOVED'}} 2.0"
    for run in out.glob("runs/*/seed0"):
        assert json.loads((run / "run.json").read_text())["workers"] == [2]
        assert json.loads((run / "run.json").read_text())["finished"]
