"""A unit of an evaluation, done: what a worker sets up once, and a function of the unit alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from bat_dist.attacks.numerics import numerics
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

    @numerics("fp32")
    def work(unit: Unit) -> dict[str, ArrayLike]:
        start, at = time.perf_counter(), np.array(unit.images)
        x, y = networks.tensor(test.images[at]), torch.from_numpy(test.labels[at]).to(device)
        if unit.stage.attack == PROBE:
            found = probe(networks.model, x, y, mean=spec.mean, std=spec.std)
            return {"found": [found[name] for name in FOUND], "spent": [time.perf_counter() - start, 0.0]}
        with network_draws(unit, device):
            outcome = attack_images(
                networks,
                x,
                y,
                torch.from_numpy(at).to(device),
                attack=unit.stage.attack,
                seed=unit.stage.seed or 0,
                settings=settings,
                batch_size=unit.batch_size,
            )
        row: dict[str, ArrayLike] = {"images": at, "robust": outcome.robust.cpu().numpy()}
        if keep_adversarial:
            row["adversarial"] = outcome.x_adv.permute(0, 2, 3, 1).cpu().numpy()
        move = largest_move(x, outcome)
        return row | {"spent": [time.perf_counter() - start, move]}

    return work
