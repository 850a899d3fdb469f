"""Cheaper scores from how a network learns a sample: forgetting events, learning time, EL2N.  High = atypical.

Toneva et al. (2019), An empirical study of example forgetting during deep neural network learning, and Paul, Ganguli
and Dziugaite (2021), Deep learning on a data diet: finding important examples early in training.
"""

import numpy as np
from jaxtyping import Float, Int, Int8

UNSEEN, WRONG, RIGHT = -1, 0, 1  # what a history says of a sample in an epoch
EARLY = 0.2  # share of the epochs after which EL2N is taken
History = Int8[np.ndarray, "epochs samples"]


def forgetting_events(history: History) -> Int[np.ndarray, " samples"]:
    """How often each sample goes from right to wrong between two epochs in which it was seen (Toneva et al., Sec. 3).

    A sample that is never right has the number of epochs, more than can be forgotten: Toneva et al. rank samples that
    are never learned above all others.  Epochs in which a sample was not seen are passed over.
    """
    before = np.zeros(history.shape[1], bool)  # right when it was last seen
    events = np.zeros(history.shape[1], np.int64)
    for now in history:
        events += before & (now == WRONG)
        before = np.where(now == UNSEEN, before, now == RIGHT)
    return np.where((history == RIGHT).any(axis=0), events, len(history))


def learning_time(history: History) -> Int[np.ndarray, " samples"]:
    """The first epoch, counted from 1, in which each sample is right; the number of epochs plus 1 if there is none."""
    right = history == RIGHT
    return np.where(right.any(axis=0), 1 + right.argmax(axis=0), 1 + len(history))


def el2n(
    probabilities: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, " samples"]:
    """||softmax(f(x)) - one-hot(y)||_2 early in training, the error of Paul et al. (2021), between 0 and sqrt(2)."""
    error = probabilities.astype(np.float64)
    error[np.arange(len(labels)), labels] -= 1
    return np.linalg.norm(error, axis=1)


def early_epoch(epochs: int) -> int:
    """After how many epochs of a training EL2N is taken: a fifth of them, and one at least.

    Paul et al. take epoch 20 of 200 and find that ranks change little from there on; short trainings need a larger
    share.
    """
    return max(1, round(EARLY * epochs))
