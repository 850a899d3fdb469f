"""The l_inf ball: where an attack starts, how it steps, and how it stays inside.

Nothing here is ever part of a differentiated graph. In torch the gradient of a clamp is 0 AT its bounds, so that a
clamp inside the graph would freeze every pixel that is exactly 0 or 1.
"""

from typing import Protocol

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from bat_dist.attacks import noise
from bat_dist.attacks.noise import Keys

Images = Float[Tensor, "batch *image"]
Randomness = torch.Generator | Keys | None
"""What random starts are drawn from: a generator, whose numbers depend on the batch that asks, or the images' keys
(`noise.image_keys`) on the images' device, from which an image draws the same in any batch, on any device."""


class Start(Protocol):
    """Where an attack begins; called once per restart."""

    def __call__(self, x: Images, *, epsilon: float, generator: Randomness) -> Images:
        """The first iterate: shape, dtype, device and memory format of x."""
        ...


def no_start(x: Images, *, epsilon: float, generator: Randomness = None) -> Images:
    """The clean images themselves. The gradient of KL is 0 there: ascend KL from `gaussian_start`."""
    return x


def uniform_start(x: Images, *, epsilon: float, generator: Randomness) -> Images:
    """Uniform in the ball, clipped to [0, 1] (Madry et al. 2018, arXiv:1706.06083)."""
    if isinstance(generator, Tensor):
        moves = noise.uniform(generator, 0, *x.shape[1:], dtype=x.dtype).mul_(2).sub_(1).mul_(epsilon)
    else:
        moves = _empty(x, generator).uniform_(-epsilon, epsilon, generator=generator).to(x.device)
    return (x + moves).clamp_(0, 1)


def gaussian_start(x: Images, *, epsilon: float, generator: Randomness, std: float = 0.001) -> Images:
    """x + std * N(0, 1), not clipped, as TRADES (arXiv:1901.08573) and MART begin; their std is 0.001."""
    if isinstance(generator, Tensor):
        return x + noise.normal(generator, 0, *x.shape[1:], dtype=x.dtype).mul_(std)
    return x + _empty(x, generator).normal_(0, std, generator=generator).to(x.device)


def step(x_adv: Images, gradient: Images, step_size: float) -> Images:
    """Steepest ascent in l_inf: x_adv + step_size * sign(gradient) (arXiv:1706.06083, Section 2.1)."""
    return torch.add(x_adv, gradient.sign(), alpha=step_size)


def project(x_adv: Images, x: Images, epsilon: float) -> Images:
    """The nearest point with |x_adv - x| <= epsilon and values in [0, 1]; x in [0, 1] (Section 2.1)."""
    return torch.clamp(x_adv, min=x - epsilon, max=x + epsilon).clamp(0, 1)


def bounds(x: Images, epsilon: float) -> tuple[Images, Images]:
    """The smallest and the largest value of each pixel within epsilon of x and in [0, 1]; x in [0, 1].

    `x_adv.clamp(*bounds(x, epsilon))` is `project(x_adv, x, epsilon)` to the last bit.  An attack that projects again
    and again around the same x computes the bounds once.
    """
    return (x - epsilon).clamp_(min=0), (x + epsilon).clamp_(max=1)


def length(moves: Images) -> Float[Tensor, " batch"]:
    """The l_inf norm of each image: its largest pixel without the sign."""
    return moves.flatten(1).abs().amax(dim=1)


def by_image(values: Shaped[Tensor, " batch"], like: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
    """The values, one per image, in a shape that broadcasts against `like`, which has a row per image."""
    return values.view(-1, *[1] * (like.ndim - 1))


def choose(
    which: Bool[Tensor, " batch"], new: Shaped[Tensor, "batch ..."], old: Shaped[Tensor, "batch ..."]
) -> Shaped[Tensor, "batch ..."]:
    """Image by image the new row where `which` says so, else the old one."""
    return torch.where(by_image(which, new), new, old)


def _empty(x: Images, generator: torch.Generator | None) -> Images:
    """Room for noise on the generator's device, in one memory format, so that a seed means the same noise always."""
    if generator is None:
        raise ValueError("a random start needs a generator, got None: pass generator=torch.Generator().manual_seed(0)")
    return torch.empty(x.shape, dtype=x.dtype, device=generator.device)
