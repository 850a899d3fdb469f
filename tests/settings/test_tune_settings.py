"""Every sweep that we ship can be begun, and what cannot be begun is told from its settings alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bat_dist.config import parse
from bat_dist.errors import ConfigError
from bat_dist.settings.tune import TuneSettings, find_config, scores_beside
from bat_dist.sweep.space import is_reference, point_name

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "tune_configs").glob("*.yaml"))
PAPER = [path for path in CONFIGS if path.stem not in ("smoke", "cifar10_3k-resnet9")]


def read(path: Path | str, *words: str) -> TuneSettings:
    return parse(TuneSettings, ["--config", str(path), "--out", "x", *words], prog="tune")[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    base = {"method": "bat", "dataset": "digits", "scores": "s.npz", "arch": "tinynet"}
    path.write_text(yaml.safe_dump({"base": base, "space": {"alpha": [0, 1], "beta": [0, 0.2]}}))
    return path


def test_the_papers_data_sets_and_architectures_are_there() -> None:
    names = {
        f"{data}-{arch}"
        for data in ("cifar10", "cifar100", "tiny_imagenet50")
        for arch in ("wrn28-10", "resnet18", "resnet32")
    }
    assert {path.stem for path in PAPER} == names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_can_be_begun_and_holds_pgd_at(path: Path) -> None:
    settings = read(path)
    assert sum(map(is_reference, settings.known_points)) == 1
    assert len({point_name(point) for point in settings.known_points}) == len(settings.known_points)
    assert len(settings.seeds) == 2
    for point in settings.known_points:
        run = settings.of_run(point, seed=1, out="y")
        assert (run.alpha, run.beta, run.seed, run.out) == (point["alpha"], point["beta"], 1, "y")


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_grid_is_that_of_figure_4_on_the_data_and_network_that_the_name_says(path: Path) -> None:
    settings = read(path)
    data, arch = path.stem.split("-", 1)
    points = {(point["alpha"], point["beta"]) for point in settings.known_points}
    assert points == {(alpha, beta) for alpha in (0, 1, 2, 3) for beta in (0, 0.1, 0.2, 0.3)}  # Sec. 5.2
    run = settings.example
    assert run.arch == arch
    assert (run.dataset, run.num_classes) == (("tiny_imagenet", 50) if data == "tiny_imagenet50" else (data, None))
    assert (run.training.epochs, run.num_steps) == (160, 10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base", "num_workers=2", "gpus_per_worker=0.5"], "gpus_per_worker must be 1 (or 0: CPUs) with num_workers"),
        (["--base", "alhpa=1"], "unknown setting alhpa (base or space); did you mean alpha?"),
        (["--base", "alpha=1"], "alpha is in base and in space"),
        (["--base", "epochs=0"], "epochs must be a whole number >= 1"),
        (["--base", "arch=resnet81x"], "did you mean 'resnet18'?"),
        (["--base", "dataset"], "base wants NAME=VALUE"),
        (["--base", "seed=3"], "seed cannot be in base: write seeds: [0, 1]"),
        (["--base", "out=z"], "out cannot be in base"),
        (["--base", "val_steps=0"], "needs val_steps of at least 1"),
        (["--base", "scores=null"], "method bat needs --scores"),
        (["--space", "beta=[0, -1]"], "beta must be a number >= 0"),
        (["--space", "bta=[0]"], "did you mean beta?"),
        (["--space", "beta=3"], "beta in space must be a list of values"),
        (["--space", "beta={uniform: [0, 1]}"], "search grid needs a list of values for beta"),
        (["--space", "awp_from={uniform: [1, 4]}"], "awp_from in space must be a whole number >= 1, and uniform"),
        (["--space", "flip={uniform: [0, 1]}"], "write a list of its values, flip: [...] or flip: {choice: [...]}"),
        (
            ["--search", "tpe", "--num_points", "3", "--space", "sigma={uniform: [0.1, 0.3]}"],
            "needs a list of values for sigma, such as sigma: [0.1, 0.2]",
        ),
        (["--space", "dataset=[digits]"], "all runs of a sweep share their data"),
        (["--space", "num_workers=[0, 2]"], "share their place on a machine"),
        (["--search", "tpe"], "num_points is needed"),
        (["--num_points", "3"], "num_points is for search random and tpe"),
        (["--metric", "val_clean_typcal"], "did you mean val_clean_typical?"),
        (["--seeds", "1", "1"], "seeds must differ"),
        (["--scheduler", "asha", "--metric", "val_clean", "val_pgd"], "stops by one metric"),
        (["--scheduler", "asha", "--space", "epochs=[3, 4]"], "epochs cannot be in space"),
        (["--test_attacks", "pdg20"], "pdg20"),
        (["--sedes", "1"], "did you mean --seeds?"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(file: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(file, *words)
    assert said in str(caught.value)


def test_all_mistakes_are_named_at_once(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(file, "--base", "alhpa=1", "epochs=0")
    assert len(caught.value.errors) == 2


def test_the_command_line_wins_over_the_file_key_by_key(file: Path) -> None:
    settings = read(file, "--base", "epochs=7", "lr=1e-2", "--space", "beta=[0.3]")
    assert (settings.base["dataset"], settings.example.epochs, settings.example.lr) == ("digits", 7, 0.01)
    assert settings.space == {"alpha": [0, 1], "beta": [0.3]}


def test_numbers_of_the_space_are_numbers(file: Path) -> None:
    """YAML takes 1e-4 for text."""
    settings = read(file, "--space", "weight_decay=[1e-4, 5e-4]")
    assert {point["weight_decay"] for point in settings.known_points} == {1e-4, 5e-4}


def test_a_random_search_has_pgd_at_beside_its_points(file: Path) -> None:
    settings = read(file, "--search", "random", "--num_points", "5", "--space", "beta={uniform: [0, 0.3]}")
    assert len(settings.known_points) == 6
    assert is_reference(settings.known_points[0])


@pytest.mark.parametrize("name", ["lr", "weight_decay", "awp", "clip_norm", "sigma", "atypical_share"])
def test_settings_with_decimals_can_be_drawn(file: Path, name: str) -> None:
    read(file, "--search", "random", "--num_points", "2", "--space", f"{name}={{uniform: [0.1, 0.2]}}")


def test_another_method_has_no_reference_of_bat(tmp_path: Path) -> None:
    path = tmp_path / "trades.yaml"
    base = {"method": "trades", "dataset": "digits", "arch": "tinynet"}
    path.write_text(yaml.safe_dump({"base": base, "space": {"beta": [1, 6]}}))
    assert read(path).known_points == [{"beta": 1}, {"beta": 6}]


def test_scores_lie_beside_the_file_that_names_them(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    argv = ["--config", str(file), "--out", "x"]
    settings, sources = parse(TuneSettings, argv, prog="tune")
    assert scores_beside(settings, sources).base["scores"] == "s.npz"  # nowhere: the message will name what was given
    (tmp_path / "s.npz").touch()
    assert scores_beside(settings, sources).base["scores"] == str(tmp_path / "s.npz")
    monkeypatch.chdir(tmp_path)
    assert scores_beside(settings, sources).base["scores"] == "s.npz"


def test_our_own_configs_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--config", "tune_configs/smoke.yaml", "--out", "tune_configs/x"]
    assert find_config(words) == ["--config", str(ROOT / "tune_configs/smoke.yaml"), "--out", "tune_configs/x"]
    assert find_config(["--config=tune_configs/smoke.yaml"]) == [f"--config={ROOT / 'tune_configs/smoke.yaml'}"]
    (tmp_path / "tune_configs").mkdir()
    (tmp_path / "tune_configs/smoke.yaml").touch()
    assert find_config(words) == words


def test_help_needs_neither_torch_nor_ray() -> None:
    code = "import sys; from bat_dist.tune import main; main(['--help'])\n"
    code += "print({'torch', 'ray', 'optuna'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
    assert "--space NAME=VALUE" in done.stdout
