"""Sets of samples that a training is watched on: their accuracies by epoch are the paper's Fig. 1, 2 and 8 to 19."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch import nn

from bat_dist.data.loaders import Loader
from bat_dist.methods.mini_batch import TrainingAttack
from bat_dist.training.recipe import Precision
from bat_dist.training.robustness import clean_and_pgd_correct
from bat_dist.training.seeding import seed_of
from bat_dist.training.world import World

_WATCHED = 14  # stream of randomness, beside those of `run` and `epoch`


@dataclass(frozen=True)
class WatchedSets:
    """Which samples, how they are attacked, and in which epochs.

    sets: positions within a split by name: train_atypical, test_typical, ... attack: None for clean accuracy alone.
    every: epochs from one look to the next; the last epoch is always looked at.
    """

    sets: Mapping[str, Int64[np.ndarray, " samples"]]
    attack: TrainingAttack | None
    every: int
    digest: str

    @property
    def splits(self) -> list[str]:
        """The splits that the sets are of."""
        return sorted({name.partition("_")[0] for name in self.sets})

    def accuracies(
        self,
        network: nn.Module,
        loaders: Mapping[str, Loader],
        *,
        epoch: int,
        last: int,
        precision: Precision,
        seed: int,
        world: World,
    ) -> dict[str, float | None]:
        """Columns of an epoch's row, `clean_train_atypical`, `pgd_test_typical`, ...; None in epochs between looks.

        The start of the attack is the same in all epochs and for any number of ranks. epoch, last: counted from 1.
        """
        found: dict[str, float | None] = {}
        for name, indices in self.sets.items():
            columns = [f"clean_{name}", *([f"pgd_{name}"] if self.attack else [])]
            found |= dict.fromkeys(columns)
            if not len(indices) or (epoch % self.every and epoch != last):
                continue
            correct = clean_and_pgd_correct(
                network,
                loaders[name.partition("_")[0]],
                indices,
                attack=self.attack,
                precision=precision,
                seed=seed_of(seed, _WATCHED),
                world=world,
            )
            found |= {
                column: float(one.mean()) for column, one in zip(columns, correct, strict=False) if one is not None
            }
        return found
