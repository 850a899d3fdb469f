"""What an ensemble member tells of its own training: which samples were right, epoch by epoch, and an early network.

Correctness is that of the training batches themselves, as in Algorithm 1 of Toneva et al. (2019): images are augmented,
the network is in train mode, and no further pass is needed.  EL2N (Paul et al. 2021) is of one pass over the images as
they are.  Nothing here changes the network or a random number, so that members are the same with and without it.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int8, Int64
from torch import Tensor, nn

from bat_dist.data.loaders import Loader
from bat_dist.memorization.dynamics import UNSEEN, early_epoch
from bat_dist.training.correctness import predicted_probabilities
from bat_dist.training.recipe import Precision


class TrainingRecorder:
    """Takes notes for `loop.fit`; they stay on the device, so that no step waits for a GPU.

    early: softmax outputs for the whole split after the epoch that `early_epoch` names; None before it.
    """

    def __init__(
        self, model: nn.Module, loader: Loader, num_samples: int, *, epochs: int, batch_size: int, precision: Precision
    ) -> None:
        self._model, self._loader, self._epochs = model, loader, epochs
        self._batch_size = batch_size
        self._precision: Precision = precision
        self._device = next(model.parameters()).device
        self._seen = torch.full((epochs, num_samples), UNSEEN, dtype=torch.int8, device=self._device)
        self.early: Float32[np.ndarray, "samples classes"] | None = None

    def batch(
        self,
        epoch: int,
        indices: Int64[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
        labels: Int64[Tensor, " batch"],
    ) -> None:
        """Note which samples of a batch are right, by the logits with which it was trained; epoch: from 0."""
        self._seen[epoch, indices.to(self._device)] = (logits.argmax(dim=1) == labels).to(torch.int8)

    def epoch(self, epoch: int) -> None:
        """Note the outputs if that is the early epoch; leaves the network in eval mode."""
        if epoch + 1 == early_epoch(self._epochs):
            with torch.random.fork_rng(devices=[]):  # a network of the user's may draw something in eval mode too
                self.early = predicted_probabilities(
                    self._model, self._loader, batch_size=self._batch_size, precision=self._precision
                )

    @property
    def history(self) -> Int8[np.ndarray, "epochs samples"]:
        """RIGHT, WRONG or UNSEEN (`memorization.dynamics`) for each epoch and sample of the split."""
        return self._seen.cpu().numpy()
