"""The top of each test sample, and a problem in parts: equal to plain loops, and to one pass over all pairs."""

from dataclasses import replace

import numpy as np
import pytest

from bat_dist.memorization import influence
from bat_dist.memorization.influence_parts import (
    Gathered,
    Influences,
    Wanted,
    by_class,
    find_influences,
    num_pairs,
    parts_of,
    samples_at,
)
from tests.memorization.test_columns import random_study
from tests.memorization.test_influence import naive_influence

WANTED = Wanted(threshold=0.05, same_class=True, max_pairs=15, top=4, tested=(0.15, 0.02), within_class=True)


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("top", [1, 5, 80])
def test_the_top_of_each_test_sample_is_that_of_plain_loops(
    top: int, same_class: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ties everywhere (few trials), undefined samples, and test samples that nobody is compared with."""
    monkeypatch.setattr(influence, "_PENDING_PAIRS", 10)
    study = random_study(3)
    mask, test_correct, labels = study["mask"][:9], study["test_correct"][:9], study["test_labels"]
    expected, errors = naive_influence(mask, test_correct)
    wanted, atypical = replace(WANTED, top=top, same_class=same_class), np.ones(60, bool)
    found = find_influences(wanted, mask, test_correct, study["train_labels"], labels, atypical, block_bytes=1).top
    assert found is not None
    for j in range(25):
        allowed = [
            i
            for i in range(60)
            if not np.isnan(expected[i, j]) and (not same_class or study["train_labels"][i] == labels[j])
        ]
        first = sorted(allowed, key=lambda i: (-expected[i, j], i))[:top]
        missing = top - len(first)
        assert found.train_index[j].tolist() == first + missing * [-1]
        np.testing.assert_array_equal(found.influence[j], [*expected[first, j], *missing * [np.nan]])
        np.testing.assert_allclose(found.influence_se[j], [*errors[first, j], *missing * [np.nan]], rtol=1e-12)


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_each_pair_is_in_one_part(seed: int, same_class: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, int(rng.integers(1, 50))), rng.integers(2, 9, int(rng.integers(1, 30)))
    work, size = int(rng.integers(1, 4000)), int(rng.integers(1, 400))
    parts = parts_of(7, *labels, same_class=same_class, part_work=work, part_bytes=size)
    visits = np.zeros((len(labels[0]), len(labels[1])), int)
    for part in parts:
        train, test = (samples_at(by_class(of), places) for of, places in zip(labels, part, strict=True))
        visits[np.ix_(train, test)] += 1
        assert 7 * len(train) * len(test) <= max(work, 7)
        assert 7 * (len(train) + len(test)) <= max(size, 14)
    of_one_class = labels[0][:, None] == labels[1]
    assert visits.max(initial=0) <= 1
    assert (visits[of_one_class] == 1).all()
    assert same_class or visits.all()
    assert num_pairs(*labels, same_class=same_class) == (of_one_class.sum() if same_class else visits.size)


def test_small_classes_are_one_part() -> None:
    """ImageNet: 1000 classes of 1280 and of 50, with 2000 trials."""
    labels = np.repeat(np.arange(1000), 1280), np.repeat(np.arange(1000), 50)
    parts = parts_of(2000, *labels, same_class=True)
    assert len(parts) < 60
    assert all(train[0] % 1280 == test[0] % 50 == 0 for train, test in parts)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "wanted",
    [WANTED, replace(WANTED, within_class=False), replace(WANTED, same_class=False, top=None, tested=())],
    ids=["one class", "both", "all pairs"],
)
def test_parts_in_any_order_give_what_one_pass_gives(seed: int, wanted: Wanted) -> None:
    """To the last bit, with ties at the places where lists are cut off."""
    study = random_study(seed)
    mask, test_correct, labels = (
        study["mask"][:12],
        study["test_correct"][:12],
        (
            study["train_labels"],
            study["test_labels"],
        ),
    )
    atypical = np.random.default_rng(seed).random(60) < 0.5
    whole = find_influences(wanted, mask, test_correct, *labels, atypical)
    parts = parts_of(12, *labels, same_class=wanted.only_same_class, part_work=300, part_bytes=300)
    assert len(parts) > 5
    gathered, orders = Gathered(wanted, 25), tuple(map(by_class, labels))
    for number in np.random.default_rng(seed).permutation(len(parts)):
        train, test = (samples_at(order, places) for order, places in zip(orders, parts[number], strict=True))
        of_part = labels[0][train], labels[1][test], atypical[train]
        found = find_influences(wanted, mask[:, train], test_correct[:, test], *of_part, block_bytes=1)
        gathered.add(Influences.of(found.arrays()), train, test)
    np.testing.assert_equal(gathered.found().arrays(), whole.arrays())
    assert whole.pairs.num_found > 15  # more than are kept
