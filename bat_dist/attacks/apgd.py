"""Auto-PGD in the l_inf ball (Croce & Hein 2020, arXiv:2003.01690, Section 3, Algorithm 1).

    z_{k+1} = project(x_k + step * sign(gradient at x_k))
    x_{k+1} = project(x_k + a (z_{k+1} - x_k) + (1 - a) (x_k - x_{k-1}))            a = 0.75, in the first step 1

The step is 2 epsilon at first. At the checkpoints it is halved for the images whose loss no longer grows, and these go
back to the best point they have seen. AutoAttack runs it once with cross-entropy, and with the targeted DLR loss once
towards each of the nine wrong classes that are likeliest at the clean image. AutoAttack `rand`, for networks that draw
random numbers, runs it with cross-entropy and with the DLR loss, and averages each gradient over 20 passes.

An image leaves at its first iterate that the model gets wrong.
"""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from bat_dist.attacks.checks import check_settings
from bat_dist.attacks.classes import CLASSES_OF_DLR, CLASSES_OF_TARGETED_DLR, check_classes, check_targets
from bat_dist.attacks.frozen import FrozenModel, GradientAt, attacked, wrong
from bat_dist.attacks.linf import Images, by_image, choose, length, project
from bat_dist.attacks.losses import Labels, Logits, Loss, PerExample, cross_entropy
from bat_dist.attacks.noise import Keys, image_keys, uniform
from bat_dist.attacks.standing import AttackOutcome, Ids, Survivors
from bat_dist.attacks.targets import likely_targets

RHO = 0.75  # the part of the steps between two checkpoints that must raise the loss
MOMENTUM = 0.75  # the paper's alpha; a above


def apgd(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    seed: int,
    ids: Ids,
    logits: Logits | None = None,
    loss: Loss = cross_entropy,
    num_steps: int = 100,
    num_draws: int = 1,
) -> AttackOutcome:
    """One run from a random start, ascending a loss of logits and labels.

    num_draws: see `FrozenModel`. Costs at most num_draws * num_steps + 1 forward and num_draws * num_steps backward
    passes, and a forward pass without `logits`.
    """
    check_settings(epsilon=epsilon, step_size=epsilon, num_steps=num_steps, num_draws=num_draws)
    with attacked(model, x, y, ids) as (victim, x, y):
        victim, standing = replace(victim, num_draws=num_draws), Survivors(x)
        x, y, ids = standing.fell(wrong(victim.logits(x, logits), y), x, x, y, ids)
        if len(standing):
            start = random_start(x, image_keys(seed, "apgd", ids), epsilon)
            robust, x_adv = ascend(victim, x, y, y, start, loss=loss, epsilon=epsilon, num_steps=num_steps)
            standing.fell(~robust, x_adv)
        return standing.outcome


def apgd_targeted(
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
    """A run of `targeted_dlr` towards each of the num_targets likeliest wrong classes, each from its own start."""
    check_settings(epsilon=epsilon, step_size=epsilon, num_steps=num_steps, num_targets=num_targets)
    with attacked(model, x, y, ids) as (victim, x, y):
        logits = victim.logits(x, logits)
        check_targets("APGD-T", logits.shape[1], num_targets)
        check_classes({"the targeted DLR loss": CLASSES_OF_TARGETED_DLR}, logits.shape[1], verb="needs")
        standing, targets = Survivors(x), likely_targets(logits, num_targets)
        x, y, ids, targets = standing.fell(wrong(logits, y), x, x, y, ids, targets)
        for number in range(num_targets):
            if not len(standing):
                break
            start = random_start(x, image_keys(seed, f"apgd-t {number}", ids), epsilon)
            pair = torch.stack([y, targets[:, number]], dim=1)
            robust, x_adv = ascend(victim, x, y, pair, start, loss=targeted_dlr, epsilon=epsilon, num_steps=num_steps)
            x, y, ids, targets = standing.fell(~robust, x_adv, x, y, ids, targets)
        return standing.outcome


def dlr(logits: Logits, labels: Labels) -> PerExample:
    """-(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), z_(k) the k-th largest logit (arXiv:2003.01690, Eq. 6).

    Raises UserError for fewer than three classes.
    """
    check_classes({"the DLR loss": CLASSES_OF_DLR}, logits.shape[1], verb="needs")
    first, second, third = logits.topk(3, dim=1).values.unbind(dim=1)
    true = logits.gather(1, labels[:, None]).squeeze(1)
    other = torch.where(logits.argmax(dim=1) == labels, second, first)
    return -(true - other) / (first - third + 1e-12)


def targeted_dlr(logits: Logits, label_and_target: Int64[Tensor, "batch 2"]) -> PerExample:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), z_(k) the k-th largest logit (arXiv:2003.01690, Eq. 7)."""
    true, target = logits.gather(1, label_and_target).unbind(dim=1)
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(dim=1)
    return -(true - target) / (first - 0.5 * (third + fourth) + 1e-12)


def random_start(x: Images, keys: Keys, epsilon: float) -> Images:
    """Uniform noise, its largest pixel scaled to the border of the ball, clipped to [0, 1] (the published code)."""
    noise = 2 * uniform(keys, 0, *x.shape[1:], dtype=x.dtype) - 1
    return (x + noise * by_image(epsilon / (length(noise) + 1e-12), x)).clamp(0, 1)


def checkpoints(num_steps: int) -> list[int]:
    """After which steps the step size is judged: 22, 41, 57, 70, 80, 87, 93, 99 of 100 (Section 3.1).

    The first distance is 22% of the steps, each further one 3% shorter, down to 6%; in whole steps, cut off.
    """
    distance, shortest, less = (max(int(part * num_steps), 1) for part in (0.22, 0.06, 0.03))
    found, at = [], distance
    while at <= num_steps:
        found.append(at)
        distance = max(distance - less, shortest)
        at += distance
    return found


def ascend(
    victim: FrozenModel,
    x: Images,
    y: Labels,
    against: Tensor,
    start: Images,
    *,
    loss: Loss,
    epsilon: float,
    num_steps: int,
) -> AttackOutcome:
    """Auto-PGD from `start` (Algorithm 1); the loss compares logits with `against`, which has a row per image."""
    standing = Survivors(x)
    judged_after = {at: at - before for before, at in pairwise([0, *checkpoints(num_steps)])}
    gradient, logits, losses = victim.gradient(start, loss, against)
    zeros = torch.zeros_like(losses)  # the published code compares the loss after the first step with 0, and so do we
    sizes, rises, halved = torch.full_like(losses, 2 * epsilon), torch.zeros_like(y), torch.ones_like(y).bool()
    climb = Climb(x, y, against, start, start, gradient, start, gradient, losses, sizes, zeros, rises, losses, halved)
    climb = Climb(*standing.fell(wrong(logits, y), start, *climb))
    for number in range(1, num_steps + 1):
        if not len(standing):
            break
        x_adv = climb.next_iterate(epsilon, MOMENTUM if number > 1 else 1.0)
        if number == num_steps:  # nobody will ask for the gradient there
            standing.fell(wrong(victim.logits(x_adv), climb.y), x_adv)
            break
        seen = victim.gradient(x_adv, loss, climb.against)
        climb = climb.moved(x_adv, seen)
        climb = Climb(*standing.fell(wrong(seen.logits, climb.y), x_adv, *climb))
        if number in judged_after:
            climb = climb.judged(judged_after[number])
    return standing.outcome


class Climb(NamedTuple):
    """Where each image is on its way up the loss, a row per image."""

    x: Images
    y: Labels
    against: Tensor
    x_adv: Images
    previous: Images
    gradient: Images
    best: Images
    best_gradient: Images
    best_loss: PerExample
    step_size: PerExample
    last_loss: PerExample
    rises: Int64[Tensor, " batch"]  # of the loss, since the last checkpoint
    best_at_check: PerExample
    halved_at_check: Bool[Tensor, " batch"]

    def next_iterate(self, epsilon: float, momentum: float) -> Images:
        """x_{k+1} of the module's equations; momentum: their a."""
        step = by_image(self.step_size, self.x) * self.gradient.sign()
        move = project(self.x_adv + step, self.x, epsilon) - self.x_adv
        return project(self.x_adv + momentum * move + (1 - momentum) * (self.x_adv - self.previous), self.x, epsilon)

    def moved(self, x_adv: Images, seen: GradientAt) -> "Climb":
        """The state after the step to x_adv, with what the model says there."""
        gradient, _, losses = seen
        better = losses > self.best_loss
        return self._replace(
            x_adv=x_adv,
            previous=self.x_adv,
            gradient=gradient,
            best=choose(better, x_adv, self.best),
            best_gradient=choose(better, gradient, self.best_gradient),
            best_loss=choose(better, losses, self.best_loss),
            rises=self.rises + (losses > self.last_loss),
            last_loss=losses,
        )

    def judged(self, steps: int) -> "Climb":
        """The state after a checkpoint: halved step sizes, from the best points, where Section 3.1 says so.

        Its conditions: too few rises in the steps since the last checkpoint, or no better point since one that did not
        halve.
        """
        few = self.rises <= RHO * steps
        stuck = ~self.halved_at_check & (self.best_at_check >= self.best_loss)
        halve = few | stuck
        return self._replace(
            step_size=torch.where(halve, self.step_size / 2, self.step_size),
            x_adv=choose(halve, self.best, self.x_adv),
            gradient=choose(halve, self.best_gradient, self.gradient),
            rises=torch.zeros_like(self.rises),
            best_at_check=self.best_loss,
            halved_at_check=halve,
        )
