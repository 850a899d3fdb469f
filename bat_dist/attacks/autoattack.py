"""AutoAttack `standard` in the l_inf ball (Croce & Hein 2020, arXiv:2003.01690): four attacks, one after another.

APGD-CE, APGD-T, FAB-T and Square, without parameters to tune. An image that one of them fools does not see the next.
What happens to an image depends on the model, the image, the seed and its id alone: images may come in any batches, in
any order and on any number of processes, up to the rounding of the model itself, which may differ with the batch size.
`STANDARD[name].attack` on some images is a unit of work for a scheduler; `autoattack` is the plain loop over them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from bat_dist.attacks.apgd import apgd, apgd_targeted
from bat_dist.attacks.batches import usual_batch_size
from bat_dist.attacks.checks import check_settings
from bat_dist.attacks.classes import INSTEAD, check_classes
from bat_dist.attacks.fab import fab_targeted
from bat_dist.attacks.frozen import attacked, wrong
from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels, Logits
from bat_dist.attacks.square import square
from bat_dist.attacks.standing import Attack, AttackOutcome, Ids


class StandardAttack(NamedTuple):
    """An attack and how many classes it needs."""

    attack: Attack
    fewest_classes: int


STANDARD: Mapping[str, StandardAttack] = {
    "apgd-ce": StandardAttack(apgd, 2),
    "apgd-t": StandardAttack(apgd_targeted, 10),
    "fab-t": StandardAttack(fab_targeted, 10),
    "square": StandardAttack(square, 2),
}


class AutoAttackResult(NamedTuple):
    """robust: whether each image is classified right, clean and after each attack. x_adv: as `AttackOutcome`'s."""

    stages: tuple[str, ...]
    robust: Bool[Tensor, "stages batch"]
    x_adv: Images


def autoattack(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    seed: int = 0,
    ids: Ids | None = None,
    attacks: Mapping[str, StandardAttack] = STANDARD,
    batch_size: int | None = None,
) -> AutoAttackResult:
    """Run the attacks in order, each on the images that are still robust, batch_size at a time.

    x: images [batch, 3, height, width] in [0, 1], and epsilon in their units. ids: a number that names each image in
    whatever batch it comes; None takes its position in x. batch_size: None takes as many as suit the images' device.
    Raises ValueError for a bad batch, and UserError, before anything is attacked, for too few classes for an attack.
    """
    ids = torch.arange(len(x), device=x.device) if ids is None else ids
    batch_size = usual_batch_size(on_gpu=x.device.type == "cuda") if batch_size is None else batch_size
    check_settings(epsilon=epsilon, step_size=epsilon, batch_size=batch_size)
    logits = clean_logits(model, x, y, batch_size=batch_size)
    needed = {name: stage.fewest_classes for name, stage in attacks.items()}
    check_classes(needed, logits.shape[1], f"AutoAttack standard is not defined for it; {INSTEAD}")
    robust, x_adv = [~wrong(logits, y)], x.detach().clone()
    for stage in attacks.values():
        robust.append(robust[-1].clone())
        standing = robust[-1].nonzero().squeeze(1)
        for rows in standing.split(batch_size) if len(standing) else ():  # `split` of none gives an empty one
            batch = x[rows], y[rows]
            outcome = stage.attack(model, *batch, epsilon=epsilon, seed=seed, ids=ids[rows], logits=logits[rows])
            robust[-1][rows], x_adv[rows] = confirmed(model, *batch, outcome)
    return AutoAttackResult(("clean", *attacks), torch.stack(robust), x_adv)


def clean_logits(model: nn.Module, x: Images, y: Labels, *, batch_size: int) -> Logits:
    """The model's logits at images in [0, 1] whose labels name its classes. Raises ValueError for other images."""
    parts = []
    for part_x, part_y in zip(x.split(batch_size), y.split(batch_size), strict=True):
        with attacked(model, part_x, part_y) as (victim, images, _):
            parts.append(victim.logits(images))
    return torch.cat(parts)


def confirmed(model: nn.Module, x: Images, y: Labels, outcome: AttackOutcome) -> AttackOutcome:
    """Only those fall whose x_adv this model, asked once more, gets wrong; the others are robust, x_adv as it was.

    An image at the very border may change sides with the rounding of another batch size, or of a faster form of the
    model that the attack was given. Costs a forward pass over the fallen.
    """
    fallen = (~outcome.robust).nonzero().squeeze(1)
    if not len(fallen):
        return outcome
    with attacked(model, outcome.x_adv[fallen], y[fallen]) as (victim, x_adv, labels):
        stands = fallen[~wrong(victim.logits(x_adv), labels)]
    outcome.robust[stands], outcome.x_adv[stands] = True, x[stands]
    return outcome
