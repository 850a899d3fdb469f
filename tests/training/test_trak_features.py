"""TRAK's features of a network for which they are known in closed form: logistic regression."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bat_dist.data.loaders import Batch
from bat_dist.training.trak_features import projected_dim, trak_row

pytest.importorskip("trak", reason="traker is not installed: the extra attribution brings it")
TRAIN, WEIGHTS, DIM = 40, 12, 4
RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.normal(size=(TRAIN, 3, 2, 2)), "test": np.eye(WEIGHTS).reshape(WEIGHTS, 3, 2, 2)}
LABELS = {"train": np.arange(TRAIN) % 2, "test": np.ones(WEIGHTS, int)}


class Logistic(nn.Module):
    """Logits (0, w x): the margin of the own class is w x or - w x, and its gradient x or - x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(RNG.normal(size=WEIGHTS), dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        one = images.flatten(start_dim=1) @ self.weight
        return torch.stack([torch.zeros_like(one), one], dim=1)


class Loader:
    """A split in an order of its own."""

    def __init__(self, split: str, order: np.ndarray) -> None:
        self._images, self._labels = torch.tensor(IMAGES[split]).float(), torch.tensor(LABELS[split])
        self._order = torch.tensor(order)

    def eval_epoch(self, indices: Any = None, *, batch_size: int) -> Iterator[Batch]:
        for part in self._order.split(9):
            yield Batch(self._images[part], self._labels[part], part)


def row_of(network: nn.Module, *, reverse: bool = False, member: int = 0, dim: int = DIM) -> dict[str, np.ndarray]:
    loaders = [Loader(split, np.arange(len(LABELS[split]))[:: -1 if reverse else 1].copy()) for split in IMAGES]
    return trak_row(network, *loaders, dim=dim, member=member)  # pyright: ignore[reportArgumentType]


def test_features_leverage_and_out_to_loss_are_those_of_the_closed_form() -> None:
    """The test images are unit vectors, so that their projected gradients are the projection itself.

    traker divides the inverse by the mean of its absolute values.
    """
    network = Logistic()
    row = row_of(network)
    projection = row["trak_test_gradients"].astype(float)
    assert 0.6 < projection.std() * np.sqrt(WEIGHTS) < 1.4
    phi = IMAGES["train"].reshape(TRAIN, WEIGHTS) * np.where(LABELS["train"] == 1, 1, -1)[:, None]
    projected = phi @ projection
    inverse = np.linalg.inv(projected.T @ projected)
    features = projected @ inverse / np.abs(inverse).mean()
    np.testing.assert_allclose(row["trak_features"], features, rtol=1e-3, atol=1e-4 * np.abs(features).max())
    np.testing.assert_allclose(row["trak_leverage"], (features * projected).sum(axis=1), rtol=1e-3)
    margin = phi @ network.weight.detach().numpy()
    np.testing.assert_allclose(row["trak_out_to_loss"], 1 - 1 / (1 + np.exp(-margin)), rtol=1e-4, atol=1e-6)


def test_rows_are_in_the_order_of_the_split() -> None:
    network = Logistic()
    one, other = row_of(network), row_of(network, reverse=True)
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-3, atol=1e-3 * np.abs(values).max())


def test_each_member_has_a_projection_of_its_own_and_the_same_one_again() -> None:
    network = Logistic()
    first, again, second = (row_of(network, member=k)["trak_test_gradients"] for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, second)


def test_more_directions_than_weights_are_no_error() -> None:
    assert np.isfinite(row_of(Logistic(), dim=WEIGHTS + 3)["trak_leverage"]).all()


@pytest.mark.parametrize(("samples", "dim"), [(50_000, 512), (1000, 250), (3, 1)])
def test_directions_are_a_quarter_of_the_samples_at_most(samples: int, dim: int) -> None:
    assert projected_dim(samples) == dim
