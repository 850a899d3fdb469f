"""Typical images that are others in some evaluations, since the scores were computed again from more trials."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from bat_dist.reporting.records import records
from bat_dist.reporting.report import page
from bat_dist.reporting.tables import markdown
from bat_dist.results.compare import Table, compare
from bat_dist.results.find import Found, find_results
from bat_dist.results.rows import rows_of
from bat_dist.results.statistics import compare_methods
from bat_dist.storage.files import Folder
from tests.helpers.made_results import random_flags, write_evaluation

IMAGES = np.arange(200)
BEFORE = IMAGES < 50
AFTER = {"more": IMAGES < 57, "others": (IMAGES >= 30) & (IMAGES < 80), "none": IMAGES < 0}
FLAGS = {
    (method, seed): random_flags(np.random.default_rng(10 * seed + len(method)), share)
    for (method, share), seed in itertools.product({"pgd_at": 0.5, "bat": 0.7, "trades": 0.5}.items(), range(3))
}


def found(place: Path, after: np.ndarray, *, of_before: tuple[int, ...] = (0, 1)) -> Found:
    """PGD-AT and BAT with three seeds, TRADES with the last alone; all but the seeds `of_before` have `after`."""
    for (method, seed), flags in FLAGS.items():
        if method != "trades" or seed == 2:
            typical = BEFORE if seed in of_before else after
            subsets = {"typical": typical, "atypical": IMAGES >= 150}
            write_evaluation(place / f"{method}{seed}", {"pgd20": flags}, method=method, seed=seed, subsets=subsets)
    return find_results([str(place)])


def number_of(table: Table, method: str) -> int:
    return next(number for number, row in enumerate(table.rows) if row.method == method)


@pytest.mark.parametrize("after", AFTER)
def test_only_networks_with_equal_sets_are_compared_and_the_others_are_named(tmp_path: Path, after: str) -> None:
    """Sets of unequal size were a ValueError and so no report, and others of equal size a wrong p-value."""
    results = found(tmp_path, AFTER[after])
    (table,) = compare(results).tables
    cell = table.cells[number_of(table, "bat"), "pgd20", "typical"]
    assert cell.value.per_seed == tuple(FLAGS["bat", seed][BEFORE].mean() for seed in (0, 1))
    assert cell.value.num_images == 50
    flags = [np.array([FLAGS[method, seed][BEFORE] for seed in (0, 1)]) for method in ("bat", "pgd_at")]
    assert cell.compared
    assert cell.compared.found == compare_methods(flags[0], flags[1])
    assert (number_of(table, "trades"), "pgd20", "typical") not in table.cells
    atypical = table.cells[number_of(table, "bat"), "pgd20", "atypical"]
    assert len(atypical.value.per_seed) == 3
    assert atypical.compared
    assert atypical.compared.found.num_seeds == 3
    (note,) = table.notes
    assert note.startswith("typical test images differ between evaluations")
    assert "PGD-AT, best checkpoint, seed 2; TRADES, best checkpoint, seed 2; BAT" in note
    assert "call bat-dist evaluate again for each --out with the same --scores" in note


def test_tables_and_page_name_the_seeds_that_are_in(tmp_path: Path) -> None:
    comparison = compare(results := found(tmp_path, AFTER["more"]))
    of_bat = {one["subset"]: one["seeds"] for one in records(comparison) if one["method"] == "bat"}
    assert of_bat == {"all": "0 1 2", "typical": "0 1", "atypical": "0 1 2"}
    assert "these columns are without PGD-AT" in markdown(comparison)
    assert "these columns are without PGD-AT" in page(Folder(tmp_path), results, comparison)


def test_equal_sets_need_no_note(tmp_path: Path) -> None:
    (table,) = compare(found(tmp_path, BEFORE)).tables
    assert not table.notes
    assert len(table.cells[number_of(table, "bat"), "pgd20", "typical"].value.per_seed) == 3


def test_a_second_evaluation_with_the_sets_of_the_others_is_enough(tmp_path: Path) -> None:
    """One network, attacked in two folders: the sets are of its test images, whatever the attack."""
    found(tmp_path, AFTER["more"])
    for method in ("pgd_at", "bat", "trades"):
        flags, subsets = {"clean": FLAGS[method, 2]}, {"typical": BEFORE}
        write_evaluation(tmp_path / f"{method}2b", flags, method=method, seed=2, subsets=subsets)
    (table,) = compare(find_results([str(tmp_path)])).tables
    assert not table.notes
    assert len(table.cells[number_of(table, "bat"), "pgd20", "typical"].value.per_seed) == 3


def test_a_mean_has_the_number_of_images_of_a_network_that_has_some(tmp_path: Path) -> None:
    """The first seed has none: dividing by its number of images was a ZeroDivisionError."""
    rows, _ = rows_of(found(tmp_path, AFTER["none"], of_before=(1, 2)).evaluations)
    value = next(row for row in rows if row.method == "bat").value("pgd20", "typical")
    assert value
    assert (value.num_images, len(value.per_seed)) == (50, 2)
