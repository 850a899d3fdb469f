"""On a real GPU: where images are by default, and whether a plan is as fast as a training.  Skips without a card."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bat_dist.data import loaders
from bat_dist.data.datasets import load_dataset
from bat_dist.data.loaders import dataset_loader
from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.data.table import DATASETS
from bat_dist.methods.erm import Erm
from bat_dist.models.build import build
from bat_dist.planning.plan import this_machine
from bat_dist.planning.speed import Workload, measure
from bat_dist.planning.timed_operations import Piece
from bat_dist.training.loop import fit
from bat_dist.training.recipe import RECIPES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")]
GPU = torch.device("cuda")


def test_images_are_on_the_card_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "SMALL_BYTES", 0)
    monkeypatch.setattr(loaders, "kind_at_hand", lambda: pytest.fail("FFCV was asked for"))
    loader = dataset_loader("auto", load_dataset("digits", num_train=200), "train", device=GPU)
    assert isinstance(loader, MemoryLoader)
    assert loader._images.is_cuda


def test_a_plan_measures_what_a_trial_takes() -> None:
    """Steps of ResNet-9 at batch 64, which wait for the host, against as many in one go and a single wait."""
    spec, size, num_images = DATASETS["cifar10"], 64, 64 * 150
    subject = Workload(
        "resnet9", spec, RECIPES["fast"], RECIPES["paper"], num_steps=10, precision="fp32", attacked_at_once=256
    )
    speed = measure(subject, [Piece.TRIAL_STEP], seconds=5, threads=1)
    assert speed.device == torch.cuda.get_device_name()
    assert this_machine().gpus == torch.cuda.device_count()
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8), np.arange(num_images) % 10
    loader = MemoryLoader(images, labels, crop_padding=4, flip=True, device=GPU)
    network = build("resnet9", 10, mean=(0.5,) * 3, std=(0.25,) * 3).to(GPU)
    recipe = replace(RECIPES["fast"], epochs=1, lr=1e-6, batch_size=size)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        fit(
            *(network, loader, np.arange(num_images)),
            method=Erm(),
            recipe=recipe,
            precision="fp32",
            generator=torch.Generator().manual_seed(0),
        )
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    assert 1 / 1.5 < speed.rates[Piece.TRIAL_STEP].seconds * num_images / min(seconds) < 1.5
