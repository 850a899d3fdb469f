"""Results are found wherever they lie, and what cannot be read is left out by name."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from bat_dist.errors import UserError
from bat_dist.results.compare import compare
from bat_dist.results.find import NOT_WALKED, find_results
from tests.helpers.made_results import random_flags, study, write_evaluation, write_training

RIGHT = {"clean": np.ones(10, bool), "pgd20": np.arange(10) < 4}


def test_everything_below_is_found_once(tmp_path: Path) -> None:
    study(tmp_path / "a" / "deep" / "er", seeds=2)
    found = find_results([str(tmp_path), str(tmp_path / "a"), f"{tmp_path}/a/deep"])
    assert (len(found.evaluations), len(found.trainings)) == (6, 6)
    assert not found.left_out
    assert not found.unfinished


def test_flags_and_subsets_are_read(tmp_path: Path) -> None:
    few = {"typical": np.arange(10) < 3}
    write_evaluation(tmp_path, RIGHT, subsets=few)
    one = find_results([str(tmp_path)]).evaluations[0]
    assert one.flags["pgd20"].tolist() == RIGHT["pgd20"].tolist()
    assert one.subsets["typical"].sum() == 3


def test_a_uri_is_a_place_too(tmp_path: Path) -> None:
    import fsspec

    place = write_evaluation(tmp_path / "one", RIGHT)
    memory = fsspec.filesystem("memory")
    memory.put(str(place), "/found/one", recursive=True)
    assert len(find_results(["memory://found"]).evaluations) == 1
    memory.rm("/found", recursive=True)


def test_a_missing_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        find_results([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2, "bat_dist": "9.0"}, "written by a newer bat_dist, 9.0"),
        ({"fingerprint": None}, "0.1.0 has no fingerprint: evaluate it again"),
        ({"network": None, "bat_dist": "0.0.3"}, "0.0.3 has no network"),
        ({"fingerprint": "e" * 64}, "not of one evaluation"),
        ({"rows": []}, "not of one evaluation"),
    ],
)
def test_other_versions_are_refused_by_name(tmp_path: Path, changes: dict, said: str) -> None:
    write_evaluation(tmp_path / "good", RIGHT)
    write_evaluation(tmp_path / "bad", RIGHT, **changes)
    found = find_results([str(tmp_path)])
    assert len(found.evaluations) == 1
    assert found.left_out[0].place.endswith("bad")
    assert said in found.left_out[0].reason


def test_a_file_of_the_first_releases_is_read(tmp_path: Path) -> None:
    """They wrote neither `format` nor `attack`."""
    write_evaluation(tmp_path, RIGHT, format=None)
    assert len(find_results([str(tmp_path)]).evaluations) == 1


@pytest.mark.parametrize("damage", ["evaluation.json", "flags.npz"])
def test_a_damaged_file_is_left_out(tmp_path: Path, damage: str) -> None:
    write_evaluation(tmp_path, RIGHT)
    (tmp_path / damage).write_bytes((tmp_path / damage).read_bytes()[:40])
    found = find_results([str(tmp_path)])
    assert not found.evaluations
    assert damage in found.left_out[0].reason


def test_what_is_not_finished_is_said(tmp_path: Path) -> None:
    for store in ("evaluation/units/clean", "scores/trials"):
        (tmp_path / store).mkdir(parents=True)
        (tmp_path / store / "zarr.json").touch()
    write_training(tmp_path / "run", epochs=2, finished=False)
    found = find_results([str(tmp_path)])
    assert sorted(one.place.rsplit("/", 1)[-1] for one in found.unfinished) == ["evaluation", "scores"]
    assert not found.trainings[0].is_finished
    assert len(found.trainings[0].history) == 2


def test_insides_of_results_are_not_walked(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "x", RIGHT)
    write_evaluation(tmp_path / "x" / "units" / "inside", RIGHT)
    write_evaluation(tmp_path / ".hidden", RIGHT)
    assert len(find_results([str(tmp_path)]).evaluations) == 1


@pytest.mark.parametrize("name", sorted(NOT_WALKED))
def test_a_folder_of_ones_own_may_be_called_as_an_inside(name: str, tmp_path: Path) -> None:
    write_evaluation(tmp_path / name / "x", RIGHT)
    found = find_results([str(tmp_path)])
    assert len(found.evaluations) == 1
    assert not found.unfinished


def test_the_store_of_a_result_that_is_not_finished_is_not_walked(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "trials" / "logs" / "x", RIGHT)
    (tmp_path / "trials" / "zarr.json").touch()
    assert not find_results([str(tmp_path)]).evaluations


def test_links_in_circles_end(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a" / "x", RIGHT)
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    found = find_results([str(tmp_path)])
    assert len(found.evaluations) == 1


def test_a_sweep_speaks_for_its_runs(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({"points": [], "identity": {}, "asked": {"seeds": [0]}}))
    write_training(tmp_path / "runs" / "alpha=0" / "seed0")
    write_evaluation(tmp_path / "test" / "alpha=0" / "seed0", RIGHT)
    found = find_results([str(tmp_path)])
    assert (len(found.swept), len(found.trainings), len(found.evaluations)) == (1, 0, 1)


def test_a_thousand_results_are_collected_in_time(tmp_path: Path) -> None:
    """Thirty seconds of computing is the promise; a few are needed."""
    rng = np.random.default_rng(0)
    for number in range(500):
        flags = {name: random_flags(rng, 0.5, 1000) for name in ("clean", "fgsm", "pgd20", "cw", "autoattack")}
        facts = {"epochs": 3 + number // 5}
        write_evaluation(tmp_path / f"e{number}", flags, seed=number % 5, facts=facts)
        write_training(tmp_path / f"r{number}", seed=number)
    start = time.process_time()
    found = find_results([str(tmp_path)])
    tables = compare(found).tables
    assert time.process_time() - start < 30
    assert len(found.evaluations) + len(found.trainings) == 1000
    assert len(tables[0].rows) == 100
