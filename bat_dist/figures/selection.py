"""Which samples and pairs a gallery shows. Pure numpy; NaN is left out.

Ties in `mem` go to the sample that is right more often when left out (`accuracy_out`, if known), then in turns to each
class (`labels`, if given), then to the lower index. So among values of 0 the samples that are always right come before
those that are always wrong, and the first class does not fill the row.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

WITHIN = 0.1  # how far from a value of mem a sample may be that is shown for it


def extremes(
    mem: Float[np.ndarray, " samples"],
    k: int,
    accuracy_out: Float[np.ndarray, " samples"] | None = None,
    labels: Int[np.ndarray, " samples"] | None = None,
) -> tuple[Int[np.ndarray, " top"], Int[np.ndarray, " bottom"]]:
    """Indices of the `k` highest values (falling) and of the `k` nearest to 0; no index comes in both.

    Not of the lowest: memorization is not negative but for noise, and the most negative estimates are the noisiest.
    """
    index = np.flatnonzero(np.isfinite(mem))
    falling = index[_order(-mem, accuracy_out, index, labels)]
    nearest_to_zero = index[_order(np.abs(mem), accuracy_out, index, labels)]
    top = falling[: min(k, (len(index) + 1) // 2)]
    return top, nearest_to_zero[~np.isin(nearest_to_zero, top)][:k]


def _order(
    key: Float[np.ndarray, " samples"],
    accuracy_out: Float[np.ndarray, " samples"] | None,
    index: Int[np.ndarray, " some"],
    labels: Int[np.ndarray, " samples"] | None = None,
) -> Int[np.ndarray, " some"]:
    """Positions in `index` by rising key."""
    ease = np.zeros(len(index)) if accuracy_out is None else -np.nan_to_num(accuracy_out[index])
    by_index = np.lexsort((index, ease, key[index]))
    if labels is None:
        return by_index
    turn, seen = np.zeros(len(index), np.int64), Counter()
    for place in by_index:
        tie = (key[index[place]], ease[place], labels[index[place]])
        turn[place] = seen[tie]
        seen[tie] += 1
    return np.lexsort((labels[index], turn, ease, key[index]))


def distinct_pairs(
    train_index: Int[np.ndarray, " pairs"],
    test_index: Int[np.ndarray, " pairs"],
    influence: Float[np.ndarray, " pairs"],
    k: int,
) -> Int[np.ndarray, " shown"]:
    """Positions of the `k` pairs of highest influence, at most one per train sample."""
    order = np.lexsort((test_index, train_index, -influence))
    order = order[np.isfinite(influence[order])]
    _, first = np.unique(train_index[order], return_index=True)
    return order[np.sort(first)][:k]


def near_targets(
    mem: Float[np.ndarray, " samples"],
    labels: Int[np.ndarray, " samples"],
    targets: Sequence[float],
    num_columns: int,
    accuracy_out: Float[np.ndarray, " samples"] | None = None,
    *,
    within: float = WITHIN,
) -> Int[np.ndarray, "targets columns"]:
    """A grid of sample indices: a row per target value of `mem`, a column per class; -1 is an empty cell.

    A sample belongs to the row of the nearest target, if it is at most `within` away. If there are too many classes,
    full columns go first, then those nearest to the targets; if too few, a class gets further columns. Columns are in
    class order.
    """
    distance = np.abs(mem[None, :] - np.asarray(targets)[:, None])
    distance[distance > within] = np.nan
    queues = [_nearest_by_class(row, distance, labels, accuracy_out) for row in range(len(targets))]
    columns = []
    for label in np.unique(labels):
        for rank in range(num_columns):
            cells = [queue[label][rank] if rank < len(queue[label]) else -1 for queue in queues]
            far = sum(distance[row, cell] for row, cell in enumerate(cells) if cell >= 0)
            columns.append((cells.count(-1), rank, far, int(label), cells))
    columns = [column for column in columns if column[0] < len(targets)]
    chosen = sorted(sorted(columns)[:num_columns], key=lambda column: (column[3], column[1]))
    return np.array([column[4] for column in chosen], dtype=np.int64).reshape(-1, len(targets)).T


def nearest_sample(mem: Float[np.ndarray, " samples"], target: float) -> int:
    """The sample whose memorization is nearest to a value.  ValueError if none is defined."""
    return int(np.nanargmin(np.abs(mem - target)))


def _nearest_by_class(
    row: int,
    distance: Float[np.ndarray, "targets samples"],
    labels: Int[np.ndarray, " samples"],
    accuracy_out: Float[np.ndarray, " samples"] | None,
) -> dict[int, list[int]]:
    """The samples whose nearest target is `row`, of each class, nearest first.  distance: NaN is too far."""
    index = np.flatnonzero(np.isfinite(distance[row]))
    index = index[np.nanargmin(distance[:, index], axis=0) == row]
    queue = defaultdict(list)
    for sample in index[_order(distance[row], accuracy_out, index)]:
        queue[labels[sample]].append(int(sample))
    return queue
