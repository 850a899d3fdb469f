"""Attack some images with one of the evaluation's attacks: what a worker does."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from bat_dist.attacks.apgd import apgd, apgd_targeted, dlr
from bat_dist.attacks.autoattack import confirmed
from bat_dist.attacks.fab import fab_targeted
from bat_dist.attacks.folding import faster
from bat_dist.attacks.frozen import attacked, wrong
from bat_dist.attacks.linf import Images, choose
from bat_dist.attacks.losses import Labels, Loss, cross_entropy, margin, rescaled_cross_entropy
from bat_dist.attacks.noise import image_keys
from bat_dist.attacks.pgd import fgsm, pgd
from bat_dist.attacks.square import square
from bat_dist.attacks.standing import AttackOutcome, Flags, Ids
from bat_dist.data.augment import to_float
from bat_dist.data.memory_loader import shared_tensor
from bat_dist.errors import is_gpu_full
from bat_dist.evaluation.names import CLEAN, SQUARE_QUERIES, num_draws_of, num_targets_of, steps_of
from bat_dist.models.classifier import ImageClassifier

log = logging.getLogger(__name__)

LARGE_EPSILON = 0.5  # every image can become the same grey one, so no network is robust there


class Networks(NamedTuple):
    """A network, and the same in a faster form to attack in its place; what falls is confirmed by the network."""

    model: nn.Module
    fast: nn.Module

    def tensor(self, images: UInt8[np.ndarray, "batch height width 3"]) -> Images:
        """The images in [0, 1], float32, on the network's device, in the memory format that suits it."""
        parts = chain(self.model.parameters(), self.model.buffers())  # weights may be buffers alone
        device = next((part.device for part in parts), torch.device("cpu"))
        x = to_float(shared_tensor(images).to(device))
        return x.contiguous(memory_format=_memory_format(self.model))


def prepare(model: nn.Module, images: UInt8[np.ndarray, "batch height width 3"], device: torch.device) -> Networks:
    """The network in eval mode on the device, and its faster form, which must agree on these few images."""
    model = model.to(device=device).eval().requires_grad_(False)
    plain = Networks(model.to(memory_format=_memory_format(model)), model)  # pyright: ignore[reportCallIssue]
    return plain._replace(fast=faster(model, plain.tensor(images)))


def _memory_format(model: nn.Module) -> torch.memory_format:
    """Others' networks may ask for a `view` of their input."""
    return torch.channels_last if isinstance(model, ImageClassifier) else torch.contiguous_format


@dataclass(frozen=True)
class Settings:
    """What all attacks of an evaluation share; epsilon and step_size in [0, 1] pixels."""

    epsilon: float
    step_size: float  # of pgd and cw
    restarts: int  # of pgd and cw; the worst counts


def attack_images(
    networks: Networks, x: Images, y: Labels, ids: Ids, *, attack: str, seed: int, settings: Settings
) -> AttackOutcome:
    """Is each image still classified right after the attack, and if not, what fools the network?

    All at once, or in halves where memory is short: an image's random numbers depend on (seed, attack, restart, its id)
    alone, so batches may be cut in any way. fp32, eval mode. Raises ValueError for images or labels that cannot be
    attacked.
    """
    return _halving(partial(attack_batch, networks, attack=attack, seed=seed, settings=settings), (x, y, ids))


def largest_move(x: Images, outcome: AttackOutcome) -> float:
    """max |x_adv - x| over all pixels: at most epsilon."""
    return float((outcome.x_adv - x).abs().max())


def attack_batch(
    networks: Networks, x: Images, y: Labels, ids: Ids, *, attack: str, seed: int, settings: Settings
) -> AttackOutcome:
    """The faster form is attacked; where the network itself is not fooled by what came out, it is attacked itself."""
    model, fast = networks
    if attack == CLEAN:
        return AttackOutcome(_right(model, x, y), x)
    run = partial(attack_model, attack, seed=seed, settings=settings)
    outcome = run(fast, x, y, ids)
    fell = ~outcome.robust
    outcome = confirmed(model, x, y, outcome)
    again = (fell & outcome.robust).nonzero().squeeze(1)
    if len(again):
        found = confirmed(model, x[again], y[again], run(model, x[again], y[again], ids[again]))
        outcome.robust[again], outcome.x_adv[again] = found
    return outcome


def attack_model(
    name: str, model: nn.Module, x: Images, y: Labels, ids: Ids, *, seed: int, settings: Settings
) -> AttackOutcome:
    """One of the attacks of `names` or one of `plan.CHECKS`, on one form of the network."""
    epsilon = settings.epsilon
    match name.partition("-"):
        case ("fgsm", "", ""):
            return _outcome(model, x, y, fgsm(model, x, y, epsilon=epsilon))
        case ("apgd", _, _) if draws := num_draws_of(name):
            loss = dlr if "-dlr" in name else cross_entropy
            return apgd(model, x, y, epsilon=epsilon, seed=seed, ids=ids, loss=loss, num_draws=draws)
        case ("apgd", _, _) if targets := num_targets_of(name):
            return apgd_targeted(model, x, y, epsilon=epsilon, seed=seed, ids=ids, num_targets=targets)
        case ("fab", _, _):
            return fab_targeted(model, x, y, epsilon=epsilon, seed=seed, ids=ids, num_targets=num_targets_of(name))
        case ("square" | "square1000", "", ""):
            num_queries = 1000 if name == "square1000" else SQUARE_QUERIES
            return square(model, x, y, epsilon=epsilon, seed=seed, ids=ids, num_queries=num_queries)
        case (_, _, "rescaled"):
            return _pgd(name, model, x, y, ids, seed, settings, rescaled_cross_entropy)
        case (_, _, "large"):
            large = Settings(LARGE_EPSILON, LARGE_EPSILON / 10, settings.restarts)
            return _pgd(name, model, x, y, ids, seed, large, cross_entropy)
        case _:
            return _pgd(name, model, x, y, ids, seed, settings, margin if name.startswith("cw") else cross_entropy)


def _pgd(
    name: str, model: nn.Module, x: Images, y: Labels, ids: Ids, seed: int, settings: Settings, loss: Loss
) -> AttackOutcome:
    """PGD from a uniform start, then again from others on the images that still stand."""
    steps = steps_of(name.partition("-")[0])
    assert steps is not None
    robust, x_adv = torch.ones_like(y, dtype=torch.bool), x.clone()
    for restart in range(settings.restarts):
        at = robust.nonzero().squeeze(1)
        if not len(at):
            break
        keys = image_keys(seed, f"{name} {restart}", ids[at])
        epsilon, step_size = settings.epsilon, settings.step_size
        found = pgd(
            model, x[at], y[at], epsilon=epsilon, step_size=step_size, num_steps=steps, loss=loss, generator=keys
        )
        robust[at], x_adv[at] = _outcome(model, x[at], y[at], found)
    return AttackOutcome(robust, x_adv)


def _outcome(model: nn.Module, x: Images, y: Labels, x_adv: Images) -> AttackOutcome:
    robust = _right(model, x_adv, y)
    return AttackOutcome(robust, choose(robust, x, x_adv))


def _right(model: nn.Module, x: Images, y: Labels) -> Flags:
    with attacked(model, x, y) as (victim, x, y):
        return ~wrong(victim.logits(x), y)


Batch = tuple[Images, Labels, Ids]


def _halving(run: Callable[..., AttackOutcome], batch: Batch) -> AttackOutcome:
    """`run` on the batch, or on its halves where it does not fit into memory."""
    try:
        return run(*batch)
    except (RuntimeError, MemoryError) as error:
        size = len(batch[0])
        if size == 1 or not (isinstance(error, MemoryError) or is_gpu_full(error)):
            raise
        log.warning("out of memory with %d images: halving", size)
    torch.cuda.empty_cache()  # what the whole batch had is free for cuDNN too, which does not ask torch for memory
    halves = zip(*(tensor.split((size + 1) // 2) for tensor in batch), strict=True)
    outcomes = [_halving(run, half) for half in halves]
    return AttackOutcome(*map(torch.cat, zip(*outcomes, strict=True)))
