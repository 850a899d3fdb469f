"""Comparison by the rule of the golden numbers, and gradients of a function of arrays."""

import numpy as np
import torch


def assert_near(actual, expected, tol):
    """|a - b| <= tol (1 + |b|), of equal shapes; NaN is never near.  Tensors may lie on any device."""
    arrays = (value.detach().cpu() if isinstance(value, torch.Tensor) else value for value in (actual, expected))
    actual, expected = (np.asarray(array, np.float64) for array in arrays)
    assert actual.shape == expected.shape
    excess = np.abs(actual - expected) - tol * (1 + np.abs(expected))
    assert (excess <= 0).all(), f"off by {np.nanmax(np.abs(actual - expected)):.3g}"


def leaf(array, dtype=torch.float64):
    return torch.tensor(array, dtype=dtype, requires_grad=True)


def gradients(loss: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    loss.backward()
    found = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(found) == len(leaves)
    return found
