"""What a sweep is refused for before anything is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import load_dataset
from bat_dist.errors import UserError
from bat_dist.jobs.tune_plan import plan_sweep
from bat_dist.settings.tune import TuneSettings
from bat_dist.storage.files import Folder
from bat_dist.training.splits import hold_out

SIZES: dict[str, Any] = {"dataset": "digits", "num_train": 60, "num_test": 20, "num_val": 10}


def test_a_metric_of_samples_that_the_validation_split_has_not(tmp_path: Path) -> None:
    digits = load_dataset("digits", num_train=60, num_test=20)
    held = hold_out(digits.train.labels, 10, seed=0)
    mem = np.zeros(60)
    mem[held.train[:8]] = 0.5
    mem[held.validation[0]] = 0.2
    np.savez(tmp_path / "memorization.npz", mem=mem, fingerprint=np.array(digits.fingerprint))

    def plan(sigma: list[float], metric: str) -> None:
        base = {"method": "pgd_at", **SIZES, "arch": "tinynet", "scores": str(tmp_path / "memorization.npz")}
        asked = TuneSettings(out=str(tmp_path / "out"), base=base, space={"sigma": sigma}, metric=(metric,))  # pyright: ignore[reportArgumentType]
        plan_sweep(Folder(asked.out), digits, asked)

    plan([0.15], "val_pgd_atypical")
    plan([0.15, 0.3], "val_pgd_typical")
    with pytest.raises(
        UserError, match=r"none of the 10 validation samples is atypical for sigma=0\.3; .* raise num_val"
    ):
        plan([0.15, 0.3], "val_pgd_atypical")
