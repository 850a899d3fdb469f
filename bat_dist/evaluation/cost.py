"""What an evaluation costs: passes and units of its plan, if a given share of the images stands.  Imports no torch.

PGD, CW and FGSM attack an image to their last step, whether it has fallen or not; they are counted for every image,
as if all were right when clean. The parts of AutoAttack drop what falls, mostly at once, and the next part does not see
it: they are counted for the images that stand.
"""

from typing import NamedTuple

from bat_dist.evaluation.names import STANDARD, has_gradient, num_targets_of, steps_of
from bat_dist.evaluation.plan import checks_of, make_plan, unit_size

PASSES_OF_STEP = 3  # as `names.passes` counts: one forward, and two for the backward pass


class AttackCost(NamedTuple):
    """forward: passes alone. steps: forward and backward. rows, attacked, units: what is written about them."""

    forward: float
    steps: float
    rows: int  # of the result, each with a flag for every image
    attacked: float  # images, over all stages
    units: int


def bill(
    attacks: tuple[str, ...],
    *,
    num_images: int,
    num_classes: int,
    robust_share: float,
    check_images: int,
    batch_size: int,
    num_seeds: int = 1,
    restarts: int = 1,
) -> AttackCost:
    """The cost of evaluating one network.

    check_images: of the hygiene checks, 0 leaves them out. num_seeds: of the attacks. restarts: of pgd and cw, counted
    as if every image stood to the last.
    """
    plan = make_plan(attacks, range(num_seeds), checks=checks_of(num_classes) if check_images else ())
    met = {}  # how many images a stage attacks to the end
    for stage in plan.stages:
        falls_at_once = stage.attack in STANDARD or num_targets_of(stage.attack)
        share = robust_share if falls_at_once else 1
        met[stage] = min(check_images, num_images) if stage.among == "checked" else num_images * share
    forward = sum(number * stage.passes for stage, number in met.items() if not has_gradient(stage.attack))
    others = sum(
        number * stage.passes * _times(stage.attack, restarts)
        for stage, number in met.items()
        if has_gradient(stage.attack)
    )
    units = sum(-(-int(number) // unit_size(stage, batch_size)) for stage, number in met.items())
    return AttackCost(forward, others / PASSES_OF_STEP, len(plan.rows), sum(met.values()), units)


def _times(attack: str, restarts: int) -> int:
    """How often an attack, or one of a hygiene check, begins anew: PGD and CW do."""
    return restarts if steps_of(attack.partition("-")[0]) is not None else 1
