"""One private Ray for all tests that need one, and where the real images lie."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bat_dist.orchestration.private_ray import prepare_environment

prepare_environment("local")  # before any test module imports ray

settings.register_profile("repeatable", derandomize=True)  # `--hypothesis-profile default` looks for new examples
settings.load_profile("repeatable")

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
    from bat_dist.orchestration.session import ray_session

    with ray_session("local", num_cpus=2):
        yield
