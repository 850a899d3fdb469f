"""FAB, the fast adaptive boundary attack in l_inf, targeted (Croce & Hein 2020, arXiv:1907.02044).

It looks for the nearest image beyond the decision boundary, whatever epsilon is. The boundary to the target class is
linearized at the iterate; iterate and clean image are projected onto that plane inside [0, 1] (`plane`), overshoot it
by eta and are mixed, the clean image with a weight alpha of at most alpha_max (Eq. 9, 10). From an adversarial image
the search goes back towards the clean one by the factor beta (Eq. 11).

AutoAttack's choices: from the clean image (so nothing is random), towards each of the nine wrong classes that are
likeliest there. An image leaves as soon as an adversarial one within epsilon is found.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bat_dist.attacks.checks import check_settings
from bat_dist.attacks.classes import check_targets
from bat_dist.attacks.frozen import FrozenModel, attacked, wrong
from bat_dist.attacks.linf import Images, by_image, choose, length
from bat_dist.attacks.losses import Labels, Logits, PerExample
from bat_dist.attacks.plane import to_plane
from bat_dist.attacks.standing import AttackOutcome, Flags, Ids, Survivors
from bat_dist.attacks.targets import likely_targets

ALPHA_MAX = 0.1
ETA = 1.05
BETA = 0.9
GPU_PASSES = 8  # of Newton's method between two looks at a GPU; two or three are enough for most steps


def fab_targeted(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    seed: int,
    ids: Ids,
    logits: Logits | None = None,
    num_targets: int = 9,
    num_steps: int = 100,
) -> AttackOutcome:
    """A run towards each of the num_targets likeliest wrong classes. seed and ids are not used: nothing is random.

    Costs at most num_targets * num_steps backward and twice as many forward passes, and one more without `logits`.
    """
    check_settings(epsilon=epsilon, step_size=epsilon, num_steps=num_steps, num_targets=num_targets)
    with attacked(model, x, y, ids) as (victim, x, y):
        logits = victim.logits(x, logits)
        check_targets("FAB-T", logits.shape[1], num_targets)
        standing, targets = Survivors(x), likely_targets(logits, num_targets)
        x, y, targets = standing.fell(wrong(logits, y), x, x, y, targets)
        for number in range(num_targets):
            if not len(standing):
                break
            robust, x_adv = approach(victim, x, y, targets[:, number], epsilon=epsilon, num_steps=num_steps)
            x, y, targets = standing.fell(~robust, x_adv, x, y, targets)
        return standing.outcome


def approach(
    victim: FrozenModel, x: Images, y: Labels, target: Labels, *, epsilon: float, num_steps: int
) -> AttackOutcome:
    """FAB from the clean images towards one class each."""
    as_channels = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if as_channels else torch.contiguous_format  # which suits the network
    x = x.contiguous()  # the many sums over whole images want their pixels in a row
    standing, pair, iterate = Survivors(x), torch.stack([y, target], dim=1), x
    passes = None if x.device.type == "cpu" else GPU_PASSES
    for _ in range(num_steps):
        if not len(standing):
            break
        gradient, _, lead = victim.gradient(iterate.contiguous(memory_format=layout), targets_lead, pair)
        take = partial(FabStep.taken, victim, iterate, x, gradient.contiguous(), lead, pair[:, 0], epsilon)
        step = take(passes)
        fallen, is_exact = torch.stack([step.fallen, step.is_exact]).cpu()  # what a GPU is waited for, once
        if not is_exact.all():
            step = take(None)
            fallen = step.fallen
        x, pair, iterate = standing.fell(fallen, step.iterate, x, pair, step.back)
    return standing.outcome


class FabStep(NamedTuple):
    """Where a step leads: the next iterate, whether it is adversarial and within epsilon, and whence to go on.

    is_exact: whether both projections were. Of another step nothing holds.
    """

    iterate: Images
    fallen: Flags
    back: Images
    is_exact: Flags

    @classmethod
    def taken(
        cls,
        victim: FrozenModel,
        iterate: Images,
        x: Images,
        gradient: Images,
        lead: PerExample,
        y: Labels,
        epsilon: float,
        passes: int | None,
    ) -> "FabStep":
        """A step from the iterate, with so many passes of `to_plane`."""
        iterate, is_exact = next_iterate(iterate, x, gradient, lead, passes=passes)
        adversarial = wrong(victim.logits(iterate), y)
        fallen = adversarial & (length(iterate - x) <= epsilon)
        return cls(iterate, fallen, choose(adversarial, x + (iterate - x) * BETA, iterate), is_exact)


def targets_lead(logits: Logits, label_and_target: Tensor) -> PerExample:
    """The target's logit less the label's, which FAB linearizes (arXiv:1907.02044): 0 at the boundary."""
    true, target = logits.gather(1, label_and_target).unbind(dim=1)
    return target - true


def next_iterate(
    iterate: Images, x: Images, gradient: Images, lead: PerExample, *, passes: int | None = None
) -> tuple[Images, Flags]:
    """The mix of both projections onto the plane lead + <gradient, z - iterate> = 0 (arXiv:1907.02044, Eq. 9, 10).

    Beside it whether `passes` of `to_plane` were enough.
    """
    lead_at_x = lead + (gradient * (x - iterate)).flatten(1).sum(dim=1)
    far, near = (to_plane(*place, passes=passes) for place in ((iterate, gradient, lead), (x, gradient, lead_at_x)))
    to_far, to_near = (length(found.move).clamp(min=1e-8) for found in (far, near))
    alpha = by_image((to_far / (to_far + to_near)).clamp(max=ALPHA_MAX), x)
    mixed = ((1 - alpha) * (iterate + ETA * far.move) + alpha * (x + ETA * near.move)).clamp(0, 1)
    return mixed, far.is_shortest & near.is_shortest
