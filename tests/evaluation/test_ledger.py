"""The book of an evaluation, without Ray: units in any order, AutoAttack's chain, what is there already."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.attacks.autoattack import autoattack
from bat_dist.errors import RunError, UserError
from bat_dist.evaluation.attack import Settings
from bat_dist.evaluation.ledger import EvaluationIdentity, Ledger
from bat_dist.evaluation.names import PROBE
from bat_dist.evaluation.plan import CHECKS, Unit, make_plan
from bat_dist.evaluation.work import build_work
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore

EPSILON = 0.12
ATTACKS = ("clean", "fgsm", "pgd5", "autoattack")


def ledger(out: Path, digits, attacks=ATTACKS, **changes) -> Ledger:
    frame = {"identity": {"network": "n"}, "epsilon": EPSILON, "image_shape": (8, 8, 3), "num_images": 120}
    frame |= {"batch_size": 32, "num_checked": 0, "keep_adversarial": False} | changes
    checks = CHECKS if frame["num_checked"] else ()
    return Ledger(Folder(out), make_plan(attacks, (0,), checks=checks), EvaluationIdentity(**frame))


@pytest.fixture(scope="module")
def work(digits, trained):
    settings = Settings(EPSILON, EPSILON / 4, 1)
    return build_work(digits, trained, settings, keep_adversarial=False, device=torch.device("cpu"))


def done(book: Ledger, work, *, shuffle: int | None = None, stop_after: int | None = None) -> int:
    """Do all units, in the order they come or in another; how many."""
    rng, units, count = random.Random(shuffle), book.begin(), 0
    while units and count != stop_after:
        unit = units.pop(0 if shuffle is None else rng.randrange(len(units)))
        units += book.record(unit, work(unit))
        count += 1
    return count


def flags(book: Ledger) -> dict[str, np.ndarray]:
    return {row.name: row.robust for row in book.evaluation().rows}


@pytest.fixture(scope="module")
def in_order(digits, work, tmp_path_factory) -> tuple[Path, dict[str, np.ndarray], int]:
    out = tmp_path_factory.mktemp("in_order")
    book = ledger(out, digits)
    count = done(book, work)
    return out, flags(book), count


def test_the_chain_is_autoattack(in_order, digits, trained):
    x, y = torch.from_numpy(digits.test.images[:120]).permute(0, 3, 1, 2) / 255, digits.test.labels[:120]
    found = autoattack(trained, x, torch.from_numpy(y), epsilon=EPSILON, seed=0, ids=torch.arange(120))
    rows = in_order[1]
    for name, robust in zip(found.stages[1:], found.robust[1:], strict=True):
        np.testing.assert_array_equal(rows[f"autoattack:{name}"], robust.numpy())
    np.testing.assert_array_equal(rows["clean"], found.robust[0].numpy())
    # Whether the later attacks break one of these few images depends on the last bits of the trained network.
    assert 0 < rows["autoattack"].sum() <= rows["autoattack:apgd-ce"].sum() < rows["clean"].sum()


@pytest.mark.parametrize("seed", [1, 2])
def test_units_in_any_order(seed, in_order, digits, work, tmp_path):
    book = ledger(tmp_path, digits)
    assert done(book, work, shuffle=seed) == in_order[2]
    np.testing.assert_equal(flags(book), in_order[1])


def test_it_goes_on_where_it_stopped(in_order, digits, work, tmp_path):
    first = done(ledger(tmp_path, digits), work, stop_after=7)
    again = ledger(tmp_path, digits)
    assert first + done(again, work) == in_order[2]
    np.testing.assert_equal(flags(again), in_order[1])
    assert done(ledger(tmp_path, digits), work) == 0


def test_only_what_stands_is_attacked(in_order, digits, work, tmp_path):
    """No image is met by an attack after one that it fell to, and none twice by the same."""
    book, met = ledger(tmp_path, digits), {}

    def watched(unit: Unit):
        met.setdefault(unit.stage, []).extend(unit.images)
        return work(unit)

    done(book, watched, shuffle=3)
    for row in book.evaluation().rows:
        for stage in book.plan.rows[row.name]:
            assert len(met[stage]) == len(set(met[stage]))
            if stage.before is not None:
                (before,) = [s for s in book.plan.stages if s == stage.before]
                stands = [r.robust for r in book.evaluation().rows if book.plan.rows[r.name] == (before,)]
                assert set(met[stage]) == set(np.flatnonzero(stands[0]))


def test_a_failed_unit_is_said_and_what_waits_for_it_does_not_begin(digits, work, tmp_path):
    book = ledger(tmp_path, digits)
    units, met = book.begin(), set()
    while units:
        unit = units.pop(0)
        met.add(str(unit.stage))
        if unit.stage.attack == "apgd-ce":
            book.give_up(unit, "ValueError: no")
        else:
            units += book.record(unit, work(unit))
    assert met == {"clean", "fgsm", "pgd5@0", "apgd-ce@0"}
    with pytest.raises(RunError, match="4 units failed, apgd-ce@0 0 with ValueError: no; the same command goes on"):
        book.evaluation()


def test_units_of_as_many_other_images_are_done_again(digits, tmp_path):
    """As if the stage before had ended otherwise, on other hardware."""

    def work(unit: Unit):
        images = np.array(unit.images)
        robust = images < 60 if unit.stage.attack == "clean" else images % 3 == 0
        return {"images": images, "robust": robust, "spent": (0.0, 0.0)}

    book = ledger(tmp_path, digits, ("clean", "pgd5"))
    count = done(book, work)
    clean = RowStore.existing(Folder(tmp_path) / "units" / "clean")
    assert clean is not None
    for number in range(clean.num_rows):
        row = {name: clean.read(name, np.array([number]))[0] for name in clean.fields}
        clean.write(number, row | {"robust": row["images"] >= 60})
    again = ledger(tmp_path, digits, ("clean", "pgd5"))
    assert done(again, work) == count - clean.num_rows > 0
    np.testing.assert_array_equal(np.flatnonzero(flags(again)["pgd5"]), np.arange(60, 120, 3))


def test_another_evaluation_is_refused_before_anything_is_written(in_order, digits):
    before = {path: path.stat().st_mtime_ns for path in in_order[0].rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="network: n in the store, other now"):
        ledger(in_order[0], digits, ("clean", "pgd7"), identity={"network": "other"}).begin()
    assert {path: path.stat().st_mtime_ns for path in in_order[0].rglob("*") if path.is_file()} == before


def test_the_checks_meet_their_own_images(digits, work, tmp_path):
    book, met = ledger(tmp_path, digits, ("clean",), num_checked=20), {}

    def watched(unit: Unit):
        met.setdefault(unit.stage.attack, set()).update(unit.images)
        return work(unit)

    done(book, watched)
    found = book.evaluation()
    assert len(met[PROBE]) == len(met["pgd100"]) == found.num_checked == 20
    assert all(met[name] == met["pgd100"] for name in CHECKS)
    assert found.rows[0].robust[sorted(met["pgd100"])].all(), "only what is right can be attacked"
    assert len(found.checks) == 16 - 1  # Square's place in AutoAttack is not asked about
    assert [row.name for row in found.rows] == ["clean"]
