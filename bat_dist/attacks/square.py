"""Square Attack in the l_inf ball (Andriushchenko et al. 2020, arXiv:1912.00049): random search, no gradient.

It begins at vertical stripes x +- epsilon. A query paints one square: in each channel all of its pixels go to
x + epsilon or all to x - epsilon, clipped to [0, 1]. The image with the smaller margin stays. The squares shrink with
the number of queries (Section 3.2), by AutoAttack's schedule, which does not depend on how many there will be.

As in the published code a square never touches the last row or column unless it fills the image.
"""

from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bat_dist.attacks.checks import check_settings
from bat_dist.attacks.frozen import attacked, wrong
from bat_dist.attacks.linf import Images, choose
from bat_dist.attacks.losses import Labels, Logits, PerExample
from bat_dist.attacks.noise import Keys, image_keys, uniform
from bat_dist.attacks.standing import AttackOutcome, Flags, Ids, Survivors

_BLOCK = 100  # queries whose random numbers are drawn together

SHRINKS_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries; by half the area each time


def square(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    seed: int,
    ids: Ids,
    logits: Logits | None = None,
    num_queries: int = 5000,
    p_init: float = 0.8,
) -> AttackOutcome:
    """Random search with num_queries squares that at first cover p_init of the image.

    Costs at most num_queries + 1 forward passes, and one more without `logits`.
    """
    check_settings(epsilon=epsilon, step_size=p_init, num_queries=num_queries)
    if x.ndim != 4:
        raise ValueError(f"Square paints images [batch, channels, height, width], got shape {list(x.shape)}")
    with attacked(model, x, y, ids) as (victim, x, y):
        standing, logits = Survivors(x), victim.logits(x, logits)
        x = x.contiguous()  # a channel's pixels in a row, so that `flatten(2)` copies nothing
        x, y, ids = standing.fell(wrong(logits, y), x, x, y, ids)
        keys, low, high = image_keys(seed, "square", ids), (x - epsilon).clamp(0, 1), (x + epsilon).clamp(0, 1)
        stripes = torch.where(uniform(keys, 0, x.shape[1], 1, x.shape[3]) >= 0.5, high, low)
        bounds = torch.cat([low.flatten(2), high.flatten(2)], dim=2)
        nowhere, infinite = y.new_empty(len(x), x.shape[1], 0), x.new_full((len(x),), torch.inf)
        nothing = nowhere.to(x)
        search = Search(y, keys, nothing, bounds, stripes, infinite, nowhere, nothing, nothing)
        for query in range(num_queries + 1):
            if not len(standing):
                break
            logits = victim.logits(search.image)
            fallen = wrong(logits, search.y)
            search = search.judged(margins(logits, search.y), fallen)
            search = Search(*standing.fell(fallen, search.image, *search))
            search = search.drawn(query) if query % _BLOCK == 0 else search
            search = search.painted(query, side_length(query, x.shape[2:], p_init))
        return standing.outcome


def margins(logits: Logits, y: Labels) -> PerExample:
    """The label's logit less the largest other: what the attack makes small (Section 3)."""
    column = y.unsqueeze(1)
    return logits.gather(1, column).squeeze(1) - logits.scatter(1, column, -torch.inf).amax(dim=1)


def side_length(query: int, size: tuple[int, int] | torch.Size, p_init: float) -> int:
    """The side of the square that query 0, 1, ... paints; p = side^2 / (height * width) (Section 3.2).

    p is p_init, halved after each of SHRINKS_AFTER.
    """
    height, width = size
    p = p_init / 2 ** sum(query > after for after in SHRINKS_AFTER)
    return min(max(round(sqrt(p * height * width)), 1), height, width)


class Search(NamedTuple):
    """The state of the search, a row per image; a pixel is at `low`, at `high` or, never painted, as it began.

    image: the best one so far, and on it the square that the model is asked about: `pixels` of each channel, which were
    `before` and are `colors` now. So a query moves no other pixels.
    """

    y: Labels
    keys: Keys
    draws: Float[Tensor, "batch queries numbers"]  # the current block's: row, column, a color per channel
    bounds: Float[Tensor, "batch channels low+high"]  # each pixel at `low`, then each at `high`
    image: Images
    best_margin: PerExample
    pixels: Int64[Tensor, "batch channels square"]
    before: Float[Tensor, "batch channels square"]
    colors: Float[Tensor, "batch channels square"]

    def drawn(self, query: int) -> "Search":
        """The state with the random numbers of this query and the next ones."""
        return self._replace(draws=uniform(self.keys, 1 + query // _BLOCK, _BLOCK, 2 + self.image.shape[1]))

    def painted(self, query: int, side: int) -> "Search":
        """The state with a square of a random place and random colors on the image, in place."""
        channels, height, width = self.image.shape[1:]
        draws = self.draws[:, query % _BLOCK]
        rows, columns = _run(draws[:, 0], side, height), _run(draws[:, 1], side, width)
        pixels = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).flatten(1)
        pixels = pixels.unsqueeze(1).expand(-1, channels, -1)
        is_high = (draws[:, 2:] >= 0.5).unsqueeze(2)
        colors = self.bounds.gather(2, pixels + height * width * is_high)
        image = self.image.flatten(2)
        before = image.gather(2, pixels)
        image.scatter_(2, pixels, colors)
        return self._replace(pixels=pixels, before=before, colors=colors)

    def judged(self, margin: PerExample, fallen: Flags) -> "Search":
        """The state with the model's answers: a square that neither fools the model nor lowers the margin goes."""
        better = margin < self.best_margin
        self.image.flatten(2).scatter_(2, self.pixels, choose(better | fallen, self.colors, self.before))
        return self._replace(best_margin=torch.where(better, margin, self.best_margin))


def _run(draw: PerExample, side: int, size: int) -> Int64[Tensor, "batch side"]:
    """`side` neighbouring places, at random, among `size`."""
    return (draw * (size - side)).long().unsqueeze(1) + torch.arange(side, device=draw.device)
