"""A unit of an evaluation, done: what a worker sets up once, and a function of the unit alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import ArrayLike
from torch import nn

from bat_dist.attacks.linf import Images
from bat_dist.attacks.losses import Labels
from bat_dist.attacks.numerics import numerics
from bat_dist.attacks.standing import Ids
from bat_dist.data.datasets import Dataset
from bat_dist.evaluation.attack import Settings, attack_images, largest_move, prepare
from bat_dist.evaluation.hygiene import FOUND
from bat_dist.evaluation.names import PROBE
from bat_dist.evaluation.plan import Unit
from bat_dist.evaluation.probe import probe


@contextmanager
def network_draws(unit: Unit, device: torch.device) -> Iterator[None]:
    """A network that draws random numbers from torch's generators draws the same ones whenever the unit is run."""
    name = f"{unit.stage} {' '.join(map(str, unit.images))}"
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(sha256(name.encode()).digest()[:8]))
        yield


def build_work(
    dataset: Dataset, network: nn.Module, settings: Settings, *, keep_adversarial: bool, device: torch.device
) -> Callable[[Unit], dict[str, ArrayLike]]:
    """Put the network on the device; the function does a unit and gives its row, see `EvaluationIdentity.fields_of`.

    Numbers are computed in fp32, see `numerics`.
    """
    test, spec = dataset.test, dataset.spec
    networks = prepare(network, test.images[:4], device)

    def on_device(at: Int64[np.ndarray, " batch"]) -> tuple[Images, Labels, Ids]:
        """The images with these indices, their labels, and the indices."""
        y = torch.from_numpy(test.labels[at]).to(device)
        return networks.tensor(test.images[at]), y, torch.from_numpy(at).to(device)

    @numerics("fp32")
    def work(unit: Unit) -> dict[str, ArrayLike]:
        start, images = time.perf_counter(), np.array(unit.images)
        if unit.stage.attack == PROBE:
            x, y, _ = on_device(images)
            found = probe(networks.model, x, y, mean=spec.mean, std=spec.std)
            return {"found": [found[name] for name in FOUND], "spent": [time.perf_counter() - start, 0.0]}
        robust, adversarial, move = [], [], 0.0
        with network_draws(unit, device):
            for first in range(0, len(images), unit.batch_size):  # a device need not have room for a whole unit
                x, y, ids = on_device(images[first : first + unit.batch_size])
                how = {"attack": unit.stage.attack, "seed": unit.stage.seed or 0, "settings": settings}
                outcome = attack_images(networks, x, y, ids, **how)
                robust.append(outcome.robust.cpu().numpy())
                move = max(move, largest_move(x, outcome))
                if keep_adversarial:
                    adversarial.append(outcome.x_adv.permute(0, 2, 3, 1).cpu().numpy())
        row: dict[str, ArrayLike] = {"images": images, "robust": np.concatenate(robust)}
        if keep_adversarial:
            row["adversarial"] = np.concatenate(adversarial)
        return row | {"spent": [time.perf_counter() - start, move]}

    return work
