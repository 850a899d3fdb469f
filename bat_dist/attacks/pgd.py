"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083) in the l_inf ball; FGSM is one step of it.

    x_{k+1} = project(x_k + step_size * sign(grad loss(f(x_k), target)))        k = 0 .. num_steps - 1

All randomness comes from `generator`: a torch.Generator or the images' keys (`linf.Randomness`). The model is seen
through `frozen.attacked` and left as it was. A step costs one forward pass and one backward pass with respect to the
images alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from bat_dist.attacks.checks import check_choice, check_settings
from bat_dist.attacks.frozen import FrozenModel, Mode, attacked, wrong
from bat_dist.attacks.linf import Images, Randomness, Start, bounds, choose, no_start, project, step, uniform_start
from bat_dist.attacks.losses import Labels, Logits, Loss, PerExample, cross_entropy
from bat_dist.attacks.noise import later
from bat_dist.attacks.numerics import Precision

Against = Literal["labels", "clean_logits"]


@dataclass(frozen=True)
class PgdPath:
    """An attack, and how the model fared along its way.

    correct_at_step: is iterate k classified right (row 0: the start)? num_steps + 1 rows, or num_steps.
    kappa: how many of the iterates 0 .. num_steps - 1 are (GAIRAT, arXiv:2010.01736, as its published code counts).
    """

    x_adv: Images
    correct_at_step: Bool[Tensor, "iterates batch"]
    kappa: Int64[Tensor, " batch"]


def pgd(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    step_size: float,
    num_steps: int,
    loss: Loss = cross_entropy,
    against: Against = "labels",
    start: Start = uniform_start,
    restarts: int = 1,
    best_iterate: bool = False,
    generator: Randomness = None,
    precision: Precision = "fp32",
    mode: Mode = "eval",
    checked: bool = False,
    fold_batch_norm: bool = False,
) -> Images:
    """Adversarial images: |x_adv - x| <= epsilon, in [0, 1], detached, with x's dtype, device and memory format.

    x: images in [0, 1]; epsilon and step_size in their units.
    against: what the loss compares the logits with: the labels, or the model's logits at x (for `kl_divergence`;
    costs one forward pass).
    restarts: of several runs, each sample keeps the one that ends with the larger loss, of equal ones the later (Rice
    et al. 2020, arXiv:2002.11569). best_iterate: per sample the iterate with the largest loss, not the last; start
    and end included, of equal ones the earlier (MadryLab/robustness). Either costs a forward pass per run.
    generator: for random starts; a torch.Generator (one of x's device spares a copy), or the images' keys.
    precision: of the network alone; images, loss and all between are in x's dtype.
    mode: "keep" attacks the model in the mode it is in; see `frozen`.
    checked: x and y come from a loader, which gives nothing that would be refused; spares a wait for the GPU.
    fold_batch_norm: on CPUs, convolutions take over the BatchNorms behind them during the attack, which is faster and
    the same but for rounding; for a model that is attacked many times (`folding.pairs_of`).
    Raises ValueError as `checks` says.
    """
    check_settings(epsilon=epsilon, step_size=step_size, num_steps=num_steps, restarts=restarts)
    check_choice("against", against, Against)
    seen = attacked(model, x, y, mode=mode, precision=precision, checked=checked, fold_batch_norm=fold_batch_norm)
    with seen as (victim, x, y):
        target = y if against == "labels" else victim.logits(x)
        ascend = partial(_ascend, victim, x, loss, target, epsilon=epsilon, step_size=step_size, num_steps=num_steps)

        def run(restart: int) -> _Iterate:
            source = later(generator, restart) if isinstance(generator, Tensor) else generator
            first = start(x, epsilon=epsilon, generator=source)
            if best_iterate:
                return reduce(partial(_better, torch.gt), ascend(project(first, x, epsilon), look_at_last=True))
            return reduce(lambda _, new: new, ascend(first, look_at_last=restarts > 1))

        return reduce(partial(_better, torch.ge), map(run, range(restarts))).x


def pgd_path(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    step_size: float,
    num_steps: int,
    loss: Loss = cross_entropy,
    against: Against = "labels",
    start: Start = uniform_start,
    generator: Randomness = None,
    precision: Precision = "fp32",
    mode: Mode = "eval",
    checked: bool = False,
    fold_batch_norm: bool = False,
    look_at_last: bool = True,
) -> PgdPath:
    """The images of `pgd` with the same settings, and which iterates the model classifies right.

    look_at_last: False spares the forward pass at the result, and with it the last row; kappa needs neither.
    """
    check_settings(epsilon=epsilon, step_size=step_size, num_steps=num_steps)
    check_choice("against", against, Against)
    seen = attacked(model, x, y, mode=mode, precision=precision, checked=checked, fold_batch_norm=fold_batch_norm)
    with seen as (victim, x, y):
        target = y if against == "labels" else victim.logits(x)
        ascend = partial(_ascend, victim, x, loss, target, epsilon=epsilon, step_size=step_size, num_steps=num_steps)
        rows, x_adv = [], x
        for iterate in ascend(start(x, epsilon=epsilon, generator=generator), look_at_last=look_at_last):
            x_adv = iterate.x
            rows += [~wrong(iterate.logits, y)] if iterate.logits is not None else []
    correct = torch.stack(rows)
    return PgdPath(x_adv, correct, correct[:num_steps].sum(dim=0))


def fgsm(
    model: nn.Module, x: Images, y: Labels, *, epsilon: float, precision: Precision = "fp32", mode: Mode = "eval"
) -> Images:
    """project(x + epsilon * sign(gradient of cross-entropy)) (Goodfellow et al. 2015, arXiv:1412.6572)."""
    return pgd(
        model, x, y, epsilon=epsilon, step_size=epsilon, num_steps=1, start=no_start, precision=precision, mode=mode
    )


class _Iterate(NamedTuple):
    """An iterate and what the model says there; None at the last one if nobody wants to know."""

    x: Images
    logits: Logits | None = None
    losses: PerExample | None = None


def _ascend(
    victim: FrozenModel,
    x: Images,
    loss: Loss,
    target: Tensor,
    x_adv: Images,
    *,
    epsilon: float,
    step_size: float,
    num_steps: int,
    look_at_last: bool,
) -> Iterator[_Iterate]:
    """All num_steps + 1 iterates, from x_adv on."""
    ball = bounds(x, epsilon)
    for _ in range(num_steps):
        gradient, logits, losses = victim.gradient(x_adv, loss, target)
        yield _Iterate(x_adv, logits, losses)
        x_adv = step(x_adv, gradient, step_size).clamp_(*ball)
    logits = victim.logits(x_adv) if look_at_last else None
    yield _Iterate(x_adv, logits, None if logits is None else loss(logits, target))


def _better(beats: Callable[[Tensor, Tensor], Tensor], old: _Iterate, new: _Iterate) -> _Iterate:
    """Image by image the new iterate where its loss `beats` the old one's, else the old; without logits."""
    assert old.losses is not None and new.losses is not None  # noqa: PT018
    wins = beats(new.losses, old.losses)
    return _Iterate(choose(wins, new.x, old.x), losses=choose(wins, new.losses, old.losses))
