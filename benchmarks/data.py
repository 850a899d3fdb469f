"""The images that measurements use: those that are given, or synthetic ones of CIFAR-10's shape."""

import dataclasses
from pathlib import Path

import numpy as np

from bat_dist.data.datasets import Dataset, Split, load_dataset
from bat_dist.data.table import DATASETS
from benchmarks.measurement import Context

CLASSES = 10


def images(context: Context, num_train: int = 5000, num_test: int = 1000) -> Dataset:
    """So many training and test images of 32x32 pixels in ten classes, with CIFAR-10's crop and flip."""
    if context.images is not None:
        found = load_dataset("image_folder", data_dir=Path(context.images), num_train=num_train, num_test=num_test)
        return found.augmented(4, True)
    return synthetic(num_train, num_test)


def synthetic(num_train: int, num_test: int) -> Dataset:
    """Noise around a pattern of squares for each class, which a network can learn and an attack can hide."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(96, 160, (CLASSES, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)

    def split(count: int) -> Split:
        labels = np.arange(count) % CLASSES
        pixels = patterns[labels] + rng.normal(0, 40, (count, 32, 32, 3))
        return Split(pixels.clip(0, 255).astype(np.uint8), labels.astype(np.int64), np.arange(count).astype(np.str_))

    spec = dataclasses.replace(DATASETS["cifar10"], name="synthetic")
    names = tuple(f"pattern {number}" for number in range(CLASSES))
    return Dataset("synthetic", split(num_train), split(num_test), names, f"synthetic {num_train} {num_test}", spec)


def digits() -> Dataset:
    """Those of scikit-learn, 8x8 pixels."""
    return load_dataset("digits")
