"""How far apart classes lie: scikit-learn and direct loops are the truth."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bat_dist.studies.separation import (
    FOLDS,
    MEASURES,
    distance_ratio,
    principal_plane,
    probe_accuracy,
    silhouette,
    stratified_folds,
)


def some_features(number: int, classes: int, *, dimensions: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes; one dimension is constant, as the output of a unit that never fires."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, number) * 3  # with gaps between their numbers
    features = rng.normal(0, 1, (number, dimensions)) + rng.normal(0, 1, (30, dimensions))[labels]
    features[:, -1] = 0
    return features.astype(np.float32), labels


def test_the_ratio_of_distances_by_hand() -> None:
    """Classes at 0 and 10, whose samples lie 1 and 3 from their centroids: 10 / 2."""
    features = np.array([[-1.0, 0], [1, 0], [10, 3], [10, -3]])
    assert distance_ratio(features, np.array([0, 0, 1, 1])) == pytest.approx(5)


def test_the_ratio_of_distances_by_loops() -> None:
    features, labels = some_features(80, 4)
    centroids = {label: features[labels == label].mean(axis=0) for label in set(labels.tolist())}
    between = [np.linalg.norm(centroids[a] - centroids[b]) for a, b in combinations(centroids, 2)]
    within = [np.linalg.norm(x - centroids[label]) for x, label in zip(features, labels.tolist(), strict=True)]
    assert distance_ratio(features, labels) == pytest.approx(np.mean(between) / np.mean(within), rel=1e-5)


@pytest.mark.parametrize(("number", "classes"), [(60, 2), (120, 7), (25, 9)])
def test_the_silhouette_is_scikit_learns(number: int, classes: int) -> None:
    """The last case has classes of a single sample."""
    features, labels = some_features(number, classes)
    assert silhouette(features, labels) == pytest.approx(silhouette_score(features, labels), abs=1e-5)


def test_the_silhouette_of_many_is_that_of_a_fixed_part() -> None:
    features, labels = some_features(200, 3)
    part = np.random.default_rng(0).choice(200, 50, replace=False)
    assert silhouette(features, labels, most=50) == pytest.approx(silhouette_score(features[part], labels[part]))
    assert silhouette(features, labels, most=50) == silhouette(features, labels, most=50)
    assert silhouette(features, labels, most=50) != silhouette(features, labels, most=50, seed=1)


def test_samples_on_one_point_have_no_silhouette_but_zero() -> None:
    assert silhouette(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == 0


@pytest.mark.parametrize("classes", [2, 5])
def test_the_probe_is_scikit_learns_ridge_classifier(classes: int) -> None:
    features, labels = some_features(150, classes)
    folds, right = stratified_folds(np.unique(labels, return_inverse=True)[1], seed=0), []
    for fold in range(FOLDS):
        held = folds == fold
        truth = make_pipeline(StandardScaler(), RidgeClassifier(alpha=1.0, solver="cholesky"))
        right += list(truth.fit(features[~held].astype(float), labels[~held]).predict(features[held]) == labels[held])
    assert 0.5 < np.mean(right) < 1
    assert probe_accuracy(features, labels) == pytest.approx(np.mean(right))


def test_each_class_is_in_all_folds_as_often() -> None:
    labels = np.repeat(np.arange(4), [10, 15, 5, 7])
    folds = stratified_folds(labels, seed=3)
    for label in range(4):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    assert (folds != stratified_folds(labels, seed=4)).any()


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_does_not_depend_on_scale_place_and_rotation(name: str) -> None:
    features, labels = some_features(90, 3)
    features = features[:, :-1].astype(float)
    found = MEASURES[name](features, labels)
    assert MEASURES[name](7 * features - 2, labels) == pytest.approx(found)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    if name != "linear_probe":  # which scales each feature by itself
        assert MEASURES[name](features @ rotation, labels) == pytest.approx(found)


@pytest.mark.parametrize("name", MEASURES)
def test_one_class_cannot_be_told_apart(name: str) -> None:
    features, _ = some_features(20, 2)
    assert np.isnan(MEASURES[name](features, np.zeros(20, int)))


def test_undefined_for_too_few_or_equal_samples() -> None:
    assert np.isnan(probe_accuracy(np.eye(4), np.array([0, 0, 1, 1])))
    assert np.isnan(distance_ratio(np.array([[0.0], [0], [1]]), np.array([0, 0, 1])))


def test_the_plane_is_that_of_scikit_learns_pca() -> None:
    features, _ = some_features(70, 3)
    points, explained = principal_plane(features)
    truth = PCA(2).fit(features.astype(float))
    np.testing.assert_allclose(np.abs(points), np.abs(truth.transform(features.astype(float))), atol=1e-9)
    np.testing.assert_allclose(explained, truth.explained_variance_ratio_)
    negated, _ = principal_plane(-features)
    np.testing.assert_allclose(negated, -points, atol=1e-9)  # the axes stay: their largest loading is positive
    with pytest.raises(ValueError, match="two samples and two features"):
        principal_plane(features[:, :1])
