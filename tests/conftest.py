"""One private Ray for all tests that need one, and where the real images lie."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests must neither touch the user's cache nor leave a token that the next `ray start` would ask for.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("BAT_DIST_CACHE")
    os.environ["BAT_DIST_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["BAT_DIST_CACHE"]
    else:
        os.environ["BAT_DIST_CACHE"] = before


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A private Ray with two logical CPUs."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
