"""Theorems 1 and 2: the closed forms against all models on a fine circle, and what is known of the claims."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from bat_dist.studies.theory import (
    TwoGaussians,
    best_error,
    best_margin,
    best_robust_error,
    check_theorem_1,
    check_theorem_2,
    paper_models,
    smallest_epsilon,
)

ANGLES = np.linspace(0, 2 * np.pi, 20001)
W = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)


def fits(w: np.ndarray, b: np.ndarray, x0: np.ndarray, radius: float = 0.0) -> np.ndarray:
    """Whether models classify all of the ball around x0 as -1, but for rounding."""
    return (w * x0).sum(-1) + b + radius <= 1e-9


def proof_fails_at(data: TwoGaussians, x0: np.ndarray) -> np.ndarray:
    """Whether none of the three models of the proof fits x0."""
    w, b = paper_models(data)
    return ~np.any([fits(one, offset, x0) for one, offset in zip(w, b, strict=True)], axis=0)


def some_samples(number: int) -> np.ndarray:
    return np.random.default_rng(0).uniform([-3, -2], [1, 2], (number, 2))


@pytest.mark.parametrize("sigma", [0.1, 0.4])
def test_the_best_model_is_the_best_of_all_directions(sigma: float) -> None:
    """For each direction the best offset is 0, or what x0 allows: the two errors only move against each other."""
    data, x0 = TwoGaussians(1.0, sigma), some_samples(50)
    offset = np.minimum(0, -x0 @ W.T)
    errors = np.maximum(*data.errors(W[None], offset))
    assert (best_error(data, x0) <= errors.min(axis=1) + 1e-12).all()
    np.testing.assert_allclose(best_error(data, x0), errors.min(axis=1), atol=5e-5)  # between two of the directions


def test_errors_are_those_of_samples() -> None:
    data, rng = TwoGaussians(1.0, 0.5), np.random.default_rng(0)
    w, b = np.array([0.6, 0.8]), -0.1
    noise = rng.normal(0, data.sigma, (200_000, 2))
    wrong_minus = ((noise - data.theta) @ w + b > 0).mean()
    wrong_plus = ((noise + data.theta) @ w + b <= 0).mean()
    np.testing.assert_allclose(
        [one.item() for one in data.errors(w, np.array(b))], [wrong_minus, wrong_plus], atol=0.004
    )


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 0.7])
def test_the_best_robust_model_is_the_best_of_all_directions(epsilon: float) -> None:
    data, x0 = TwoGaussians(1.0, 0.3), some_samples(50)
    _, errors = data.errors(W[None], -x0 @ W.T - epsilon)  # the largest offset that fits the ball is best for class +1
    np.testing.assert_allclose(best_robust_error(data, x0, epsilon), errors.min(axis=1), atol=1e-6)


def test_half_of_the_class_is_lost_from_the_distance_to_its_centre_on() -> None:
    data, x0 = TwoGaussians(1.0, 0.3), some_samples(20)
    np.testing.assert_allclose(best_robust_error(data, x0, smallest_epsilon(data, x0)), 0.5)


def test_the_models_of_the_proof_err_on_one_percent_at_most() -> None:
    data = TwoGaussians(2.0, 0.5)
    w, b = paper_models(data)
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1)
    minus, plus = data.errors(w, b)
    np.testing.assert_allclose(plus, 0.01)
    np.testing.assert_allclose(minus, [ndtr(-(2 * data.eta - data.tau) / data.sigma), 0.01, 0.01])


def test_the_distance_l_is_that_of_the_corner_in_the_proof() -> None:
    """S1: where the boundaries of two of the three models meet."""
    data = TwoGaussians(1.0, 0.2)
    p = data.eta - data.tau
    q = -data.tau * p / np.sqrt(data.eta**2 - data.tau**2)
    corner = np.array([p, q])
    w, b = paper_models(data)
    np.testing.assert_allclose([w[0] @ corner + b[0], w[1] @ corner + b[1]], 0, atol=1e-12)
    assert data.closest == pytest.approx(np.linalg.norm(corner - data.theta))
    assert best_margin(data, corner) > data.tau  # other models are better than these three: l is not the smallest


def test_theorem_1_holds_where_eta_is_large_and_fails_where_it_is_small() -> None:
    for ratio in (4, 6, 10, 50):
        found = check_theorem_1(ratio, points=101)
        assert found.num_points > 1000
        assert len(found.violated) == 0
    found = check_theorem_1(3, points=201)
    x, y, distance, error = found.violated[0]
    data = TwoGaussians(1.0, 1 / 3)
    assert (found.violated[:, 2] >= 1).all()
    assert error == found.violated[:, 3].max() > 0.01
    errors = np.maximum(*data.errors(W, np.minimum(0, -W @ [x, y])))
    assert errors.min() == pytest.approx(error, abs=5e-5)  # no model at all does it
    assert np.hypot(x + 1, y) <= 2
    assert np.hypot(x - 1, y) == pytest.approx(distance * data.closest)


def test_what_theorem_1_needs_is_less_than_it_asks_for() -> None:
    """For well-separated classes x0 may lie at any distance over tau: the best model looks from there to the centre."""
    found = check_theorem_1(50, points=401)
    data = TwoGaussians(1.0, 1 / 50)
    assert data.tau / data.closest * 0.9 < found.needed <= data.tau / data.closest
    assert check_theorem_1(3, points=201).needed > 1


def test_where_the_theorem_fails_its_proof_does() -> None:
    data = TwoGaussians(1.0, 1 / 3)
    bad = check_theorem_1(3, points=201).violated[:, :2]
    assert proof_fails_at(data, bad).all()
    assert not proof_fails_at(data, np.array([[-1.0, 0.0]])).any()


@pytest.mark.parametrize(("ratio", "k"), [(5, 1.5), (10, 2), (3, 1.2)])
def test_theorem_2_holds(ratio: float, k: float) -> None:
    found = check_theorem_2(ratio, k, points=101)
    assert found.num_points > 50
    assert len(found.violated) == 0


def test_theorem_2_asks_for_no_more_than_its_farthest_sample_needs() -> None:
    """A radius of its distance costs a sample half of class +1, and any smaller one less."""
    data, found = TwoGaussians(1.0, 1 / 5), check_theorem_2(5, 1.5, points=401)
    assert 1.499 < found.needed < 1.5
    x0 = np.array([1 - found.needed * data.closest, 0.0])
    assert best_robust_error(data, x0, found.needed * data.closest).item() == pytest.approx(0.5)
    assert best_robust_error(data, x0, 1.499 * data.closest).item() < 0.5


def test_a_model_fits_a_ball_if_it_fits_its_farthest_point() -> None:
    w, b, x0 = np.array([0.6, 0.8]), np.array(-1.0), np.array([0.1, 0.2])
    room = float(-(w @ x0 + b))
    assert fits(w, b, x0, room - 1e-6)
    assert not fits(w, b, x0, room + 1e-6)


@pytest.mark.parametrize(("eta", "sigma"), [(0, 1), (1, -1), (float("nan"), 1), (1, float("inf"))])
def test_numbers_that_are_no_data(eta: float, sigma: float) -> None:
    with pytest.raises(ValueError, match="must be positive numbers"):
        TwoGaussians(eta, sigma)


def test_no_models_where_the_classes_overlap_too_much() -> None:
    with pytest.raises(ValueError, match=r"at least 2\.326"):
        paper_models(TwoGaussians(1.0, 1 / float(ndtri(0.99)) + 0.01))
