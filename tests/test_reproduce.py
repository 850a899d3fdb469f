"""`bat-dist reproduce`: a small experiment from end to end, resumed, extended and refused."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bat_dist.config import parse
from bat_dist.errors import ConfigError
from bat_dist.reproduce import main
from bat_dist.settings.reproduce import PAPER_ROWS, ReproduceSettings, TableRun
from tests.helpers.waiting import PATIENCE, until

pytestmark = pytest.mark.slow
SMALL = ["--table", "1", "--scale", "small", "--num_train", "300", "--num_test", "100", "--ray_address", "local"]
QUICK = ["--memorize", "num_trials=12", "epochs=4", "--train", "epochs=2", "num_steps=2", "num_val=60"]
TWO = ["--methods", "pgd_at", "bat_alpha1_beta0.2", "--seeds", "0", "1", "--attacks", "clean", "pgd5"]


def settings_of(*words: str) -> ReproduceSettings:
    return parse(ReproduceSettings, ["--out", "x", *words], prog="bat-dist reproduce")[0]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed once on the way, by the hardest signal, then resumed to its end."""
    place = tmp_path_factory.mktemp("reproduce") / "out"
    command = [str(Path(sys.executable).with_name("bat-dist")), "reproduce", *SMALL, *QUICK, *TWO, "--out", str(place)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        until(
            lambda: list(place.glob("runs/*/*/run.json")) or driver.poll() is not None,
            what="training",
        )
        driver.send_signal(signal.SIGKILL)
    assert list(place.glob("runs/*/*/run.json"))
    assert not (place / "report").exists()
    trials = (place / "scores" / "memorization.npz").read_bytes()
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (place / "scores" / "memorization.npz").read_bytes() == trials  # not run again
    (place / "said.txt").write_text(done.stdout)
    return place


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_row_has_every_seed_and_a_place_in_the_table(experiment: Path) -> None:
    table = pd.read_csv(experiment / "report" / "tables.csv")
    whole = table[table.subset == "all"]
    assert sorted(whole.label.unique()) == ["BAT (α = 1, β = 0.2)", "PGD-AT"]
    assert set(whole.attack) == {"clean", "pgd5"}
    assert (whole.num_seeds == 2).all()
    assert "missing" not in (experiment / "said.txt").read_text()


def test_results_of_workers_name_the_command_that_was_typed(experiment: Path) -> None:
    for place in (*experiment.glob("runs/*/*/run.json"), *experiment.glob("evaluations/*/*/*/evaluation.json")):
        assert json.loads(place.read_text())["command"].startswith("bat-dist reproduce --table 1"), place


def test_a_number_of_the_table_is_that_of_the_flags(experiment: Path) -> None:
    table = pd.read_csv(experiment / "report" / "tables.csv")
    row = table[(table.method == "pgd_at") & (table.attack == "pgd5") & (table.subset == "all")].iloc[0]
    accuracies = []
    for seed in (0, 1):
        flags = np.load(experiment / TableRun("pgd_at", seed).evaluation("best") / "flags.npz")
        accuracies.append(flags["flags"][flags["attacks"].tolist().index("pgd5")].mean())
    assert row.accuracy == pytest.approx(np.mean(accuracies))
    assert row.sd_over_seeds == pytest.approx(np.std(accuracies, ddof=1))


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_that_of_train_and_evaluate(experiment: Path, tmp_path: Path) -> None:
    """The same settings by the two commands alone, with a worker's one thread: the same weights, the same flags."""
    from bat_dist.config import dump_yaml
    from bat_dist.evaluate import main as evaluate
    from bat_dist.train import main as train

    settings = settings_of(*SMALL, *QUICK, *TWO)
    run = TableRun("pgd_at", 1)
    (tmp_path / "train.yaml").write_text(dump_yaml(settings.training(run)))
    assert train(["--config", str(tmp_path / "train.yaml"), "--out", str(tmp_path / "run")]) == 0
    ours, theirs = (load_file(at / "best.safetensors") for at in (tmp_path / "run", experiment / run.training))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    (tmp_path / "evaluate.yaml").write_text(dump_yaml(settings.evaluation(run, "best")))
    words = ["--config", str(tmp_path / "evaluate.yaml"), "--checkpoint", str(tmp_path / "run")]
    assert evaluate([*words, "--out", str(tmp_path / "found"), "--ray_address", "local"]) == 0
    found, expected = (np.load(at / "flags.npz") for at in (tmp_path / "found", experiment / run.evaluation("best")))
    assert np.array_equal(found["flags"], expected["flags"])


def test_what_is_there_is_kept_and_more_is_added(experiment: Path, tmp_path: Path) -> None:
    experiment = Path(shutil.copytree(experiment, tmp_path / "more"))
    before = {path: path.stat().st_mtime_ns for path in experiment.glob("runs/*/*/best.safetensors")}
    assert len(before) == 4
    more = [*TWO[:-2], "clean", "pgd5", "fgsm", "--which", "best", "last"]
    more = [word if word != "1" else "2" for word in more]  # seeds 0 and 2
    assert main([*SMALL, *QUICK, *more, "--studies", "histogram", "theory", "--out", str(experiment)]) == 0
    found = json.loads((experiment / "study/studies/histogram/findings.json").read_text())
    assert found["about"]["note"] == "digits, 300 training samples, 12 trials"  # those of the experiment
    assert 'id="rows-claims"' in (experiment / "report" / "report.html").read_text()
    after = {path: path.stat().st_mtime_ns for path in experiment.glob("runs/*/*/best.safetensors")}
    assert len(after) == 6
    assert before.items() <= after.items()
    table = pd.read_csv(experiment / "report" / "tables.csv")
    assert set(table.which) == {"best", "last"}
    text = (experiment / "report" / "tables.md").read_text()
    assert "bat\\_alpha1\\_beta0.2, seed 1" not in text  # evaluated before, by other attacks: no hole in the plan
    assert "fgsm for seed 1" in text


def test_another_experiment_is_refused(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, *QUICK[:-1], "num_val=50", *TWO, "--out", str(experiment)]
    assert main(words) == 2
    assert "num_val" in capsys.readouterr().err


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, "--train", "epochs=1", "num_steps=2", "num_val=60", "--methods", "erm", "pgd_at", "--seeds", "0"]
    (tmp_path / "runs" / "pgd_at").mkdir(parents=True)
    (tmp_path / "runs" / "pgd_at" / "seed0").write_text("a file where a folder must be")
    assert main([*words, "--attacks", "clean", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "failed: pgd_at seed 0 train:" in said
    assert "pgd_at, seed 0: not trained" in said
    assert "ERM" in said


def test_the_papers_settings_are_those_of_the_paper() -> None:
    settings = settings_of("--table", "1", "--data_dir", "data")
    assert (settings.data_name, settings.network, settings.methods) == ("cifar100", "wrn28-10", PAPER_ROWS)
    assert settings.all_attacks == ("clean", "fgsm", "pgd100", "cw", "autoattack")
    run = settings.training(TableRun("bat_alpha2_beta0.2", 1))
    assert (run.method, run.alpha, run.beta, run.seed, run.training.epochs) == ("bat", 2.0, 0.2, 1, 160)
    assert settings.training(TableRun("mart", 0)).beta == 6.0
    assert settings_of("--table", "5").training(TableRun("mart", 0)).beta is None  # its default, 5
    assert settings.memorize_settings.num_trials == 1000
    assert len(list(settings.runs())) == 18
    assert settings_of("--table", "5").network == "resnet32"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--table", "7"], "table must be one of 1, 2, 3, 4, 5, 6"),
        (["--table", "1", "--methods", "pdg_at"], "did you mean pgd_at?"),
        (["--table", "1", "--train", "epoks=3"], "unknown setting epoks (train); did you mean epochs?"),
        (["--table", "1", "--train", "epochs=0"], "epochs must be a whole number >= 1"),
        (["--table", "1", "--train", "seed=3"], "train seed: it is given to the experiment"),
        (["--table", "1", "--memorize", "dataset=digits"], "memorize dataset: it is given to the experiment"),
        (["--table", "1", "--seeds", "1", "1"], "seeds must differ"),
        (["--table", "1", "--attacks", "cleam"], "did you mean clean?"),
    ],
)
def test_bad_settings_are_told_before_anything_begins(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings_of(*words)
    assert said in str(error.value)


def test_the_plan_is_on_disk(experiment: Path) -> None:
    plan = json.loads((experiment / "experiment.json").read_text())
    assert plan["table"] == 1
    assert {(run["label"], run["seed"]) for run in plan["runs"]} >= {("pgd_at", 0), ("bat_alpha1_beta0.2", 1)}
