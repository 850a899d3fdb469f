"""Whatever changes between two calls with one folder: the second refuses, or ends with what a fresh folder would hold.

docs/identity.md says of every setting which; this module holds it to that.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

from bat_dist.config import parse, to_dict
from bat_dist.data.datasets import load_dataset
from bat_dist.evaluate import main as evaluate
from bat_dist.jobs import experiment_record
from bat_dist.jobs import tune_plan as sweep
from bat_dist.memorize import main as memorize
from bat_dist.results.experiment_file import ExperimentFile
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.reproduce import _GIVEN, ReproduceSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import NOT_OF_A_POINT, TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.train import main as train
from tests.helpers.options import last_ones

PAGE = Path(__file__).parents[1] / "docs" / "identity.md"
REFUSED, COMPUTED, ADDED, NO_PART = "refused", "computed again", "added to", "no part"
RECORDED = "recorded"
DATA = ["--dataset", "digits", "--num_train", "100", "--num_test", "40", "--loader", "memory"]
FAST = ["--recipe", "fast", "--epochs", "1", "--batch_size", "20", "--precision", "fp32", "--arch", "tinynet"]
QUICK = ["--num_steps", "1", "--num_val", "20"]
ATTACKS = ["--attacks", "clean", "pgd2", "--check_images", "4"]
MADE_BY = {
    "memorize": (memorize, MemorizeSettings),
    "train": (train, TrainSettings),
    "evaluate": (evaluate, EvaluateSettings),
}
FILES = {
    "memorize": ("memorization.npz", "influence.npz", "influence_top.npz", "typicality.npz", "ensemble_scores.npz"),
    "train": ("last.safetensors", "best.safetensors"),
    "evaluate": ("flags.npz",),
}
DATA_CHANGED = {
    "dataset": "--dataset image_folder --data_dir {images} --image_size 8",
    "num_train": "--num_train 90",
    "num_test": "--num_test 30",
    "num_classes": "--num_classes 5",
    "image_size": "--image_size 9 --dataset image_folder --data_dir {images}",
    "data_dir": "--data_dir {images} --dataset image_folder",
    "test_share": "--test_share 0.2 --num_train 80 --num_test 20 --dataset image_folder --data_dir {images_of_one}",
    "download": "--download",
    "image_storage": "--image_storage disk",
    "loader": "--loader ffcv",
}
FIRST = {
    "memorize": [*DATA, *FAST, "--num_trials", "4", "--num_workers", "1"],
    "train": [*DATA, *FAST, *QUICK, "--method", "bat", "--scores", "{scores}"],
    "evaluate": [*DATA, *ATTACKS, "--checkpoint", "{network}"],
}
# Where a setting would be refused for another reason, or would say nothing, beside those.
_PLAIN = [*DATA, *FAST, *QUICK, "--method", "pgd_at"]
_ENSEMBLE = [*FIRST["memorize"], "--score", "disagreement", "--num_members", "2", "--ensemble_archs", "tinynet"]
_OWN = [*DATA, *ATTACKS, "--model", "{model}", "--checkpoint", "{weights}"]
OTHER_FIRST = {
    **{("train", name): _PLAIN for name in DATA_CHANGED},
    ("train", "fold_batch_norm"): [*FIRST["train"], "--no_fold_batch_norm"],
    **{("memorize", name): _ENSEMBLE for name in ("num_members", "ensemble_archs")},
    **{("evaluate", name): _OWN for name in ("model", "mean", "std", "weights_key")},
}
RAY_CHANGED = {
    "ray_address": "--ray_address local",
    "min_nodes": "--min_nodes 1",
    "wait_minutes": "--wait_minutes 3",
}
WORKERS_CHANGED = {
    "num_workers": "--num_workers 2",
    "gpus_per_worker": "--gpus_per_worker 0",
    "cpus_per_worker": "--cpus_per_worker 2",
}
RECIPE_CHANGED = {
    "arch": "--arch resnet9-w4",
    "recipe": "--recipe paper",
    "epochs": "--epochs 2",
    "batch_size": "--batch_size 25",
    "lr": "--lr 0.01",
    "optimizer": "--optimizer adamw",
    "schedule": "--schedule cosine",
    "warmup_epochs": "--warmup_epochs 0.5 --schedule cosine",  # one_cycle takes none
    "crop_padding": "--crop_padding 2",
    "flip": "--flip",
    "crop_scale": "--crop_scale 0.5",
    "crop_size": "--crop_size 6 --crop_scale 0.5",
    "precision": "--precision bf16",
    "seed": "--seed 1",
}
# For each setting another value than the finished folder has.
CHANGED = {
    "memorize": {
        **{**DATA_CHANGED, **RAY_CHANGED, **RECIPE_CHANGED},
        "num_workers": "--num_workers 2",
        "gpus_per_trial": "--gpus_per_trial 0",
        "cpus_per_trial": "--cpus_per_trial 2",
        "score": "--score disagreement --num_members 2 --ensemble_archs tinynet",
        "num_trials": "--num_trials 5",
        "stop_when": "--num_trials auto --max_trials 5 --stop_when width",
        "precision_target": "--num_trials auto --max_trials 5 --precision_target 0.1",
        "max_trials": "--num_trials auto --max_trials 5",
        "subset_ratio": "--subset_ratio 0.6",
        "mask_plan": "--mask_plan balanced",
        "num_members": "--num_members 3",
        "ensemble_archs": "--ensemble_archs resnet9-w4",
        "import_scores": "--import_scores {feldman_zhang}",
        "keep": "--keep probability",
        "influence_threshold": "--influence_threshold 0.4",
        "influence_pairs": "--influence_pairs all",
        "influence_top": "--influence_top 2",
        "scores_memory": "--scores_memory 500MB",
        "typicality": "--typicality paper",
        "typicality_level": "--typicality_level 0.4",
    },
    "train": {
        **{**DATA_CHANGED, **RAY_CHANGED, **WORKERS_CHANGED, **RECIPE_CHANGED},
        "method": "--method pgd_at",
        "scores": "--scores {other_scores}",
        "score": "--score confidence",
        "alpha": "--alpha 2",
        "beta": "--beta 0.1",
        "sigma": "--sigma 0.3",
        "atypical_share": "--atypical_share 0.1",
        "undefined": "--undefined typical",
        "hyper": "--hyper tau=0.5",
        "epsilon": "--epsilon 8/255",
        "step_size": "--step_size 1/255",
        "num_steps": "--num_steps 2",
        "random_start": "--no_random_start",
        "attack_mode": "--attack_mode keep",
        "fold_batch_norm": "--fold_batch_norm",
        "attack_precision": "--attack_precision bf16",
        "weight_decay": "--weight_decay 0.1",
        "ema": "--ema 0.9",
        "awp": "--awp 0.005",
        "awp_from": "--awp_from 2",
        "clip_norm": "--clip_norm 1",
        "num_val": "--num_val 30",
        "val_seed": "--val_seed 1",
        "val_steps": "--val_steps 2",
        "watch": "--watch {sets}",
        "watch_steps": "--watch {sets} --watch_steps 3",
        "watch_every": "--watch {sets} --watch_every 2",
        "train_subset": "--train_subset {subset}",
        "best_by": "--best_by val_clean",
        "track": "--track tensorboard",
        "sync_bn": "--sync_bn",
        "max_failures": "--max_failures 1",
    },
    "evaluate": {
        **{**DATA_CHANGED, **RAY_CHANGED, **WORKERS_CHANGED},
        "checkpoint": "--checkpoint {other_network}",
        "which": "--which last",
        "model": "--model {other_model}",
        "mean": "--mean 0.5 0.5 0.5 --std 1 1 1",
        "std": "--std 0.5 0.5 0.5 --mean 0 0 0",
        "weights_key": "--weights_key ema",
        "allow_pickle": "--allow_pickle",
        "attacks": "--attacks clean pgd3",
        "epsilon": "--epsilon 8/255",
        "step_size": "--step_size 1/255",
        "restarts": "--restarts 2",
        "seeds": "--seeds 0 1",
        "check_images": "--check_images 5",
        "split": "--split validation",
        "first": "--first 20",
        "scores": "--scores {typicality}",
        "keep_adversarial": "--keep_adversarial",
        "batch_size": "--batch_size 7",
    },
}
# Its architecture is the experiment's; the others are of ensembles, of imported scores and of networks of others; and
# what trials keep is refused by the trials that are there.
NOT_OF_AN_EXPERIMENT = {
    *("arch", "keep", "import_scores", "score", "num_members", "ensemble_archs"),
    *("model", "mean", "std", "weights_key", "allow_pickle"),
}
NO_INPUT = {"out", "status", "fresh", "merge", "first_trial"}  # the last two: tests/jobs/test_merge.py


def says(verb: str) -> dict[str, str]:
    """What the page says of each setting."""
    section = PAGE.read_text().partition(f"## bat-dist {verb}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", section, re.MULTILINE)
    return {name: word for names, word in rows for name in re.findall(r"`(\w+)`", names)}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def results(verb: str, folder: Path) -> dict[str, np.ndarray]:
    """All arrays that the verb leaves, by name; of an evaluation the flags by attack."""
    found = {}
    for name in FILES[verb]:
        if not (folder / name).exists():
            continue
        read = load_file(folder / name) if name.endswith(".safetensors") else Folder(folder).read_npz(name)
        if verb == "evaluate":
            subsets = {key: value for key, value in read.items() if key.startswith("subset_")}
            read = {**dict(zip(read["attacks"].tolist(), read["flags"], strict=True)), **subsets}
        found |= {f"{name}: {key}": np.asarray(value) for key, value in read.items()}
    assert found
    return found


def equal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        value.dtype == other[key].dtype and value.tobytes() == other[key].tobytes() for key, value in one.items()
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> dict[str, str]:
    """Files that settings name."""
    base = tmp_path_factory.mktemp("places")
    dataset = load_dataset("digits", num_train=100, num_test=40)
    for split, of in (("train", dataset.train), ("test", dataset.test)):
        for number, (image, label) in enumerate(zip(of.images, of.labels, strict=True)):
            path = base / "images" / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    random, fingerprint = np.random.default_rng(0), np.array(dataset.fingerprint)
    for name in ("scores", "other_scores"):
        mem = random.random(100) * 0.4
        mem[:3] = np.nan
        np.savez(base / f"{name}.npz", mem=mem, fingerprint=fingerprint)
    typical = random.random(40) < 0.5
    np.savez(base / "typicality.npz", test_typical=typical, test_atypical=~typical, fingerprint=fingerprint)
    train_typical = random.random(100) < 0.5
    halves = {"train_typical": train_typical, "train_atypical": ~train_typical}
    of_test = {"test_typical": typical, "test_atypical": ~typical}
    Folder(base).write_npz("sets.npz", **halves, **of_test, fingerprint=fingerprint)
    np.savez(base / "subset.npz", indices=np.arange(60), fingerprint=fingerprint)
    names = ("scores", "other_scores", "typicality", "sets", "subset")
    found = {name: str(base / f"{name}.npz") for name in names}
    found |= {"images": str(base / "images"), "images_of_one": str(base / "images_of_one")}
    shutil.copytree(base / "images/train", base / "images_of_one")
    for seed, name in enumerate(("network", "other_network")):
        found[name] = str(base / name)
        words = [*DATA, *FAST, "--method", "erm", "--num_val", "20", "--seed", str(seed), "--out", found[name]]
        assert train(words) == 0
    shutil.copy(base / "other_network/last.safetensors", base / "network/last.safetensors")  # the last is not the best
    (base / "net.py").write_text(NETWORKS)
    torch.manual_seed(0)
    weights = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).state_dict()
    torch.save({"state_dict": weights, "ema": {key: 2 * value for key, value in weights.items()}}, base / "w.pt")
    found |= {"model": f"{base}/net.py:net", "other_model": f"{base}/net.py:other", "weights": str(base / "w.pt")}
    assert memorize([*FIRST["memorize"], "--seed", "5", "--out", str(base / "trials")]) == 0
    return found | {"feldman_zhang": str(base / "trials/feldman_zhang.npz")}


NETWORKS = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))

class other(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, 10))

    def forward(self, x):
        return super().forward(1 - x)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, places: dict[str, str]) -> Callable[[str, str], Path]:
    """The folder of the call that comes before one with another value."""
    base, made = tmp_path_factory.mktemp("finished"), {}

    def found(verb: str, name: str) -> Path:
        first = first_of(verb, name)
        if str(first) not in made:
            out = made[str(first)] = base / str(len(made))
            assert call(verb, first, out, places) == 0
        return made[str(first)]

    return found


def first_of(verb: str, name: str) -> list[str]:
    return OTHER_FIRST.get((verb, name), FIRST[verb])


def call(verb: str, words: list[str], out: Path, places: Mapping[str, str]) -> int:
    main, _ = MADE_BY[verb]
    return main(last_ones([*(word.format(**places) for word in words), "--out", str(out)]))


def cases() -> list[Any]:
    """Verb, what the page says, settings: one by one, or all together where none of them is to change anything."""
    found = []
    for verb in MADE_BY:
        said = says(verb)
        for word in (REFUSED, COMPUTED, ADDED, NO_PART, RECORDED):
            names = tuple(name for name in said if said[name] == word)
            alone = word in (REFUSED, ADDED)
            for group in [(name,) for name in names] if alone else [names] if names else []:
                marks = () if word == REFUSED else pytest.mark.slow
                found.append(pytest.param(verb, word, group, marks=marks, id=f"{verb}-{word}-{'-'.join(group)[:40]}"))
    return found


@pytest.mark.parametrize("verb", MADE_BY)
def test_the_page_and_this_module_know_all_settings(verb: str) -> None:
    names = {field.name for field in dataclasses.fields(MADE_BY[verb][1])} - NO_INPUT
    assert says(verb).keys() == names
    assert CHANGED[verb].keys() == names


@pytest.mark.parametrize(("verb", "word", "names"), cases())
def test_another_value(
    verb: str,
    word: str,
    names: tuple[str, ...],
    finished: Callable[[str, str], Path],
    places: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = finished(verb, names[0])
    used, fresh = tmp_path / "used", tmp_path / "fresh"
    before = results(verb, first)
    shutil.copytree(first, used)
    kept = files(used)
    words = [*first_of(verb, names[0]), *(word for name in names for word in CHANGED[verb][name].split())]
    capsys.readouterr()
    code, said = call(verb, words, used, places), capsys.readouterr().err
    assert code == (2 if word == REFUSED else 0), said
    if word == REFUSED:
        assert files(used) == kept
        if (verb, *names) != ("evaluate", "num_classes"):  # the network knows all ten
            assert re.search(rf"{used}\S* holds", said), said
        return
    now = results(verb, used)
    if word == RECORDED:
        assert equal(now, before)
        return
    assert call(verb, words, fresh, places) == 0
    wanted = results(verb, fresh)
    if word == ADDED:
        assert equal({**now, **wanted}, now)
        assert all(key in now or f"{key}@0" in now for key in before)  # with several seeds, the first's
    else:
        assert equal(now, wanted)
        assert equal(now, before) == (word == NO_PART)


def differing(verb: str, name: str) -> dict[str, Any]:
    """The settings of `verb` that another value of one makes another, as a mapping in YAML would have them."""
    places: dict[str, str] = dict.fromkeys(
        ("images", "images_of_one", "scores", "other_scores", "network", "other_network", "sets", "subset"), "x"
    )
    places |= dict.fromkeys(("model", "other_model"), "x.py:y") | dict.fromkeys(("weights", "typicality"), "x")
    places["feldman_zhang"] = "x"
    of = [
        to_dict(parse(MADE_BY[verb][1], last_ones([*(w.format(**places) for w in words), "--out", "x"]), prog="")[0])
        for words in (FIRST[verb], [*FIRST[verb], *CHANGED[verb][name].split()])
    ]
    return {key: value for key, value in of[1].items() if value != of[0][key]}


def is_refused(verb: str, name: str) -> bool:
    return says(verb)[name] == REFUSED


@pytest.mark.parametrize("name", sorted(CHANGED["train"].keys() - NOT_OF_A_POINT.keys() - DATA_CHANGED.keys()))
def test_a_sweep_is_of_what_its_runs_are_of(name: str) -> None:
    """Scores, which are known by their values, are told apart by the sweep's own tests."""
    dataset = load_dataset("digits", num_train=100, num_test=40)
    base = {"dataset": "digits", "num_train": 100, "num_test": 40, "method": "bat", "scores": "x", "num_val": 20}
    base["recipe"] = "fast"
    one, other = (
        sweep._identity(
            TuneSettings(out="x", base=of, space={"lr": [0.1]} if name != "lr" else {"ema": [0.9]}), dataset, {}
        )
        for of in (base, {**base, **differing("train", name)})
    )
    own = {"score": True, "scores": False, "alpha": False, "beta": False}  # alpha and beta are of its points
    assert (one != other) == own.get(name, is_refused("train", name))


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        (verb, name)
        for verb in MADE_BY
        for name in sorted(CHANGED[verb])
        if name not in {*DATA_CHANGED, *_GIVEN, *NOT_OF_AN_EXPERIMENT}
    ],
)
def test_an_experiment_is_of_what_its_parts_are_of(verb: str, name: str) -> None:
    dataset, small = load_dataset("digits", num_train=100, num_test=40), {"table": 1, "scale": "small", "out": "x"}
    changed = differing(verb, name)
    assert changed or name == "min_nodes"  # which is 1 in a test
    one, other = (
        experiment_record.identity_of_settings(dataset, ReproduceSettings(**{**small, verb: of}))
        for of in ({}, changed)
    )
    assert (one != other) == (says(verb)[name] in (REFUSED, COMPUTED) or name == "seeds")


@pytest.mark.parametrize(
    ("train", "number"), [({}, 1), ({"num_workers": 4}, 4), ({"num_workers": 4, "sync_bn": True}, 1)]
)
def test_an_experiment_of_an_older_version_has_the_number_of_workers_that_was_asked_for_and_no_batch_size(
    train: dict[str, Any], number: int
) -> None:
    settings = ReproduceSettings(table=1, scale="small", out="x", train=train)
    now = experiment_record.identity_of_settings(load_dataset("digits", num_train=100, num_test=40), settings)
    assert now["train.num_workers"] == number
    old = {name: value for name, value in now.items() if name != "train.num_workers"} | {"evaluate.batch_size": 64}
    assert experiment_record.identity_of(ExperimentFile(identity=old, asked=to_dict(settings))) == now
