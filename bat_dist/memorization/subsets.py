"""Which training samples a leave-out trial keeps: a pure function of (plan, seed, trial)."""

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral

import numpy as np
from jaxtyping import Bool, Int

from bat_dist.errors import UserError

Mask = Bool[np.ndarray, " samples"]


def subset_size(num_samples: int, subset_ratio: float) -> int:
    """round(r*N), the size of every trial's training set; UserError if nobody is in, or nobody out."""
    if num_samples < 2:
        raise UserError(f"num_samples must be at least 2, got {num_samples}: one sample cannot be both in and out")
    if not 0 < subset_ratio < 1:
        raise UserError(f"subset_ratio must be in (0, 1), got {subset_ratio}")
    size = round(subset_ratio * num_samples)
    if not 0 < size < num_samples:
        nobody = "in" if size == 0 else "out"
        low, high = 1 / num_samples, 1 - 1 / num_samples
        raise UserError(
            f"subset_ratio {subset_ratio} of {num_samples} samples leaves nobody {nobody}: "
            f"take a ratio from {low:.4g} to {high:.4g}, or more samples"
        )
    return size


def subset_mask(num_samples: int, subset_ratio: float, seed: int, trial: int) -> Mask:
    """True = in the training set of this trial; a uniform random subset of round(r*N) samples (Sec. 2.1).

    Trials are independent of each other, so a sample is left out Binomial(T, 1-r) times in T trials.
    """
    size = subset_size(num_samples, subset_ratio)
    _check_numbers(seed, trial)
    mask = np.zeros(num_samples, dtype=bool)
    mask[np.random.default_rng([seed, trial]).permutation(num_samples)[:size]] = True
    return mask


def balanced_mask(num_samples: int, subset_ratio: float, seed: int, trial: int) -> Mask:
    """True = in; after any number of trials all samples were left out equally often, +-1 (ours).

    With k = N - round(r*N), trial t leaves out slots t*k .. (t+1)*k-1 of an endless row of seeded permutations. A
    permutation that begins inside a trial is stably reordered, so that nobody is left out twice in one trial. The plan
    has no last trial: a run may be extended. Below r = 1/2 the row deals out the kept samples instead, which balances
    both sides alike and makes every trial computable without its predecessors.
    """
    size_in = subset_size(num_samples, subset_ratio)
    _check_numbers(seed, trial)
    size_out = num_samples - size_in
    hand, deal_left_out = min(size_in, size_out), size_out <= size_in
    block, start = divmod(trial * hand, num_samples)
    dealt = _ordered(num_samples, hand, seed, block)[start : start + hand]
    if missing := hand - len(dealt):
        dealt = np.concatenate([dealt, _ordered(num_samples, hand, seed, block + 1)[:missing]])
    mask = np.full(num_samples, deal_left_out)
    mask[dealt] = not deal_left_out
    return mask


MASK_PLANS: dict[str, Callable[[int, float, int, int], Mask]] = {
    "uniform": subset_mask,
    "balanced": balanced_mask,
}


def masks(plan: str, num_samples: int, subset_ratio: float, seed: int, trials: Iterable[int]) -> Iterator[Mask]:
    """The masks of `trials`, in that order; `plan` is a key of MASK_PLANS."""
    if plan not in MASK_PLANS:
        raise ValueError(f"plan must be one of {sorted(MASK_PLANS)}, got {plan!r}")
    return (MASK_PLANS[plan](num_samples, subset_ratio, seed, trial) for trial in trials)


def _check_numbers(seed: int, trial: int) -> None:
    for name, value in (("seed", seed), ("trial", trial)):
        if not isinstance(value, Integral) or value < 0:
            raise ValueError(f"{name} must be a whole number from 0 on, got {value!r}")


def _ordered(num_samples: int, hand: int, seed: int, block: int) -> Int[np.ndarray, " samples"]:
    """Permutation `block`, reordered so that the trial it begins in does not hold its first samples yet.

    The order changes only within the first `hand` places and only the last `hand` - 1 can be held over, so with 2*hand
    <= num_samples the held-over tail of the previous permutation is that of its raw order.
    """
    order = _permutation(num_samples, seed, block)
    held = (block * num_samples) % hand
    if held == 0:
        return order
    free = np.ones(num_samples, dtype=bool)
    free[_permutation(num_samples, seed, block - 1)[-held:]] = False
    first = np.flatnonzero(free[order])[: hand - held]
    return np.concatenate([order[first], np.delete(order, first)])


def _permutation(num_samples: int, seed: int, block: int) -> Int[np.ndarray, " samples"]:
    return np.random.default_rng([seed, block]).permutation(num_samples)
