"""What a model says about every sample of a split, placed by index."""

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int64, UInt16
from torch import nn

from bat_dist.attacks.numerics import numerics
from bat_dist.data.loaders import Loader
from bat_dist.training.precision import autocast
from bat_dist.training.recipe import Precision

NO_CLASS = 2**16 - 1


@torch.inference_mode()
def predicted_probabilities(
    model: nn.Module, loader: Loader, *, batch_size: int, precision: Precision
) -> Float32[np.ndarray, "samples classes"]:
    """Softmax outputs for the loader's whole split: eval mode, clean images, no augmentation.

    Raises RuntimeError if the loader did not bring every sample exactly once.
    """
    model.eval()
    probabilities, places = [], []
    for images, _, indices in loader.eval_epoch(batch_size=batch_size):
        with numerics(precision), autocast(images.device, precision):
            logits = model(images)
        probabilities.append(logits.float().softmax(dim=1).cpu())
        places.append(indices.cpu())
    order = torch.cat(places)
    if not torch.equal(order.sort().values, torch.arange(len(order))):
        raise RuntimeError("the loader brought some sample twice or not at all")
    placed = torch.empty(len(order), probabilities[0].shape[1])
    placed[order] = torch.cat(probabilities)
    return placed.numpy()


def predicted_classes(probabilities: Float32[np.ndarray, "samples classes"]) -> UInt16[np.ndarray, " samples"]:
    """The class of each sample by its softmax outputs; NO_CLASS, which is wrong, if one of them is not a number."""
    return np.where(np.isnan(probabilities).any(axis=1), NO_CLASS, probabilities.argmax(axis=1)).astype(np.uint16)


def true_class_probability(
    probabilities: Float32[np.ndarray, "samples classes"], labels: Int64[np.ndarray, " samples"]
) -> Float16[np.ndarray, " samples"]:
    """The softmax output of each sample's own class."""
    return probabilities[np.arange(len(labels)), labels].astype(np.float16)
