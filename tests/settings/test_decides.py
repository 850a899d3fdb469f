"""What each setting decides is declared beside its help, and all that must know it derives it from there.

The lists are written out here as they stood before they were derived: folders that exist are known by them.
"""

import dataclasses
import uuid
from pathlib import Path
from typing import Annotated, Any

import pytest

from bat_dist.config import Given, to_dict
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.jobs.experiment_record import identity_of_settings
from bat_dist.jobs.training_plan import make_plan
from bat_dist.jobs.tune_plan import plan_sweep
from bat_dist.results.rows import TRAINED_BY, telling_apart
from bat_dist.settings.decides import Decides, Later, SaidIn, SameInSweep, deciding, identity_values
from bat_dist.settings.evaluate import EvaluateSettings
from bat_dist.settings.known import resumed
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.settings.program_plans import TablePlanSettings
from bat_dist.settings.reproduce import ReproduceSettings
from bat_dist.settings.train import TrainSettings
from bat_dist.settings.tune import NOT_OF_A_POINT, NOT_OF_THE_SPACE, TuneSettings, not_of_the_space
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import DATA

ASKED: dict[str, Any] = {"dataset": "digits", "num_train": 100, "num_test": 40, "method": "pgd_at", "num_val": 20}
OF_A_STUDY = {"watch", "watch_steps", "watch_every", "train_subset"}
RAY = {"fresh", "ray_address", "min_nodes", "wait_minutes"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", num_train=100, num_test=40)


LATER_RECIPE = {"optimizer", "schedule", "warmup_epochs", "crop_scale", "crop_size"}


def names(settings_class: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(settings_class)}


def identity_of_sweep(settings: TuneSettings, dataset: Dataset, folder: Folder) -> dict[str, Any]:
    """As it stands in the sweep's folder."""
    plan_sweep(folder, dataset, settings).record.add([], {})
    return folder.read_json("sweep.json")["identity"]


# --- the lists of before


def test_what_a_sweep_gives_its_runs_itself() -> None:
    to_the_sweep = "give it to the sweep, not to its runs"
    assert {
        "out": "each run has its own folder below the sweep's --out",
        "seed": "write seeds: [0, 1]",
        "ray_address": to_the_sweep,
        "fresh": to_the_sweep,
        "min_nodes": to_the_sweep,
        "wait_minutes": to_the_sweep,
        "status": "it is of the sweep",
        **dict.fromkeys(OF_A_STUDY, "it is for a single run, and for studies"),
    } == NOT_OF_A_POINT


def test_what_all_runs_of_a_sweep_share() -> None:
    data = ("dataset", "data_dir", "download", "num_train", "num_test", "num_classes", "image_size", "test_share")
    assert {
        **dict.fromkeys(data, "data"),
        **dict.fromkeys(("num_val", "val_seed", "val_steps"), "validation split"),
        **dict.fromkeys(("cpus_per_worker", "gpus_per_worker", "num_workers"), "place on a machine"),
        "epsilon": "threat",
        **dict.fromkeys(("track", "loader", "image_storage", "max_failures"), "way of working"),
    } == NOT_OF_THE_SPACE


def test_what_the_identity_of_a_sweep_leaves_out(dataset: Dataset, tmp_path: Path) -> None:
    settings = TuneSettings(out="x", base={**ASKED, "crop_padding": 2}, space={"ema": [0.9]})
    identity = identity_of_sweep(settings, dataset, Folder(tmp_path))
    left_out = {"out", "fresh", "seed", "data_dir", "download", "loader", "track", "status", "ray_address"} | {
        *("image_storage", "min_nodes", "wait_minutes", "cpus_per_worker", "gpus_per_worker", "max_failures"),
        *("ema", "flip", "test_share"),  # of the space; of later versions, at their defaults
        *LATER_RECIPE,
    }
    own = ["varies", *(name for name in to_dict(settings.example) if name not in left_out | OF_A_STUDY | {"scores"})]
    assert list(identity) == [*own, "data_fingerprint", "scores"]


def test_what_the_identity_of_an_experiment_leaves_out(dataset: Dataset) -> None:
    identity = identity_of_settings(dataset, ReproduceSettings(table=1, scale="small", out="x"))
    always = (
        RAY
        | {"out", "status", "data_dir", "download", "image_storage", "loader", "keep", "merge", "first_trial"}
        | {"test_share", "crop_padding", "flip"}
    )
    always |= {"influence_top", "scores_memory", "fold_batch_norm"} | LATER_RECIPE
    rows = {"method", "alpha", "beta", "seed", "scores"}
    place = {"cpus_per_worker", "gpus_per_worker", "num_workers"}
    assert {name for name in identity if name.startswith("memorize.")} == {
        f"memorize.{name}"
        for name in names(MemorizeSettings)
        - always
        - {"num_trials", "stop_when", "precision_target", "max_trials"}
        - {"seed", "num_workers", "cpus_per_trial", "gpus_per_trial"}
    }
    assert {name for name in identity if name.startswith("evaluate.")} == {
        f"evaluate.{name}"
        for name in names(EvaluateSettings)
        - always
        - place
        - {"scores", "attacks", "checkpoint", "split", "first", "batch_size"}
    }
    of_training = [
        f"train.{name}"
        for name in to_dict(TrainSettings(**ASKED, out="x"))
        if name not in always | rows | place | OF_A_STUDY | {"max_failures", "track"}
    ]
    assert [name for name in identity if name.startswith("train.")] == [*of_training, "train.num_workers"]


def test_data_of_ones_own_are_identified_by_their_name(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "birds.py").touch()
    here, there = (
        identity_values(MemorizeSettings(dataset=f"{tmp_path}/{folder}/birds.py:birds", out="x"))
        for folder in ("here", "there")
    )
    assert here == there
    assert here["dataset"] == "birds"


@pytest.mark.parametrize(
    ("verb", "settings_class", "not_taken"),
    [
        ("memorize", MemorizeSettings, {"download", "num_workers", "cpus_per_trial", "gpus_per_trial"}),
        ("train", TrainSettings, {"download", "cpus_per_worker", "gpus_per_worker", "max_failures"}),
        ("evaluate", EvaluateSettings, {"download", "num_workers", "cpus_per_worker", "gpus_per_worker"}),
        ("tune", TuneSettings, {"concurrency", "max_hours"}),
        ("reproduce", ReproduceSettings, {"download", "num_workers", "cpus_per_worker", "gpus_per_worker"}),
        ("reproduce", TablePlanSettings, {"download", "num_workers", "cpus_per_worker", "gpus_per_worker"}),
    ],
)
def test_what_no_call_takes_from_an_earlier_one(verb: str, settings_class: Any, not_taken: set[str]) -> None:
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    lines = "".join(f"{name}: null\n" for name in names(settings_class))
    folder.write("config.yaml", f"# settings of bat-dist {verb}\n{lines}".encode())
    taken = resumed(verb, settings_class)({"out": Given(str(folder), "command line")})
    assert taken.keys() == names(settings_class) - not_taken - RAY - {"out", "status", "merge"}


def test_what_is_given_to_an_experiment_and_not_to_its_parts() -> None:
    data = {"dataset", "data_dir", "download", "num_train", "num_test", "image_size", "test_share", "image_storage"}
    rows = {"seed", "method", "alpha", "beta", "scores"}
    evaluations = {"checkpoint", "which", "attacks", "split", "first"}
    asked = names(MemorizeSettings) | names(TrainSettings) | names(EvaluateSettings)
    given = data | rows | evaluations | OF_A_STUDY | RAY | {"out", "status", "merge"}
    assert {name for name in asked if is_given_to_the_experiment(name)} == given


def is_given_to_the_experiment(name: str) -> bool:
    try:
        ReproduceSettings(table=1, scale="small", methods=("pgd_at",), seeds=(0,), out="x", memorize={name: "x"})
    except ValueError as error:
        return str(error) == f"memorize {name}: it is given to the experiment, not to its parts"
    return False


def test_what_tells_rows_of_a_table_apart() -> None:
    assert {*TRAINED_BY} == {
        *("method", "method_settings", "scores", "num_train", "num_val", "recipe", "epochs", "epsilon", "step_size"),
        *("num_steps", "random_start", "attack_mode", "attack_precision", "val_steps", "best_by", "precision", "ema"),
        *("ema_warm_up", "awp", "awp_from", "clip_norm", "sync_bn", "num_workers", "crop_padding", "flip", "model"),
        *("weights", "train_subset", "crop_scale", "crop_size", "fold_batch_norm"),
    }


def test_what_a_checkpoint_says_of_its_making(dataset: Dataset) -> None:
    of_all = [
        *("method", "method_settings", "dataset", "fingerprint", "num_train", "num_val", "val_seed", "scores", "arch"),
        *("recipe", "epochs", "epsilon", "step_size", "num_steps", "random_start", "attack_mode", "attack_precision"),
        *("val_steps", "best_by", "precision", "ema", "awp", "awp_from", "clip_norm", "sync_bn", "seed"),
        "fold_batch_norm",
    ]
    assert list(make_plan(dataset, TrainSettings(**ASKED, out="x")).facts) == of_all
    asked = TrainSettings(**ASKED, out="x", crop_padding=2, ema=0.9, num_workers=2)
    facts = make_plan(dataset, asked).facts
    more = {"fingerprint": ["crop_padding"], "ema": ["ema_warm_up"], "sync_bn": ["num_workers"]}
    assert list(facts) == [name for one in of_all for name in (one, *more.get(one, ()))]


def test_the_data_that_are_taken_from_a_training_or_from_scores() -> None:
    assert {*DATA} == {*deciding(TrainSettings, Decides.DATA), "data_dir"}


# --- a setting that is planted is found by all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted(TrainSettings):
    plain: int = 1
    threat: Annotated[int, SameInSweep("threat")] = 1
    told: Annotated[int, SaidIn("recipe")] = 1
    later: Annotated[int | None, Later()] = 1
    once_off: Annotated[int | None, Later(was=0)] = None
    file: Annotated[str, Decides.CONTENT] = "f"
    way: Annotated[int, Decides.WORKING] = 1
    call: Annotated[int, Decides.CALL] = 1


NEW = names(Planted) - names(TrainSettings)


def test_a_planted_setting_is_in_the_identity_and_the_facts_of_a_training(dataset: Dataset) -> None:
    plan = make_plan(dataset, Planted(**ASKED, out="x", plain=3, file="g"))
    assert {name: plan.identity[name] for name in NEW & plan.identity.keys()} == {"plain": 3, "threat": 1}
    assert {name: plan.facts[name] for name in NEW & plan.facts.keys()} == {"plain": 3, "threat": 1}
    assert make_plan(dataset, Planted(**ASKED, out="x", later=2)).facts["later"] == 2
    assert make_plan(dataset, Planted(**ASKED, out="x", later=None)).facts["later"] is None
    assert make_plan(dataset, Planted(**ASKED, out="x", once_off=1)).facts["once_off"] == 1
    assert "once_off" not in make_plan(dataset, Planted(**ASKED, out="x", once_off=0)).identity


def test_a_planted_setting_tells_rows_apart() -> None:
    assert telling_apart(Planted) - TRAINED_BY == {"plain", "threat", "later", "once_off"}


def test_a_planted_setting_is_in_the_lists_of_a_sweep(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = not_of_the_space(Planted)
    assert {name: shared[name] for name in NEW & shared.keys()} == {
        "threat": "threat",
        "way": "way of working",
        "call": "way of working",
    }
    monkeypatch.setattr("bat_dist.settings.tune.TrainSettings", Planted)
    base = {**ASKED, "plain": 3, "later": 2, "file": "g", "way": 2, "call": 2}
    settings = TuneSettings(out="x", base=base, space={"lr": [0.1]})
    identity = identity_of_sweep(settings, dataset, Folder(tmp_path))
    assert {name: identity[name] for name in NEW & identity.keys()} == {"plain": 3, "threat": 1, "told": 1, "later": 2}


def test_a_planted_setting_is_in_the_lists_of_an_experiment(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bat_dist.settings.reproduce.TrainSettings", Planted)
    train = {"plain": 3, "file": "g", "way": 2, "call": 2}
    identity = identity_of_settings(dataset, ReproduceSettings(table=1, scale="small", out="x", train=train))
    new = {name: identity[f"train.{name}"] for name in NEW if f"train.{name}" in identity}
    assert new == {"plain": 3, "threat": 1, "told": 1}


def test_a_planted_setting_is_taken_by_the_next_call_unless_it_is_of_the_call() -> None:
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    folder.write("config.yaml", "".join(["# settings of bat-dist train\n", *(f"{name}: 2\n" for name in NEW)]).encode())
    taken = resumed("train", Planted)({"out": Given(str(folder), "command line")})
    assert taken.keys() == NEW - {"call"}
