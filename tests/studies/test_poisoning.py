"""Poisoning scores: against loops over the classes, and a sample that was labelled wrong on purpose."""

from typing import Any

import numpy as np
import pytest

from bat_dist.artifacts.scores import write_indices
from bat_dist.data.datasets import Dataset, Split, fingerprint, load_dataset
from bat_dist.studies.poisoning import (
    PoisoningSamples,
    likeliest_other,
    nearest_typical,
    poisoning_samples,
    poisoning_score,
)


def softmax_outputs(samples: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), samples).astype(np.float32)


def outputs(index: np.ndarray, classes: int, seeds: int = 2) -> list[dict[str, np.ndarray]]:
    return [
        {
            "train_index": index,
            "train_clean": softmax_outputs(len(index), classes, seed),
            "train_attacked": softmax_outputs(len(index), classes, 100 + seed),
        }
        for seed in range(seeds)
    ]


def test_score_and_class_are_those_of_a_loop_over_the_wrong_classes() -> None:
    probs, labels = softmax_outputs(40, 5, 0), np.random.default_rng(1).integers(5, size=40)
    for i, (row, label) in enumerate(zip(probs, labels, strict=True)):
        wrong = {t: p for t, p in enumerate(row) if t != label}
        assert poisoning_score(probs, labels)[i] == max(wrong.values())
        assert likeliest_other(probs, labels)[i] == max(wrong, key=lambda t: wrong[t])


def test_the_other_class_is_never_the_given_one_even_if_that_has_all_the_probability() -> None:
    probs = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    assert likeliest_other(probs, np.array([0, 2])).tolist() == [1, 0]
    assert poisoning_score(probs, np.array([0, 2])).tolist() == [0, 0]


def test_samples_are_ranked_by_the_mean_over_seeds_and_keep_what_belongs_to_them() -> None:
    index, labels = np.arange(3, 90, 4), np.random.default_rng(2).integers(6, size=100)
    given = outputs(index, 6, seeds=3)
    found = poisoning_samples(given, labels, most=5)
    assert (np.diff(found.q) <= 0).all()
    assert sorted(found.index) == index.tolist()
    for row, sample in enumerate(found.index):
        at = index.tolist().index(sample)
        assert found.y1[row] == labels[sample]
        wrong = np.arange(6) != labels[sample]
        np.testing.assert_allclose(found.scores[row], [one["train_attacked"][at][wrong].max() for one in given])
        mean = np.mean([one["train_clean"][at] for one in given], axis=0)
        assert found.y2[row] == np.where(wrong, mean, -1).argmax()
    assert found.of.tolist() == ["high"] * 5 + ["neither"] * (len(index) - 10) + ["low"] * 5


@pytest.mark.parametrize(("samples", "most", "each"), [(10, 5, 5), (11, 200, 5), (10, 200, 5), (2, 2, 1), (30, 3, 3)])
def test_fewer_samples_than_asked_for_are_halved(samples: int, most: int, each: int) -> None:
    found = poisoning_samples(outputs(np.arange(samples), 4), np.zeros(samples, np.int64), most)
    assert (found.members("high").sum(), found.members("low").sum()) == (each, each)
    assert found.members("high")[:each].all()
    assert found.members("low")[-each:].all()


def test_equal_scores_stand_in_the_order_of_the_data() -> None:
    given = outputs(np.arange(8), 2, seeds=1)
    given[0]["train_attacked"] = np.full((8, 2), 0.5, np.float32)
    assert poisoning_samples(given, np.zeros(8, np.int64), 2).index.tolist() == list(range(8))


def test_what_cannot_be_ranked() -> None:
    labels = np.zeros(9, np.int64)
    with pytest.raises(ValueError, match="two classes are needed, got 1"):
        poisoning_samples(outputs(np.arange(9), 1), labels, 2)
    for few in (0, 1):
        with pytest.raises(ValueError, match=f"two atypical samples are needed.*got {few}"):
            poisoning_samples(outputs(np.arange(few), 3), labels, 2)
    given = outputs(np.arange(9), 3)
    given[1]["train_index"] = np.arange(9)[::-1]
    with pytest.raises(ValueError, match="different samples"):
        poisoning_samples(given, labels, 2)


def test_the_nearest_image_is_that_of_a_loop_and_bytes_do_not_wrap_around() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 4, 5, 3), dtype=np.uint8)
    for image in rng.integers(0, 256, (10, 4, 5, 3), dtype=np.uint8):
        distances = [sum((int(a) - int(b)) ** 2 for a, b in zip(image.flat, one.flat, strict=True)) for one in images]
        assert nearest_typical(image, images) == int(np.argmin(distances))
    black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    assert nearest_typical(black, np.stack([white, black + 9])) == 1  # as bytes 255 would be 1 away from 0


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[PoisoningSamples, dict[int, int]]:
    """A PGD-AT network without 30 samples of digits, of which 3 are labelled as another class."""
    from bat_dist.jobs.study import write_outputs
    from bat_dist.jobs.train import carry_out
    from bat_dist.jobs.training_plan import make_plan
    from bat_dist.settings.train import TrainSettings
    from bat_dist.storage.files import Folder

    place = tmp_path_factory.mktemp("planted")
    size: dict[str, Any] = {"num_train": 800, "num_test": 50}
    clean = load_dataset("digits", **size)
    left_out = np.sort(np.random.default_rng(0).choice(800, 30, replace=False))
    labels, true = clean.train.labels.copy(), {}
    for at in left_out[[4, 11, 25]]:
        true[int(at)] = int(labels[at])
        labels[at] = (labels[at] + 5) % 10
    train = Split(clean.train.images, labels, clean.train.ids)
    dataset = Dataset(
        clean.name, train, clean.test, clean.class_names, fingerprint(train, clean.test), clean.spec
    ).augmented(0, False)
    folder = Folder(str(place))
    write_indices(folder, "kept.npz", np.setdiff1d(np.arange(800), left_out), dataset.fingerprint)
    sets: Any = {f"{split}_{kind}": np.ones(n, bool) for split, n in (("train", 800), ("test", 50)) for kind in KINDS}
    np.savez(place / "sets.npz", **sets, fingerprint=np.array(dataset.fingerprint))
    asked: dict[str, Any] = {
        **{"dataset": "digits", "method": "pgd_at", "arch": "tinynet", "recipe": "fast", "epochs": 8, "lr": 0.1},
        **{"num_steps": 1, "batch_size": 32, "precision": "fp32", "loader": "memory", "num_val": 20, **size},
        **{"crop_padding": 0, "watch": str(place / "sets.npz"), "watch_every": 8, "watch_steps": 3},
    }
    plan = make_plan(dataset, TrainSettings(**asked, train_subset=str(place / "kept.npz"), out=str(place / "run")))
    carry_out(plan)
    write_outputs(plan, left_out)
    return poisoning_samples([(folder / "run").read_npz("outputs.npz")], labels, most=3), true


KINDS = ("typical", "atypical")


def test_samples_that_are_labelled_wrong_have_the_highest_scores(
    planted: tuple[PoisoningSamples, dict[int, int]],
) -> None:
    found, true = planted
    assert set(found.index[:3].tolist()) == set(true)
    assert (found.q[:3] > 0.8).all()  # as those of Fig. 3
    assert found.of[:3].tolist() == ["high"] * 3
    for at in range(3):
        assert found.y2[at] == true[int(found.index[at])]


def test_the_outputs_tell_of_the_samples_that_were_asked_for(
    planted: tuple[PoisoningSamples, dict[int, int]],
) -> None:
    found, _ = planted
    assert sorted(found.index) == np.sort(np.random.default_rng(0).choice(800, 30, replace=False)).tolist()
