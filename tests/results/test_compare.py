"""Tables: what belongs together stands together, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import load_dataset
from bat_dist.errors import UserError
from bat_dist.jobs.training_plan import make_plan
from bat_dist.reporting.report_sources import Sources
from bat_dist.results.compare import ComparedResults, compare
from bat_dist.results.find import find_results
from bat_dist.results.published import departures, published_row
from bat_dist.results.rows import TRAINED_BY, in_order
from bat_dist.results.statistics import compare_methods
from bat_dist.settings.train import TrainSettings
from tests.helpers.made_results import facts_of, random_flags, study, write_evaluation, write_training

RIGHT = {"clean": np.ones(10, bool), "pgd20": np.arange(10) < 4}


def compared(place: Path, **asked: Any) -> ComparedResults:
    return compare(find_results([str(place)]), **asked)


def test_means_and_deviations_are_over_seeds(tmp_path: Path) -> None:
    for seed, right in enumerate((3, 5, 10)):
        write_evaluation(tmp_path / str(seed), {"clean": np.arange(10) < right}, seed=seed)
    (table,) = compared(tmp_path).tables
    value = table.cells[0, "clean", "all"].value
    assert value.per_seed == (0.3, 0.5, 1.0)
    assert value.mean == pytest.approx(0.6)
    assert value.deviation == pytest.approx(np.std([0.3, 0.5, 1.0], ddof=1))
    assert value.image_se == pytest.approx((0.6 * 0.4 / 10) ** 0.5)
    assert table.cells[0, "clean", "all"].compared is None


def test_differences_are_the_paired_test_of_the_flags(tmp_path: Path) -> None:
    study(tmp_path)
    found = find_results([str(tmp_path)])
    (table,) = compare(found).tables
    number = next(at for at, row in enumerate(table.rows) if row.method == "bat")
    flags = {
        method: np.array([one.flags["pgd20"] for one in found.evaluations if one.document.facts["method"] == method])
        for method in ("bat", "pgd_at")
    }
    cell = table.cells[number, "pgd20", "all"]
    assert cell.compared is not None
    assert cell.compared.found == compare_methods(flags["bat"], flags["pgd_at"])
    assert cell.compared.found.difference == pytest.approx(40 / 200)
    assert cell.compared.is_significant
    typical = table.cells[number, "pgd20", "typical"]
    assert typical.value.num_images == 100
    assert typical.compared is not None
    assert typical.compared.found == compare_methods(flags["bat"][:, :100], flags["pgd_at"][:, :100])


def test_a_null_difference_is_seldom_marked_in_a_whole_column(tmp_path: Path) -> None:
    """Five equal methods against PGD-AT: any mark in at most 5% of tables (of 200: up to 19 by chance, at 99.7%)."""
    rng = np.random.default_rng(7)
    methods = ("pgd_at", "trades", "mart", "gairat", "bat", "erm")
    for method in methods:
        for seed in range(3):
            write_evaluation(tmp_path / f"{method}{seed}", {"clean": np.ones(150, bool)}, method=method, seed=seed)
    found = find_results([str(tmp_path)])
    wrong = 0
    for _ in range(200):
        difficulty = rng.normal(0, 1, 150)
        ability = {m: [rng.normal(0, 0.1) for _ in range(3)] for m in methods}
        evaluations = []
        for one in found.evaluations:
            luck = ability[one.document.facts["method"]][one.document.facts["seed"]]
            evaluations.append(replace(one, flags={"clean": luck + rng.normal(0, 0.6, 150) > difficulty}))
        (table,) = compare(replace(found, evaluations=evaluations)).tables
        wrong += any(cell.compared.is_significant for cell in table.cells.values() if cell.compared)
    assert wrong <= 19


def test_one_seed_is_never_called_significant(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", {"clean": np.ones(100, bool)}, method="bat")
    write_evaluation(tmp_path / "b", {"clean": np.zeros(100, bool)}, method="pgd_at")
    (table,) = compared(tmp_path).tables
    cell = next(cell for cell in table.cells.values() if cell.compared)
    assert cell.compared is not None
    assert cell.compared.adjusted < 1e-9
    assert not cell.compared.is_significant


@pytest.mark.parametrize(
    "other",
    [
        {"facts": {"fingerprint": "a" * 64}},
        {"settings": {"epsilon": 0.1}},
        {"settings": {"step_size": 0.001}},
        {"settings": {"restarts": 5}},
        {"facts": {"arch": "resnet18"}},
        {"attack": {"epsilon": 0.2, "step_size": 0.01}},
    ],
)
def test_what_does_not_belong_together_is_never_mixed(tmp_path: Path, other: dict) -> None:
    write_evaluation(tmp_path / "a", RIGHT, method="pgd_at")
    write_evaluation(tmp_path / "b", RIGHT, method="bat", **other)
    tables = compared(tmp_path).tables
    assert [len(table.rows) for table in tables] == [1, 1]


def test_other_settings_of_training_are_other_rows_and_named(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", RIGHT, facts={"epochs": 3})
    write_evaluation(tmp_path / "b", RIGHT, facts={"epochs": 9}, seed=1)
    write_evaluation(tmp_path / "c", RIGHT, method="bat", facts={"epochs": 9})
    (table,) = compared(tmp_path).tables
    assert [row.label for row in table.rows] == [
        "PGD-AT (epochs = 3)",
        "PGD-AT (epochs = 9)",
        "BAT (α = 1, β = 0.2)",
    ]
    assert any("different epochs (3: PGD-AT (epochs = 3); 9:" in note for note in table.notes)


def test_rows_are_told_apart_by_all_that_decides_a_training() -> None:
    """But for what makes another table of it, and for its seeds."""
    dataset = load_dataset("digits", num_train=100, num_test=20)
    asked = TrainSettings(dataset="digits", out="x", method="pgd_at", num_workers=2, ema=0.9, crop_padding=2, flip=True)
    facts = make_plan(dataset, asked).facts.keys()
    assert {"num_workers", "ema_warm_up", "crop_padding", "flip"} <= facts
    assert facts - {"dataset", "fingerprint", "arch"} - {"seed", "val_seed"} <= {*TRAINED_BY}


@pytest.mark.parametrize(
    "name",
    [
        *("num_steps", "random_start", "attack_mode", "attack_precision", "best_by", "scores"),
        "fold_batch_norm",
        *("precision", "ema", "awp", "awp_from", "clip_norm", "sync_bn", "num_workers"),
    ],
)
def test_networks_that_differ_in_a_setting_are_never_seeds_of_one_row(name: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_evaluation(tmp_path / str(seed), RIGHT, facts={name: 1 + seed}, seed=seed)
    (table,) = compared(tmp_path).tables
    assert [len(row.networks) for row in table.rows] == [1, 1]


def test_tf32_and_fp32_are_rows_of_their_own_and_named(tmp_path: Path) -> None:
    for seed, precision in enumerate(("fp32", "tf32", "fp32")):
        facts = {"precision": precision, "attack_precision": precision}
        write_evaluation(tmp_path / str(seed), RIGHT, facts=facts, seed=seed)
    (table,) = compared(tmp_path).tables
    assert [len(row.networks) for row in table.rows] == [2, 1]
    fp32, tf32 = (row.label for row in table.rows)
    assert ("precision = fp32" in fp32, "precision = tf32" in tf32) == (True, True)


def test_several_evaluations_of_one_network_are_joined(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", {"clean": RIGHT["clean"]}, network="same")
    write_evaluation(tmp_path / "b", {"pgd20": RIGHT["pgd20"]}, network="same")
    found = compared(tmp_path)
    assert found.tables[0].attacks == ("clean", "pgd20")
    assert len(found.tables[0].rows[0].networks) == 1
    assert not found.left_out


def test_a_second_network_of_a_seed_is_left_out_by_name(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", RIGHT, network="one")
    write_evaluation(tmp_path / "b", RIGHT, network="another")
    found = compared(tmp_path)
    assert len(found.tables[0].rows[0].networks) == 1
    assert found.left_out[0].place.endswith("/b")
    assert "another network of the same settings and seed" in found.left_out[0].reason


def test_contradicting_flags_of_one_network_are_said(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", RIGHT, network="same")
    write_evaluation(tmp_path / "b", {"pgd20": ~RIGHT["pgd20"]}, network="same")
    assert "pgd20: the same network was attacked" in compared(tmp_path).left_out[0].reason


def test_best_and_last_are_rows_of_their_own(tmp_path: Path) -> None:
    for method in ("pgd_at", "bat"):
        for which in ("best", "last"):
            write_evaluation(tmp_path / f"{method}{which}", RIGHT, method=method, settings={"which": which})
    (table,) = compared(tmp_path).tables
    assert [(row.which, row.method) for row in table.rows] == [
        ("best", "pgd_at"),
        ("best", "bat"),
        ("last", "pgd_at"),
        ("last", "bat"),
    ]
    for (number, _, _), cell in table.cells.items():
        assert (cell.compared is None) == (table.rows[number].method == "pgd_at")


def test_half_a_table_says_which_half_is_missing(tmp_path: Path) -> None:
    study(tmp_path)
    for name in ("eval-bat-1", "eval-trades-0", "eval-trades-2"):
        (tmp_path / name / "evaluation.json").unlink()
        (tmp_path / name / "flags.npz").unlink()
    write_evaluation(tmp_path / "eval-pgd_at-0", {"clean": np.ones(200, bool)})
    (table,) = compared(tmp_path).tables
    assert table.missing == (
        "PGD-AT, best checkpoint: pgd20 for seed 0",
        "TRADES, best checkpoint: seed 0, 2",
        "BAT (α = 1, β = 0.2), best checkpoint: seed 1",
    )


@pytest.mark.parametrize(
    ("data_dir", "name"),
    [("data/birds", "birds"), ("data/birds/.", "birds"), (".", "image_folder"), ("..", "image_folder")],
)
def test_a_table_is_called_as_the_folder_of_its_images(data_dir: str, name: str, tmp_path: Path) -> None:
    write_evaluation(tmp_path, RIGHT, settings={"dataset": "image_folder", "data_dir": data_dir})
    assert compared(tmp_path).tables[0].shared.dataset == name


def test_what_a_plan_still_lacks_is_said(tmp_path: Path) -> None:
    runs = [
        {
            "label": "bat",
            "seed": s,
            "training": f"runs/bat/seed{s}",
            "evaluations": {"best": f"evaluations/bat/seed{s}/best"},
        }
        for s in range(4)
    ]
    (tmp_path / "experiment.json").write_text(json.dumps({"runs": runs}))
    write_evaluation(tmp_path / "evaluations/bat/seed0/best", RIGHT, method="bat")
    write_training(tmp_path / "runs/bat/seed0", method="bat")
    write_training(tmp_path / "runs/bat/seed1", method="bat", seed=1)
    write_training(tmp_path / "runs/bat/seed2", method="bat", seed=2, epochs=2, finished=False)
    assert compared(tmp_path).missing == (
        "bat, seed 1: trained, not evaluated (best checkpoint)",
        "bat, seed 2: trained to epoch 2 of 3",
        "bat, seed 3: not trained",
    )


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    write_training(tmp_path / "run", epochs=1, finished=False)
    (tmp_path / "run" / "failure.json").write_text(json.dumps({"state": "failed", "reason": "no memory"}))
    assert compared(tmp_path).missing[0].endswith("run: failed: no memory")


def test_another_reference_can_be_asked_for(tmp_path: Path) -> None:
    study(tmp_path)
    (table,) = compared(tmp_path, reference="trades").tables
    assert table.reference == "TRADES"
    with pytest.raises(UserError, match=r"no table has the reference tradez; did you mean trades\?"):
        compared(tmp_path, reference="tradez")


def test_erm_is_left_out_of_notes_on_attack_settings_alone(tmp_path: Path) -> None:
    facts = {"epochs": 9, "num_train": 500, "num_steps": 1, "epsilon": 0.01}
    write_evaluation(tmp_path / "pgd_at", RIGHT)
    write_evaluation(tmp_path / "erm", RIGHT, method="erm", facts=facts)
    (table,) = compared(tmp_path).tables
    different = [note.removeprefix("trained with different ").split()[0] for note in table.notes]
    assert different == ["num_train", "epochs"]


def test_bat_without_its_terms_is_pgd_at(tmp_path: Path) -> None:
    """As in sweeps, whose reference is trained as BAT with alpha = beta = 0."""
    for name, alpha in (("plain", 0.0), ("bat", 1.0)):
        facts = {"method_settings": {"alpha": alpha, "beta": alpha / 5}}
        write_evaluation(tmp_path / name, RIGHT, method="bat", facts=facts)
    assert compared(tmp_path).tables[0].reference == "BAT (α = 0, β = 0)"
    write_evaluation(tmp_path / "pgd_at", RIGHT)
    assert compared(tmp_path).tables[0].reference == "PGD-AT"


def test_each_checkpoint_has_a_reference_of_its_own(tmp_path: Path) -> None:
    """The last checkpoint of PGD-AT is not there, that of BAT with alpha = beta = 0 is."""
    plain = {"method_settings": {"alpha": 0.0, "beta": 0.0, "sigma": 0.15}}
    write_evaluation(tmp_path / "pgd_at", RIGHT)
    for which in ("best", "last"):
        for name, facts in (("plain", plain), ("bat", {})):
            place = tmp_path / f"{name}-{which}"
            write_evaluation(place, RIGHT, method="bat", facts=facts, settings={"which": which})
    (table,) = compared(tmp_path).tables
    assert list(table.references.items()) == [("best", "PGD-AT"), ("last", "BAT (α = 0, β = 0)")]
    assert table.reference == "PGD-AT (best checkpoint), BAT (α = 0, β = 0) (last checkpoint)"
    assert [row.which for row in table.rows if table.is_reference(row)] == ["best", "last"]


def test_a_network_from_elsewhere_has_a_row(tmp_path: Path) -> None:
    facts = dict.fromkeys(facts_of()) | {"model": "mine.py:net", "fingerprint": "f" * 64}
    place = write_evaluation(tmp_path / "own", RIGHT)
    document = json.loads((place / "evaluation.json").read_text())
    document["facts"] = {key: value for key, value in facts.items() if value is not None}
    (place / "evaluation.json").write_text(json.dumps(document))
    (table,) = compared(tmp_path).tables
    assert (table.shared.arch, table.rows[0].label, table.rows[0].which) == ("own model", "mine.py:net", "given")


def test_an_unknown_dataset_is_left_out_by_name(tmp_path: Path) -> None:
    write_evaluation(tmp_path, RIGHT, settings={"dataset": "cifar11"})
    found = compared(tmp_path)
    assert not found.tables
    assert "cifar11" in found.left_out[0].reason


def test_columns_stand_as_in_the_paper() -> None:
    names = ["worst_case", "autoattack", "cw", "pgd100", "autoattack_fast", "pgd20", "fgsm", "square", "clean"]
    expected = ["clean", "fgsm", "pgd20", "pgd100", "cw", "square", "autoattack_fast", "autoattack", "worst_case"]
    assert in_order(names) == expected


def test_the_papers_numbers_are_beside_ours_where_the_setting_is_the_papers(tmp_path: Path) -> None:
    """Table 3 of the paper, read with the eye: PGD-AT, ResNet18 on CIFAR-100, clean 56.9, AA 23.6."""
    facts = {"dataset": "cifar100", "arch": "resnet18", "num_train": 49_000, "num_val": 1_000, "epochs": 160}
    facts |= {"num_steps": 10, "epsilon": 8 / 255}
    rng = np.random.default_rng(0)
    flags = {"clean": random_flags(rng, 0.6, 10_000), "autoattack": random_flags(rng, 0.25, 10_000)}
    write_evaluation(tmp_path / "a", flags, facts=facts, settings={"dataset": "cifar100"})
    (table,) = compared(tmp_path).tables
    assert table.cells[0, "clean", "all"].published == pytest.approx(0.569)
    assert table.cells[0, "clean", "all"].published_difference == pytest.approx(0.6 - 0.569)
    assert table.cells[0, "autoattack", "all"].published == pytest.approx(0.236)
    assert table.published[0].tables == "Table 3"
    write_evaluation(tmp_path / "a", flags, facts=facts | {"epochs": 30}, settings={"dataset": "cifar100"})
    (table,) = compared(tmp_path).tables
    assert table.cells[0, "clean", "all"].published == pytest.approx(0.569)
    assert table.cells[0, "clean", "all"].published_difference is None
    assert table.departures == ("epochs 30 instead of 160",)


def test_published_rows_are_found_by_method_and_hyper_parameters() -> None:
    assert published_row("cifar10", "resnet18", "pgd_at", {}) is None
    assert published_row("cifar100", "resnet18", "bat", {"alpha": 3.0, "beta": 0.2}) is None
    found = published_row("tiny_imagenet", "resnet32", "bat", {"alpha": 2.0, "beta": 0.2})
    assert found is not None
    assert (found.accuracies["pgd100"], found.tables) == (pytest.approx(0.329), "Table 5")
    assert departures("tiny_imagenet", {"num_train": 500, "epsilon": 4 / 255}) == ["num_train 500 instead of 25,000"]


def test_sources_say_what_evaluation_and_training_were_computed_on(tmp_path: Path) -> None:
    """And nothing where files of an older version do not."""
    hardware = [{"cpu": "c1", "threads": 1, "gpu": "g1"}, {"cpu": "c2", "threads": 2}]
    write_evaluation(tmp_path / "old", RIGHT, seed=1)
    write_evaluation(tmp_path / "new", RIGHT, computed_on=hardware[1:])
    run = write_training(tmp_path / "run") / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"computed_on": hardware}))
    new, old = (
        one.facts for one in sorted(Sources(find_results([str(tmp_path)])).entries(), key=lambda one: one.words)
    )
    assert "computed_on" not in old
    assert new["computed_on"] == "cpu=c2, threads=2"
    assert new["training computed_on"] == "cpu=c1, threads=1, gpu=g1; cpu=c2, threads=2"
