"""Checks of hyper-parameters and of per-example arguments: ValueError with the value, the rule and the way out."""

import math

from torch import Tensor


def check_at_least_0(name: str, value: float, way_out: str) -> None:
    """Raise ValueError unless the value is a finite number, 0 or more."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value}: {way_out}")


def check_above_0(name: str, value: float, way_out: str) -> None:
    """Raise ValueError unless the value is a finite number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and above 0, got {value}: {way_out}")


def check_per_example(name: str, tensor: Tensor, labels: Tensor, way_out: str) -> None:
    """Raise ValueError unless there is one value per label: any other shape might broadcast unseen."""
    if tensor.shape != labels.shape:
        raise ValueError(
            f"{name} must have one value per label, shape {tuple(labels.shape)}, got {tuple(tensor.shape)}: {way_out}"
        )
