"""Attack a block of images: the unit of work of an evaluation."""

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor, nn

from bat_dist.attacks.autoattack import STANDARD, autoattack
from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import cross_entropy, margin
from bat_dist.attacks.noise import image_keys, uniform
from bat_dist.attacks.pgd import fgsm, pgd
from bat_dist.evaluation.names import AUTOATTACK, rows_of, steps_of

log = logging.getLogger(__name__)


def robust_flags(
    model: nn.Module,
    images: UInt8[np.ndarray, "block height width 3"],
    labels: Int64[np.ndarray, " block"],
    ids: Int64[np.ndarray, " block"],
    *,
    attacks: tuple[str, ...],
    epsilon: float,
    step_size: float,
    restarts: int,
    seed: int,
    device: torch.device,
) -> Bool[np.ndarray, "rows block"]:
    """Is each image classified right after each attack?  A row for each of `names.rows_of(attacks)`.

    Each image's random numbers depend on (seed, attack, restart, its id) alone, so that blocks may be cut in any way.
    An image that is wrong when clean is not attacked. fp32, eval mode. Out of memory: the block is halved.
    """
    ends = {"epsilon": epsilon, "step_size": step_size, "restarts": restarts, "seed": seed}
    run = partial(_flags, model, attacks=attacks, **ends)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    flags = _halving(run, (x.to(device), torch.from_numpy(labels).to(device), torch.from_numpy(ids).to(device)))
    return flags.cpu().numpy()


def _flags(
    model: nn.Module,
    x: Images,
    y: Tensor,
    ids: Tensor,
    *,
    attacks: tuple[str, ...],
    epsilon: float,
    step_size: float,
    restarts: int,
    seed: int,
) -> Bool[Tensor, "rows block"]:
    clean = _right(model, x, y)
    rows: dict[str, Tensor] = {}
    for name in attacks:
        if name == "clean":
            rows[name] = clean
        elif stages := AUTOATTACK.get(name):
            chosen = {stage: STANDARD[stage] for stage in stages}
            found = autoattack(model, x, y, epsilon=epsilon, seed=seed, ids=ids, attacks=chosen, batch_size=len(x))
            rows |= {f"{name}:{stage}": row for stage, row in zip(stages, found.robust[1:], strict=True)}
            rows[name] = found.robust[-1]
        else:
            rows[name] = clean.clone()
            for restart in range(1 if name == "fgsm" else restarts):
                at = rows[name].nonzero().squeeze(1)
                if len(at):
                    x_adv = _attacked(name, model, x[at], y[at], ids[at], epsilon, step_size, (seed, restart))
                    rows[name][at] = _right(model, x_adv, y[at])
    return torch.stack([rows[row] for row in rows_of(attacks)])


def _attacked(
    name: str,
    model: nn.Module,
    x: Images,
    y: Tensor,
    ids: Tensor,
    epsilon: float,
    step_size: float,
    key: tuple[int, int],
) -> Images:
    if name == "fgsm":
        return fgsm(model, x, y, epsilon=epsilon)
    steps = steps_of(name)
    assert steps is not None
    loss = margin if name.startswith("cw") else cross_entropy
    seed, restart = key
    keys = image_keys(seed, f"{name} {restart}", ids)

    def start(x: Images, *, epsilon: float, generator: torch.Generator | None) -> Images:
        return (x + epsilon * (2 * uniform(keys, 0, *x.shape[1:], dtype=x.dtype) - 1)).clamp(0, 1)

    return pgd(model, x, y, epsilon=epsilon, step_size=step_size, num_steps=steps, loss=loss, start=start)


@torch.no_grad()
def _right(model: nn.Module, x: Images, y: Tensor) -> Bool[Tensor, " block"]:
    model.eval()
    return model(x).argmax(dim=1) == y


def _halving(run: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> Tensor:
    """`run` on the batch, or on its halves where it does not fit into memory."""
    try:
        return run(*batch)
    except (torch.OutOfMemoryError, MemoryError):
        size = len(batch[0])
        if size == 1:
            raise
        log.warning("out of memory with %d images: halving", size)
    halves = zip(*(tensor.split((size + 1) // 2) for tensor in batch), strict=True)
    return torch.cat([_halving(run, half) for half in halves], dim=1)
