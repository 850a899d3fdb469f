"""The digits as tensors for tests that need no data set."""

import numpy as np
import torch
from torch import Tensor

from bat_dist.data.digits import FILE


def grey_digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 8, 8] in [0, 1] and labels [1797], int64, in scikit-learn's order, whose import takes seconds."""
    with np.load(FILE) as digits:
        return torch.from_numpy(digits["levels"]).float() / 16, torch.from_numpy(digits["labels"]).long()
