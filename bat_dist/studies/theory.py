"""Theorems 1 and 2 (Sec. 3.2, Appendix C), checked on a grid of atypical samples.

Two classes in the plane, x ~ N(y theta, sigma^2 I) with theta = (eta, 0) and y = -1 or +1, and one atypical sample x0
that is labelled -1.  Linear models sign(w.x + b) with |w| = 1.  With tau = Phi^-1(0.99) sigma the paper defines
l = sqrt(2) tau (1 + tau / eta)^(-1/2) and claims, for x0 at most 2 eta from the centre of class -1:

    Theorem 1   If x0 is at least l from the centre of class +1, a model fits x0 and errs on at most 1% of each class:
                one of the three of `paper_models`.
    Theorem 2   If x0 is at least l and less than k l from that centre, any model that fits the ball of radius
                epsilon >= k l around x0 errs on at least 50% of class +1.

Both have closed forms, which are ours.  A model has the margins w.theta + b of class +1 and w.theta - b of class -1,
and fits the ball if w.x0 + b <= -epsilon.  Under this condition no model has a smaller margin, of its two, that is
larger than the largest value of min(w.theta, w.(theta - x0) - epsilon), and b = min(0, -w.x0 - epsilon) reaches it.
For epsilon = 0 that is the distance from the origin to the segment between theta and theta - x0 (minimax theorem).
For class +1 alone it is |theta - x0| - epsilon.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri

BEST, HALF = 0.01, 0.5  # errors of Theorem 1 (at most) and of Theorem 2 (at least)
ROUNDING = 1e-9  # of a margin, in units of eta
POINTS_PER_AXIS = 401  # of the grid of samples

Points = Float[np.ndarray, "*batch 2"]
Values = Float[np.ndarray, "*batch"]


@dataclass(frozen=True)
class TwoGaussians:
    """The data of Eq. 4.  eta: half the distance of the centres. sigma: the standard deviation in each direction."""

    eta: float
    sigma: float

    def __post_init__(self) -> None:
        if not (self.eta > 0 and self.sigma > 0 and np.isfinite([self.eta, self.sigma]).all()):
            raise ValueError(f"eta and sigma must be positive numbers, got {self.eta} and {self.sigma}")

    @property
    def theta(self) -> Float[np.ndarray, "2"]:
        """The centre of class +1."""
        return np.array([self.eta, 0.0])

    @property
    def tau(self) -> float:
        """The margin of a class of which 1% is classified wrong."""
        return float(ndtri(1 - BEST)) * self.sigma

    @property
    def closest(self) -> float:
        """The distance l of both theorems."""
        return float(np.sqrt(2) * self.tau / np.sqrt(1 + self.tau / self.eta))

    def distances(self, x0: Points) -> tuple[Values, Values]:
        """How far x0 lies from the centres of class -1 and class +1."""
        return np.linalg.norm(x0 + self.theta, axis=-1), np.linalg.norm(x0 - self.theta, axis=-1)

    def errors(self, w: Points, b: Values) -> tuple[Values, Values]:
        """Which share of class -1 and of class +1 models sign(w.x + b) with |w| = 1 classify wrong."""
        along = w @ self.theta
        return ndtr(-(along - b) / self.sigma), ndtr(-(along + b) / self.sigma)


def paper_models(data: TwoGaussians) -> tuple[Float[np.ndarray, "3 2"], Float[np.ndarray, "3"]]:
    """w and b of the three models in the proof of Theorem 1.  Raises ValueError where tau > eta: there are none."""
    tau, eta = data.tau, data.eta
    if tau > eta:
        raise ValueError(f"the models of Theorem 1 need eta / sigma of at least {ndtri(1 - BEST):.3f}")
    across = np.sqrt(eta**2 - tau**2) / eta
    return np.array([[1.0, 0.0], [tau / eta, across], [tau / eta, -across]]), np.array([tau - eta, 0.0, 0.0])


def best_margin(data: TwoGaussians, x0: Points) -> Values:
    """The largest smaller margin of any model that fits x0; 0 where each errs on at least half of a class."""
    start, end = np.broadcast_to(data.theta, x0.shape), data.theta - x0
    step = end - start
    length = (step**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(length > 0, -(start * step).sum(-1) / length, 0.0)
    nearest = start + np.clip(share, 0.0, 1.0)[..., None] * step
    return np.linalg.norm(nearest, axis=-1)


def best_error(data: TwoGaussians, x0: Points) -> Values:
    """The error on the worse class, in [0, 1], of the best model that fits x0."""
    return ndtr(-best_margin(data, x0) / data.sigma)


def best_robust_error(data: TwoGaussians, x0: Points, epsilon: float | Values) -> Values:
    """The error on class +1, in [0, 1], of the model with the lowest one that fits the ball of radius epsilon."""
    _, to_plus = data.distances(x0)
    return ndtr(-(to_plus - epsilon) / data.sigma)


def smallest_epsilon(data: TwoGaussians, x0: Points) -> Values:
    """From which radius on every model that fits the ball around x0 errs on half of class +1: the distance to it."""
    return data.distances(x0)[1]


@dataclass(frozen=True)
class TheoremCheck:
    """What a grid of samples says of a theorem at one eta / sigma.

    num_points: samples that meet its conditions. violated: those where its claim is wrong, worst first, as rows of
    x0 in units of eta, the distance to class +1 in units of l, and the error that contradicts it.

    needed, in units of l: of Theorem 1 the distance that would be enough in place of l, the largest of a sample that no
    model fits so well; of Theorem 2 the radius that would be enough in place of k l, the largest that a sample needs.
    """

    theorem: int
    ratio: float  # eta / sigma
    k: float | None
    num_points: int
    violated: Float[np.ndarray, "violated 4"]
    needed: float = np.nan


def check_theorem_1(ratio: float, *, points: int = POINTS_PER_AXIS) -> TheoremCheck:
    """Is there, for each sample of a grid that meets the conditions, a model that fits it and errs on at most 1%?

    ratio: eta / sigma. points: of the grid, along each axis of the disc around the centre of class -1.
    The best of all linear models is taken, so that a violation is one of the theorem and not of its proof.
    """
    data = TwoGaussians(1.0, 1 / ratio)
    x0 = _disc(data, points)
    _, to_plus = data.distances(x0)
    hard = best_margin(data, x0) < data.tau - ROUNDING
    needed = float(to_plus[hard].max(initial=0.0) / data.closest)
    counted = to_plus >= data.closest
    found = _check(1, data, None, x0[counted], best_error(data, x0[counted]), hard[counted])
    return replace(found, needed=needed)


def check_theorem_2(ratio: float, k: float, *, points: int = POINTS_PER_AXIS) -> TheoremCheck:
    """Does every model that fits the ball of radius k l, around each sample of a grid, err on half of class +1?"""
    data = TwoGaussians(1.0, 1 / ratio)
    x0 = _disc(data, points)
    _, to_plus = data.distances(x0)
    x0 = x0[(to_plus >= data.closest) & (to_plus < k * data.closest)]
    epsilon, needed = k * data.closest, smallest_epsilon(data, x0)
    found = _check(2, data, k, x0, best_robust_error(data, x0, epsilon), needed > epsilon)
    return replace(found, needed=float(needed.max(initial=0.0) / data.closest))


def _disc(data: TwoGaussians, points: int) -> Points:
    """A grid over all x0 within 2 eta of the centre of class -1; the lower half is its mirror image."""
    x = np.linspace(-3 * data.eta, data.eta, points)
    y = np.linspace(0, 2 * data.eta, points)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid[data.distances(grid)[0] <= 2 * data.eta]


def _check(
    theorem: int, data: TwoGaussians, k: float | None, x0: Points, error: Values, wrong: Bool[np.ndarray, " points"]
) -> TheoremCheck:
    _, to_plus = data.distances(x0)
    rows = np.column_stack([x0 / data.eta, to_plus / data.closest, error])[wrong]
    worst_first = np.argsort(-rows[:, 3] if theorem == 1 else rows[:, 3], kind="stable")
    return TheoremCheck(theorem, data.eta / data.sigma, k, len(x0), rows[worst_first])
