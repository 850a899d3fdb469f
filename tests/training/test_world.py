"""Ranks with parts of each batch train as one process with the whole batches (float64, so to rounding)."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.training.world import THIS_PROCESS

sys.path.insert(0, str(Path(__file__).parent))
import steps_on_ranks as program


@pytest.fixture(scope="module", params=[2, 4], ids=["2 ranks", "4 ranks"])
def on_ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The weights that all ranks end with, by case."""
    out = tmp_path_factory.mktemp("ranks")
    size = request.param
    ranks = [
        subprocess.Popen([sys.executable, program.__file__, str(out), str(rank), str(size)], stderr=subprocess.PIPE)
        for rank in range(size)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors.decode()[-3000:]
    with np.load(out / "found.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {program.name_of(case): program.weights_after(case, THIS_PROCESS) for case in program.cases()}
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("case", [program.name_of(case) for case in program.cases()])
def test_ranks_train_as_one_process(case: str, on_ranks: dict[str, np.ndarray], alone: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(on_ranks[case], alone[case], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["gairat", "bat"])
def test_a_loss_that_forgets_the_other_ranks_is_caught(
    method: str, on_ranks: dict[str, np.ndarray], alone: dict[str, np.ndarray]
) -> None:
    assert np.abs(on_ranks[f"careless-{method}"] - alone[f"{method}-none-three"]).max() > 1e-4
