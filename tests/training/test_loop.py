"""Training and judging on one rank: reproducible bits, every sample once, placed by index."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.loaders import Batch, dataset_loader
from bat_dist.methods.erm import Erm
from bat_dist.training.correctness import predicted_classes, predicted_probabilities
from bat_dist.training.loop import fit
from bat_dist.training.recipe import Recipe
from bat_dist.training.step import NonFiniteLoss
from bat_dist.training.trial import EnsembleSettings, TrialSettings, run_member, run_trial, seeded_model

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, schedule="one_cycle", nesterov=True)
SETTINGS = TrialSettings("tinynet", RECIPE, "bf16", 0.7, "uniform", 0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", num_train=300, num_test=100)


def loaders(dataset: Dataset, kind: str = "memory") -> dict:
    return {f"{name}_loader": dataset_loader(kind, dataset, name) for name in ("train", "test")}


def trial(dataset: Dataset, number: int, kind: str = "memory", settings: TrialSettings = SETTINGS) -> dict:
    return run_trial(number, settings=settings, dataset=dataset, device=CPU, **loaders(dataset, kind))


def equal(a: dict, b: dict) -> bool:
    same = all(np.array_equal(a[name], b[name]) for name in ("mask", "train_correct", "test_correct"))
    return same and a["metrics"][0] == b["metrics"][0]  # the loss to the last bit


def test_a_trial_is_a_pure_function_of_its_number(digits: Dataset) -> None:
    torch.manual_seed(1)
    first = trial(digits, 5)
    torch.manual_seed(2)
    np.random.seed(3)
    noise = torch.rand(1)
    again = trial(digits, 5)
    assert equal(first, again)
    torch.manual_seed(2)
    np.testing.assert_array_equal(noise, torch.rand(1))  # and it leaves torch's generator alone
    assert not equal(first, trial(digits, 6))
    assert not equal(first, trial(digits, 5, settings=dataclasses.replace(SETTINGS, seed=1)))


def test_both_loaders_give_the_same_trial_to_the_last_bit(digits: Dataset) -> None:
    pytest.importorskip("ffcv", reason="FFCV is not installed")
    assert equal(trial(digits, 0), trial(digits, 0, kind="ffcv"))


def test_trials_learn_and_remember(digits: Dataset) -> None:
    """With augmentation off and 40 epochs a network fits what it saw: the accuracies must come in this order."""
    plain = dataclasses.replace(digits, spec=dataclasses.replace(digits.spec, crop_padding=0))
    settings = dataclasses.replace(SETTINGS, recipe=dataclasses.replace(RECIPE, epochs=40))
    row = trial(plain, 0, settings=settings)
    assert row["mask"].sum() == 210
    inside, outside = row["train_correct"][row["mask"]].mean(), row["train_correct"][~row["mask"]].mean()
    assert inside > 0.98
    assert inside > outside > 0.75
    assert row["test_correct"].mean() > 0.75


def test_members_have_their_architectures_in_turn(digits: Dataset) -> None:
    settings = EnsembleSettings(("tinynet", "resnet9-w4"), RECIPE, "fp32", 0)
    rows = [run_member(k, settings=settings, dataset=digits, device=CPU, **loaders(digits)) for k in (0, 1, 2)]
    for row in rows:
        assert row["train_probabilities"].shape == (300, 10)
        np.testing.assert_allclose(row["test_probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert not np.array_equal(rows[0]["test_probabilities"], rows[2]["test_probabilities"])


class Counting:
    """Stands for a loader: counts what the loop asks for, and hands out batches of one colour."""

    def __init__(self, num_samples: int):
        self.seen: list[list[int]] = []
        self.num_samples = num_samples

    def train_epoch(self, indices, *, batch_size, generator, drop_last=False):
        order = torch.as_tensor(indices)[torch.randperm(len(indices), generator=generator)]
        if drop_last:
            order = order[: len(order) // batch_size * batch_size]
        self.seen.append(order.tolist())
        for part in order.split(batch_size):
            yield Batch(torch.full((len(part), 3, 8, 8), 0.5), part % 10, part)


@pytest.mark.parametrize(("num_samples", "expected"), [(70, 70), (64, 64), (65, 64), (33, 32), (5, 5)])
def test_every_sample_trains_once_an_epoch_but_for_a_lone_last_one(
    digits: Dataset, num_samples: int, expected: int
) -> None:
    loader = Counting(num_samples)
    model = seeded_model("tinynet", digits, CPU, key=(0,))
    losses = fit(
        model,
        loader,  # pyright: ignore
        np.arange(100, 100 + num_samples),
        method=Erm(),
        recipe=RECIPE,
        precision="fp32",
        generator=torch.Generator().manual_seed(0),
    )
    assert len(losses) == RECIPE.epochs
    assert all(len(set(epoch)) == len(epoch) == expected for epoch in loader.seen)


def test_the_update_is_the_textbooks(digits: Dataset) -> None:
    """Momentum SGD with weight decay, written out for the head's bias over two steps of one epoch."""
    recipe = Recipe(epochs=1, batch_size=16, lr=0.1, schedule="one_cycle", warmup=0.5, nesterov=True)
    images, labels = torch.rand(32, 3, 8, 8), torch.arange(32) % 10

    class Fixed(Counting):
        def train_epoch(self, indices, *, batch_size, generator, drop_last=False):
            yield Batch(images[:16], labels[:16], torch.arange(16))
            yield Batch(images[16:], labels[16:], torch.arange(16, 32))

    model = seeded_model("tinynet", digits, CPU, key=(0,))
    reference = seeded_model("tinynet", digits, CPU, key=(0,))
    fit(
        model,
        Fixed(32),  # pyright: ignore
        np.arange(32),
        method=Erm(),
        recipe=recipe,
        precision="fp32",
        generator=torch.Generator(),
    )
    reference.train()
    velocity = {name: torch.zeros_like(value) for name, value in reference.named_parameters()}
    for step in range(2):
        part = slice(16 * step, 16 * step + 16)
        reference.zero_grad()
        nn.functional.cross_entropy(reference(images[part]), labels[part]).backward()
        rate = 0.1 * [2 / 3, 2 / 3][step]
        with torch.no_grad():
            for name, value in reference.named_parameters():
                assert value.grad is not None
                gradient = value.grad + 5e-4 * value
                velocity[name] = 0.9 * velocity[name] + gradient
                value -= rate * (gradient + 0.9 * velocity[name])
    for name, value in reference.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], value, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_training(digits: Dataset) -> None:
    settings = dataclasses.replace(SETTINGS, precision="fp32", recipe=dataclasses.replace(RECIPE, lr=1e30))
    with pytest.raises(NonFiniteLoss, match=r"in epoch [12] of 2: try a lower lr than 1e\+30"):
        trial(digits, 0, settings=settings)


class Shuffled:
    """An evaluation loader that brings its samples in another order, or not all of them."""

    def __init__(self, order: list[int]):
        self.order = torch.tensor(order)

    def eval_epoch(self, indices=None, *, batch_size):
        for part in self.order.split(batch_size):
            yield Batch(part[:, None].float(), part, part)


class Echo(nn.Module):
    """Says class i for sample i."""

    def forward(self, x):
        return nn.functional.one_hot(x[:, 0].long(), 7).float() * 9


def test_answers_are_placed_by_index_and_coverage_is_checked() -> None:
    labels = np.array([0, 1, 2, 0, 4, 5, 0])
    found = predicted_probabilities(Echo(), Shuffled([3, 6, 0, 5, 1, 4, 2]), batch_size=3, precision="fp32")  # pyright: ignore
    np.testing.assert_array_equal(predicted_classes(found) == labels, [True, True, True, False, True, True, False])
    for order in ([0, 1, 2, 3, 4, 4], [0, 1, 2, 4, 5, 6]):
        with pytest.raises(RuntimeError, match="twice or not at all"):
            predicted_probabilities(Echo(), Shuffled(order), batch_size=3, precision="fp32")  # pyright: ignore


def test_judging_changes_no_running_statistics(digits: Dataset) -> None:
    model = seeded_model("tinynet", digits, CPU, key=(0,)).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    predicted_probabilities(model, loaders(digits)["test_loader"], batch_size=32, precision="fp32")
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
