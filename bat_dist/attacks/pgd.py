"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083) in the l_inf ball; FGSM is one step of it.

    x_{k+1} = project(x_k + step_size * sign(grad loss(f(x_k), target)))        k = 0 .. num_steps - 1

All randomness comes from `generator`. The model is seen through `frozen` and left as it was. A step costs one forward
pass and one backward pass with respect to the images alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from bat_dist.attacks.checks import check_batch, check_choice, check_logits, check_settings
from bat_dist.attacks.frozen import Mode, frozen
from bat_dist.attacks.linf import Images, Start, no_start, project, step, uniform_start
from bat_dist.attacks.losses import Labels, Logits, Loss, PerExample, cross_entropy
from bat_dist.attacks.victim import wrong

Against = Literal["labels", "clean_logits"]
Precision = Literal["fp32", "bf16"]


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
    generator: torch.Generator | None = None,
    precision: Precision = "fp32",
    mode: Mode = "eval",
) -> Images:
    """Adversarial images: |x_adv - x| <= epsilon, in [0, 1], detached, with x's dtype, device and memory format.

    x: images in [0, 1]; epsilon and step_size in their units.
    against: what the loss compares the logits with: the labels, or the model's logits at x (for `kl_divergence`;
    costs one forward pass).
    restarts: of several runs, each sample keeps the one that ends with the larger loss, of equal ones the later (Rice
    et al. 2020, arXiv:2002.11569). best_iterate: per sample the iterate with the largest loss, not the last; start
    and end included, of equal ones the earlier (MadryLab/robustness). Either costs a forward pass per run.
    generator: for random starts, of any device; one of x's device spares a copy.
    precision: of the network alone; images, loss and all between are in x's dtype.
    mode: "keep" attacks the model in the mode it is in; see `frozen`.
    Raises ValueError as `checks` says.
    """
    check_settings(epsilon=epsilon, step_size=step_size, num_steps=num_steps, restarts=restarts)
    with _attacked(model, x, y, loss, against, precision, mode) as (x, y, objective):
        ascend = partial(_ascend, objective, x, epsilon=epsilon, step_size=step_size, num_steps=num_steps)

        def run() -> _Iterate:
            first = start(x, epsilon=epsilon, generator=generator)
            if best_iterate:
                return reduce(_earlier_best, ascend(project(first, x, epsilon), look_at_last=True))
            return reduce(_last, ascend(first, look_at_last=restarts > 1))

        return reduce(_later_best, (run() for _ in range(restarts))).x


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
    generator: torch.Generator | None = None,
    precision: Precision = "fp32",
    mode: Mode = "eval",
    look_at_last: bool = True,
) -> PgdPath:
    """The images of `pgd` with the same settings, and which iterates the model classifies right.

    look_at_last: False spares the forward pass at the result, and with it the last row; kappa needs neither.
    """
    check_settings(epsilon=epsilon, step_size=step_size, num_steps=num_steps)
    with _attacked(model, x, y, loss, against, precision, mode) as (x, y, objective):
        ascend = partial(_ascend, objective, x, epsilon=epsilon, step_size=step_size, num_steps=num_steps)
        rows, x_adv = [], x
        for iterate in ascend(start(x, epsilon=epsilon, generator=generator), look_at_last=look_at_last):
            x_adv = iterate.x
            rows += [~wrong(iterate.seen.logits, y)] if iterate.seen else []
    correct = torch.stack(rows)
    return PgdPath(x_adv, correct, correct[:num_steps].sum(dim=0))


def fgsm(
    model: nn.Module, x: Images, y: Labels, *, epsilon: float, precision: Precision = "fp32", mode: Mode = "eval"
) -> Images:
    """project(x + epsilon * sign(gradient of cross-entropy)) (Goodfellow et al. 2015, arXiv:1412.6572)."""
    return pgd(
        model, x, y, epsilon=epsilon, step_size=epsilon, num_steps=1, start=no_start, precision=precision, mode=mode
    )


class _Seen(NamedTuple):
    """What the model says at an iterate; without a graph outside of `_gradient`."""

    logits: Logits
    losses: PerExample


class _Iterate(NamedTuple):
    x: Images
    seen: _Seen | None


_Objective = Callable[[Images], _Seen]


@contextmanager
def _attacked(
    model: nn.Module, x: Images, y: Labels, loss: Loss, against: Against, precision: Precision, mode: Mode
) -> Iterator[tuple[Images, Labels, _Objective]]:
    """x and y free of any graph, and what to ascend, while the model is frozen.

    The same whatever contexts the caller is in: no_grad, inference_mode, autocast.
    """
    check_choice("against", against, Against)
    check_choice("precision", precision, Precision)
    check_choice("mode", mode, Mode)
    largest = check_batch(x, y)
    no_autocast = torch.autocast(x.device.type, enabled=False)  # a caller's would reach the loss and the backward pass
    with torch.inference_mode(False), torch.enable_grad(), no_autocast, frozen(model, mode=mode):
        x, y = x.detach().clone(), y.clone()  # a tensor of inference mode may enter a graph only as a copy
        target = y if against == "labels" else _logits(model, x, precision)

        def objective(x_adv: Images) -> _Seen:
            logits = _logits(model, x_adv, precision)
            check_logits(logits, len(x_adv), largest)
            return _Seen(logits, loss(logits, target))

        yield x, y, objective


def _ascend(
    objective: _Objective,
    x: Images,
    x_adv: Images,
    *,
    epsilon: float,
    step_size: float,
    num_steps: int,
    look_at_last: bool,
) -> Iterator[_Iterate]:
    """All num_steps + 1 iterates from x_adv on; `seen` is None at the last if nobody wants to know."""
    for _ in range(num_steps):
        gradient, seen = _gradient(objective, x_adv)
        yield _Iterate(x_adv, seen)
        x_adv = project(step(x_adv, gradient, step_size), x, epsilon)
    with torch.no_grad():
        last = objective(x_adv) if look_at_last else None
    yield _Iterate(x_adv, last)


def _gradient(objective: _Objective, x_adv: Images) -> tuple[Images, _Seen]:
    """Of the sum of the losses: per sample, its own loss's (in train mode BatchNorm mixes the samples in)."""
    leaf = x_adv.detach().requires_grad_()
    logits, losses = objective(leaf)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return gradient, _Seen(logits.detach(), losses.detach())


def _logits(model: nn.Module, x: Images, precision: Precision) -> Logits:
    """In x's dtype, whatever the network runs in."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        return model(x).to(x.dtype)


def _last(_: _Iterate, new: _Iterate) -> _Iterate:
    return new


def _earlier_best(old: _Iterate, new: _Iterate) -> _Iterate:
    return _better(torch.gt, old, new)


def _later_best(old: _Iterate, new: _Iterate) -> _Iterate:
    return _better(torch.ge, old, new)


def _better(beats: Callable[[Tensor, Tensor], Tensor], old: _Iterate, new: _Iterate) -> _Iterate:
    """Sample by sample the new iterate where its loss `beats` the old one's, else the old."""
    assert old.seen and new.seen  # noqa: PT018
    wins = beats(new.seen.losses, old.seen.losses)
    seen = _Seen(*(_choose(wins, *pair) for pair in zip(new.seen, old.seen, strict=True)))
    return _Iterate(_choose(wins, new.x, old.x), seen)


def _choose(wins: Bool[Tensor, " batch"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(wins.view(-1, *[1] * (new.ndim - 1)), new, old)
