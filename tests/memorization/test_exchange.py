"""Feldman and Zhang's file: their keys, a round trip, refusal of what is damaged or another dataset's."""

import io

import numpy as np
import pytest

from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.exchange import FeldmanZhang, feldman_zhang, load_feldman_zhang, save_feldman_zhang


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    mask = rng.random((60, 30)) < 0.7
    train_labels, test_labels = rng.integers(3, size=30), rng.integers(3, size=12)
    train_labels[4] = 5  # a class without test samples
    train_correct = rng.random((60, 30)) < 0.8
    mem = estimate_memorization(mask, train_correct).mem
    return mem, mask, rng.random((60, 12)) < 0.8, train_labels, test_labels


@pytest.fixture
def arrays(trials):
    """The content of a good file."""
    with np.load(saved(feldman_zhang(*trials))) as file:
        return dict(file)


def saved(scores):
    file = io.BytesIO()
    save_feldman_zhang(file, scores)
    file.seek(0)
    return file


def zipped(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    return file


def test_round_trip(trials):
    written = feldman_zhang(*trials)
    read = load_feldman_zhang(saved(written), train_labels=trials[3], test_labels=trials[4])
    for name in ("mem", "train_labels", "test_labels"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.influence.keys() == written.influence.keys() == {0, 1, 2, 5}
    for label, matrix in written.influence.items():
        np.testing.assert_array_equal(read.influence[label], matrix)
    assert read.influence[5].shape == (1, 0)


def test_keys_and_content_are_theirs(trials, arrays):
    mem, mask, test_correct, train_labels, test_labels = trials
    expected = {"tr_mem", "tr_labels", "tt_labels"}
    for label in (0, 1, 2, 5):
        expected |= {f"tr_classidx_{label}", f"tt_classidx_{label}", f"infl_matrix_class{label}"}
    assert arrays.keys() == expected
    np.testing.assert_array_equal(arrays["tr_mem"], mem)
    for a, i in enumerate(arrays["tr_classidx_1"]):
        for b, j in enumerate(arrays["tt_classidx_1"]):
            assert train_labels[i] == test_labels[j] == 1
            influence = test_correct[mask[:, i], j].mean() - test_correct[~mask[:, i], j].mean()
            np.testing.assert_allclose(arrays["infl_matrix_class1"][a, b], influence, atol=1e-7)


def test_index_of_a_class_names_rows_and_columns(trials):
    scores = feldman_zhang(*trials)
    for label in scores.classes:
        assert scores.influence[label].shape == (
            len(scores.train_index(label)),
            len(scores.test_index(label)),
        )


def test_undefined_values_travel_only_when_allowed(trials):
    mem, mask, *rest = trials
    mask[:, 7] = True
    mem[7] = np.nan
    scores = feldman_zhang(mem, mask, *rest)
    with pytest.raises(ValueError, match=r"tr_mem has 1 undefined values \(NaN\): allow_undefined=True"):
        load_feldman_zhang(saved(scores))
    read = load_feldman_zhang(saved(scores), allow_undefined=True)
    np.testing.assert_array_equal(np.isnan(read.mem), np.arange(30) == 7)


def test_a_path_works_like_a_file(trials, tmp_path):
    save_feldman_zhang(tmp_path / "feldman_zhang.npz", feldman_zhang(*trials))
    assert load_feldman_zhang(tmp_path / "feldman_zhang.npz").classes == [0, 1, 2, 5]
    with pytest.raises(FileNotFoundError):
        load_feldman_zhang(tmp_path / "absent.npz")


def without(key):
    return lambda arrays: arrays.pop(key)


def put(key, change):
    return lambda arrays: arrays.update({key: change(arrays[key])})


def set_first(value):
    def change(array):
        array = array.copy()
        array.flat[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("tr_mem"), "key tr_mem is missing: a Feldman-Zhang file holds tr_mem, tr_labels"),
        (without("tt_labels"), "key tt_labels is missing"),
        (without("tt_classidx_2"), "key tt_classidx_2 is missing"),
        (without("infl_matrix_class0"), "key infl_matrix_class0 is missing"),
        (
            put("tr_mem", lambda a: a[:-1]),
            r"tr_mem must be floating point of shape \(30,\), got float64 of shape \(29,\)",
        ),
        (put("tr_mem", lambda a: a.astype(int)), "tr_mem must be floating point"),
        (put("tr_mem", set_first(np.nan)), r"tr_mem has 1 undefined values \(NaN\)"),
        (put("tr_mem", set_first(np.inf)), r"tr_mem must be in \[-1, 1\]"),
        (put("infl_matrix_class1", set_first(np.nan)), r"infl_matrix_class1 has 1 undefined values \(NaN\)"),
        (put("infl_matrix_class1", set_first(-1.5)), r"infl_matrix_class1 must be in \[-1, 1\]"),
        (put("infl_matrix_class1", np.transpose), r"infl_matrix_class1 must be floating point of shape"),
        (put("tr_classidx_1", lambda a: a[::-1]), "tr_classidx_1 is not sorted"),
        (put("tr_classidx_1", lambda a: a + 1), r"tr_classidx_1 must be the \d+ samples with that label"),
        (put("tt_classidx_1", lambda a: a[:-1]), r"tt_classidx_1 must be the \d+ samples with that label"),
        (
            put("tr_labels", lambda a: a.astype(float)),
            "tr_labels must be whole numbers, one per sample, got float64",
        ),
        (put("tr_labels", lambda a: a[:0]), "tr_labels must be whole numbers, one per sample"),
    ],
)
def test_damaged_content_is_refused(arrays, damage, message):
    damage(arrays)
    with pytest.raises(ValueError, match=message):
        load_feldman_zhang(zipped(arrays))


def test_another_dataset_or_order_is_refused(trials):
    file, labels = saved(feldman_zhang(*trials)), trials[3]
    swapped = labels.copy()
    swapped[[4, 6]] = swapped[[6, 4]]
    with pytest.raises(
        ValueError, match=r"differs from the dataset's labels at 2 of 30 samples, first at 4.*another order"
    ):
        load_feldman_zhang(file, train_labels=swapped)
    file.seek(0)
    with pytest.raises(ValueError, match="tt_labels has 12 samples, the dataset 11: the file is of another set"):
        load_feldman_zhang(file, test_labels=trials[4][:-1])


def pickled(path):
    np.savez(path, tr_mem=np.array([{"a": 1}], dtype=object))


def single(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def truncated(path):
    np.savez(path, tr_mem=np.zeros(1000))
    path.write_bytes(path.read_bytes()[:3000])


def flipped(path):
    np.savez_compressed(path, tr_mem=np.random.default_rng(0).random(1000))
    content = bytearray(path.read_bytes())
    content[2000:2010] = bytes(10)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        pickled,
        single,
        truncated,
        flipped,
        lambda path: path.write_text("mem"),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, write):
    path = tmp_path / "scores.npz"
    write(path)
    with pytest.raises(ValueError, match=r"scores\.npz is not an npz of plain arrays"):
        load_feldman_zhang(path)


def test_bad_input_to_export_is_refused(trials):
    mem, mask, test_correct, train_labels, test_labels = trials
    with pytest.raises(ValueError, match=r"train_labels must have shape \(30,\), got \(29,\)"):
        feldman_zhang(mem, mask, test_correct, train_labels[1:], test_labels)
    with pytest.raises(ValueError, match=r"mem must have shape \(30,\), got \(29,\)"):
        feldman_zhang(mem[1:], mask, test_correct, train_labels, test_labels)


def test_pairs_above_a_threshold_are_those_of_a_loop_over_all() -> None:
    generator = np.random.default_rng(3)
    labels, others = np.array([0, 1, 0, 1, 1]), np.array([1, 0, 1])
    matrices = {0: generator.random((2, 1), np.float32), 1: generator.random((3, 2), np.float32)}
    matrices[1][0, 0] = np.nan
    found = FeldmanZhang(np.zeros(5), labels, others, matrices)
    for threshold in (-np.inf, *np.linspace(0, 1, 11)):
        wanted = []
        for label, matrix in matrices.items():
            for i, train in enumerate(np.flatnonzero(labels == label).tolist()):
                for j, test in enumerate(np.flatnonzero(others == label).tolist()):
                    if matrix[i, j] > threshold:
                        wanted.append((-matrix[i, j], train, test))
        pairs = found.pairs_above(threshold)
        got = zip(-pairs.influence, pairs.train_index.tolist(), pairs.test_index.tolist(), strict=True)
        assert list(got) == sorted(wanted)
        assert pairs.num_found == len(wanted)
        assert np.isnan(pairs.influence_se).all()
