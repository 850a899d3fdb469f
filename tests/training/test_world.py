"""Ranks with parts of each batch train as one process with the whole batches (float64, so to rounding)."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from bat_dist.training.world import THIS_PROCESS
from tests.training import steps_on_ranks as program


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, np.ndarray]]:
    """A function from the number of ranks to the weights that all of them end with, by case."""

    @cache
    def found(size: int) -> dict[str, np.ndarray]:
        out = tmp_path_factory.mktemp("ranks")
        ranks = subprocess.run([sys.executable, program.__file__, str(out), str(size)], capture_output=True, text=True)
        assert ranks.returncode == 0, ranks.stderr[-3000:]
        with np.load(out / "found.npz") as weights:
            return dict(weights)

    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return {program.name_of(case): program.weights_after(case, THIS_PROCESS) for case in program.cases(2)}


CASES = [(size, program.name_of(case)) for size in (2, 4) for case in program.cases(size)]


@pytest.mark.parametrize(("size", "case"), CASES)
def test_ranks_train_as_one_process(
    size: int, case: str, on_ranks: Callable[[int], dict[str, np.ndarray]], alone: dict[str, np.ndarray]
) -> None:
    np.testing.assert_allclose(on_ranks(size)[case], alone[case], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("method", ["gairat", "bat"])
def test_a_loss_that_forgets_the_other_ranks_is_caught(
    method: str, size: int, on_ranks: Callable[[int], dict[str, np.ndarray]], alone: dict[str, np.ndarray]
) -> None:
    assert np.abs(on_ranks(size)[f"careless-{method}"] - alone[f"{method}-none-three"]).max() > 1e-4


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("method", ["bat", "bat_sampled"])
def test_a_gathers_gradients_come_back_by_the_way_of_nccl_too(
    method: str, size: int, on_ranks: Callable[[int], dict[str, np.ndarray]], alone: dict[str, np.ndarray]
) -> None:
    """torch chooses it by the backend's name; what it chooses runs on gloo here."""
    found = on_ranks(size)
    assert found[f"nccl-{method}-calls"] >= 3  # one for each step at least
    np.testing.assert_allclose(found[f"nccl-{method}"], alone[f"{method}-none-three"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("method", ["pgd_at", "bat"])
def test_torchs_own_batch_norm_over_ranks_trains_as_one_process(
    method: str, size: int, on_ranks: Callable[[int], dict[str, np.ndarray]], alone: dict[str, np.ndarray]
) -> None:
    """It is what GPUs get; its kernels are written out for the CPU here. The last batch has parts of unequal sizes."""
    found = on_ranks(size)[f"sync_on_gpus-{method}"]
    np.testing.assert_allclose(found, alone[f"{method}-sync-three"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [2, 4])
def test_a_resumed_run_ends_as_an_undisturbed_one_to_the_last_bit(
    size: int, on_ranks: Callable[[int], dict[str, np.ndarray]]
) -> None:
    """From three ranks on, a sum over them depends on the place of a gradient in its bucket."""
    assert not on_ranks(size)["resumed"].any()


@pytest.mark.parametrize("size", [2, 4])
def test_averaged_weights_have_the_statistics_of_all_ranks(
    size: int, on_ranks: Callable[[int], dict[str, np.ndarray]]
) -> None:
    assert not on_ranks(size)["averaged_statistics"].any()
