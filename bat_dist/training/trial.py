"""One leave-out trial (Sec. 2.1): train on a random subset, then see which samples are classified right.

A trial is a pure function of (settings, data, trial number): it may be run twice, anywhere, with the same result.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bat_dist.data.datasets import Dataset
from bat_dist.data.loaders import Loader
from bat_dist.memorization.dynamics import el2n, forgetting_events, learning_time
from bat_dist.memorization.subsets import MASK_PLANS
from bat_dist.methods.erm import Erm
from bat_dist.models.own import OwnNetwork
from bat_dist.training.correctness import predicted_classes, predicted_probabilities, true_class_probability
from bat_dist.training.loop import Observer, fit
from bat_dist.training.recipe import Precision, Recipe
from bat_dist.training.recorder import TrainingRecorder
from bat_dist.training.seeding import seed_of, seeded_model
from bat_dist.training.trak_features import projected_dim, trak_row

EVAL_BATCH_SIZE = 500
_INIT, _ORDER, _NOISE = 1, 2, 3  # streams of randomness of one unit of work
_MEMBER = 1 << 20  # ensemble members draw from other streams than trials


@dataclass(frozen=True)
class TrialSettings:
    """All that decides a trial's result, beside the data and its number."""

    arch: str | OwnNetwork
    recipe: Recipe
    precision: Precision
    subset_ratio: float
    mask_plan: str
    seed: int


@dataclass(frozen=True)
class EnsembleSettings:
    """All that decides an ensemble member's result, beside the data and its number.  Member k has `archs[k % len]`."""

    archs: tuple[str | OwnNetwork, ...]
    recipe: Recipe
    precision: Precision
    seed: int


def run_trial(
    trial: int,
    *,
    settings: TrialSettings,
    dataset: Dataset,
    train_loader: Loader,
    test_loader: Loader,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """The row of one trial: `mask`, `train_correct`, `train_predicted` and `train_probability` [train], `test_correct`
    and `test_probability` [test], `metrics`.

    train_probability, test_probability: of the sample's own class; a store without fields of these names drops them.
    metrics: final loss, seconds.  Raises NonFiniteLoss.
    """
    start = time.perf_counter()
    plan = MASK_PLANS[settings.mask_plan]
    mask = plan(len(dataset.train.labels), settings.subset_ratio, settings.seed, trial)
    model = seeded_model(settings.arch, dataset, device, key=(settings.seed, trial, _INIT))
    loss = _fit_erm(model, train_loader, np.flatnonzero(mask), settings, number=trial)
    train, test = (
        predicted_probabilities(model, loader, batch_size=EVAL_BATCH_SIZE, precision=settings.precision)
        for loader in (train_loader, test_loader)
    )
    train_predicted = predicted_classes(train)
    return {
        "mask": mask,
        "train_correct": train_predicted == dataset.train.labels,
        "train_predicted": train_predicted,
        "train_probability": true_class_probability(train, dataset.train.labels),
        "test_correct": predicted_classes(test) == dataset.test.labels,
        "test_probability": true_class_probability(test, dataset.test.labels),
        "metrics": np.array([loss, time.perf_counter() - start]),
    }


def run_member(
    member: int,
    *,
    settings: EnsembleSettings,
    dataset: Dataset,
    train_loader: Loader,
    test_loader: Loader,
    device: torch.device,
    with_gradients: bool = False,
) -> dict[str, np.ndarray]:
    """The row of one ensemble member (Appendix A.1), trained on all samples: softmax outputs and `metrics`.

    `train_probabilities` [train, classes], `test_probabilities` [test, classes]; `forgetting`, `learning_time` and
    `el2n` [train], of its training (`memorization.dynamics`); with_gradients: also the fields of `trak_row`.  A store
    without fields of these names drops them.  Raises NonFiniteLoss.
    """
    start = time.perf_counter()
    arch = settings.archs[member % len(settings.archs)]
    number = _MEMBER + member
    model = seeded_model(arch, dataset, device, key=(settings.seed, number, _INIT))
    labels = dataset.train.labels
    recorder = TrainingRecorder(
        model,
        train_loader,
        len(labels),
        epochs=settings.recipe.epochs,
        batch_size=EVAL_BATCH_SIZE,
        precision=settings.precision,
    )
    loss = _fit_erm(model, train_loader, np.arange(len(labels)), settings, number=number, observer=recorder)
    assert recorder.early is not None  # a training has its early epoch
    train_probabilities, test_probabilities = (
        predicted_probabilities(model, loader, batch_size=EVAL_BATCH_SIZE, precision=settings.precision)
        for loader in (train_loader, test_loader)
    )
    gradients = {}
    if with_gradients:
        gradients = trak_row(model, train_loader, test_loader, dim=projected_dim(len(labels)), member=member)
    return {
        "train_probabilities": train_probabilities,
        "test_probabilities": test_probabilities,
        "forgetting": forgetting_events(recorder.history),
        "learning_time": learning_time(recorder.history),
        "el2n": el2n(recorder.early, labels),
        **gradients,
        "metrics": np.array([loss, time.perf_counter() - start]),
    }


def _fit_erm(
    model: nn.Module,
    loader: Loader,
    indices: np.ndarray,
    settings: TrialSettings | EnsembleSettings,
    *,
    number: int,
    observer: Observer | None = None,
) -> float:
    """Train by ERM and return the mean loss of the last epoch."""
    torch.manual_seed(seed_of(settings.seed, number, _NOISE))  # what a network draws itself (dropout)
    return fit(
        model,
        loader,
        indices,
        method=Erm(settings.recipe.label_smoothing),
        recipe=settings.recipe,
        precision=settings.precision,
        generator=torch.Generator().manual_seed(seed_of(settings.seed, number, _ORDER)),
        observer=observer,
    )[-1]
