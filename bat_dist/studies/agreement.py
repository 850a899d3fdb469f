"""How well two people agree, beyond chance."""

import numpy as np
from jaxtyping import Shaped


def cohen_kappa(first: Shaped[np.ndarray, " items"], second: Shaped[np.ndarray, " items"]) -> float:
    """Cohen's kappa (1960) of two people's answers to the same items: (agreement - chance) / (1 - chance).

    NaN if there is no item, or if both gave one and the same answer throughout, so that chance alone explains all.
    """
    if not len(first):
        return float("nan")
    answers, both = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, other = both[: len(first)], both[len(first) :]
    shares = [np.bincount(person, minlength=len(answers)) / len(one) for person in (one, other)]
    agreement, chance = float((one == other).mean()), float(shares[0] @ shares[1])
    return (agreement - chance) / (1 - chance) if chance < 1 else float("nan")
