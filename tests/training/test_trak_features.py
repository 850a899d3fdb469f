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
TRAIN, TEST, DIM = 40, 7, 12
RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.normal(size=(TRAIN, 3, 2, 2)), "test": RNG.normal(size=(TEST, 3, 2, 2))}
LABELS = {"train": np.arange(TRAIN) % 2, "test": np.arange(TEST) % 2}


class Logistic(nn.Module):
    """Logits (0, w x): the margin of the own class is w x or - w x, and its gradient x or - x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(RNG.normal(size=DIM), dtype=torch.float32))

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


def test_leverage_and_scores_are_those_of_the_closed_form() -> None:
    """With as many directions as weights the projection cancels: what is left is Phi (Phi^T Phi)^-1 Phi^T.

    traker scales the inverse, so that a factor is free.
    """
    network = Logistic()
    row = row_of(network)
    phi, psi = (
        IMAGES[split].reshape(-1, DIM) * np.where(LABELS[split] == 1, 1, -1)[:, None] for split in ("train", "test")
    )
    inverse = np.linalg.inv(phi.T @ phi)
    factor = row["trak_leverage"] / np.einsum("ij,jk,ik->i", phi, inverse, phi)
    np.testing.assert_allclose(factor, factor[0], rtol=2e-2)
    found = row["trak_features"] @ row["trak_test_gradients"].T
    np.testing.assert_allclose(found, factor[0] * phi @ inverse @ psi.T, rtol=2e-2, atol=2e-2 * np.abs(found).max())
    margin = phi @ network.weight.detach().numpy()
    np.testing.assert_allclose(row["trak_out_to_loss"], 1 - 1 / (1 + np.exp(-margin)), rtol=1e-4)


def test_rows_are_in_the_order_of_the_split() -> None:
    network = Logistic()
    one, other = row_of(network), row_of(network, reverse=True)
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-3, atol=1e-3 * np.abs(values).max())


def test_each_member_has_a_projection_of_its_own_and_the_same_one_again() -> None:
    network = Logistic()
    first, again, second = (row_of(network, member=k, dim=4)["trak_test_gradients"] for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, second)


def test_more_directions_than_weights_are_no_error() -> None:
    assert np.isfinite(row_of(Logistic(), dim=DIM + 3)["trak_leverage"]).all()


@pytest.mark.parametrize(("samples", "dim"), [(50_000, 512), (1000, 250), (3, 1)])
def test_directions_are_a_quarter_of_the_samples_at_most(samples: int, dim: int) -> None:
    assert projected_dim(samples) == dim
