"""What is noted of a training is what happened in it, and noting it changes nothing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bat_dist.data.loaders import Batch
from bat_dist.memorization.dynamics import RIGHT, UNSEEN
from bat_dist.methods.erm import Erm
from bat_dist.training.loop import fit
from bat_dist.training.recipe import Recipe
from bat_dist.training.recorder import TrainingRecorder

SAMPLES, EPOCHS = 13, 5
IMAGES = torch.rand(SAMPLES, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(SAMPLES) % 3


class Noisy(nn.Module):
    """A small network with BatchNorm and dropout that draws a random number in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, images: Tensor) -> Tensor:
        torch.rand(1)
        return self.body(images)


class Loader:
    """Images as they are, in an order that the generator decides; notes what it handed out."""

    def __init__(self) -> None:
        self.orders: list[list[int]] = []

    def train_epoch(self, indices: Any, *, batch_size: int, generator: Any, drop_last: bool = False) -> Iterator[Batch]:
        order = torch.as_tensor(indices)[torch.randperm(len(indices), generator=generator)]
        order = order[: len(order) // batch_size * batch_size] if drop_last else order
        self.orders.append(order.tolist())
        for part in order.split(batch_size):
            yield Batch(IMAGES[part], LABELS[part], part)

    def eval_epoch(self, indices: Any = None, *, batch_size: int) -> Iterator[Batch]:
        for part in torch.arange(SAMPLES).flip(0).split(batch_size):
            yield Batch(IMAGES[part], LABELS[part], part)


class Watched:
    """Passes on what `fit` tells, and looks at the network by itself."""

    def __init__(self, model: nn.Module, recorder: TrainingRecorder) -> None:
        self.model, self.recorder, self.seen = model, recorder, np.full((EPOCHS, SAMPLES), UNSEEN)

    def batch(self, epoch: int, indices: Tensor, logits: Tensor, labels: Tensor) -> None:
        assert not logits.requires_grad
        self.recorder.batch(epoch, indices, logits, labels)
        for index, scores in zip(indices.tolist(), logits.tolist(), strict=True):
            self.seen[epoch, index] = int(scores.index(max(scores)) == LABELS[index])

    def epoch(self, epoch: int) -> None:
        self.recorder.epoch(epoch)


def trained(recorded: bool) -> tuple[nn.Module, Loader, Watched | None, list[float]]:
    torch.manual_seed(3)
    model, loader, recipe = Noisy(), Loader(), Recipe(EPOCHS, 4, 0.1, "one_cycle")
    recorder = TrainingRecorder(
        model,
        loader,  # pyright: ignore[reportArgumentType]
        SAMPLES,
        epochs=EPOCHS,
        batch_size=5,
        precision="fp32",
    )
    watched = Watched(model, recorder) if recorded else None
    losses = fit(
        model,
        loader,  # pyright: ignore[reportArgumentType]
        np.arange(SAMPLES),
        method=Erm(),
        recipe=recipe,
        precision="fp32",
        generator=torch.Generator().manual_seed(1),
        observer=watched,
    )
    return model, loader, watched, losses


def test_weights_and_losses_are_the_same_to_the_last_bit_with_and_without() -> None:
    (one, _, _, losses), (other, _, _, others) = trained(False), trained(True)
    assert losses == others
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_history_is_what_the_batches_said_and_a_sample_that_was_left_out_is_unseen() -> None:
    _, loader, watched, _ = trained(True)
    assert watched is not None
    history = watched.recorder.history
    assert history.dtype == np.int8
    np.testing.assert_array_equal(history, watched.seen)
    for seen, order in zip(history, loader.orders, strict=True):
        assert np.flatnonzero(seen != UNSEEN).tolist() == sorted(order)
    assert len(loader.orders[0]) == 12  # a last batch of one image is dropped
    assert 0 < (history == RIGHT).mean() < 1


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_outputs_are_taken_once_and_placed_by_index(epoch: int) -> None:
    model, loader = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), Loader()
    recorder = TrainingRecorder(
        model,
        loader,  # pyright: ignore[reportArgumentType]
        SAMPLES,
        epochs=EPOCHS,
        batch_size=5,
        precision="fp32",
    )
    recorder.epoch(epoch)
    if epoch == 0:  # a fifth of five epochs
        assert recorder.early is not None
        expected = model(IMAGES).softmax(dim=1).detach().numpy()
        np.testing.assert_allclose(recorder.early, expected, rtol=1e-5)
    else:
        assert recorder.early is None
