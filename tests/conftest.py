"""What all tests share: one thread, a private Ray for each test process, and the order in which files are run."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the test processes share the cores
# Each test process and its programs by themselves: a Ray that one of them starts is at hand for them alone.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="bd")  # short, since the paths of Ray's sockets are long

import joblib
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from bat_dist.workers.private_ray import prepare_environment
from tests.helpers.time_report import allowed_seconds, lines, marked_tests, room_of, seconds_by_test, test_reports

if joblib.cpu_count() < 2:  # programs that tests start have two workers on one core too
    os.environ["RAY_OVERRIDE_RESOURCES"] = '{"CPU": 2}'
prepare_environment("local")  # before any test module imports ray
atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)

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
    from bat_dist.workers.session import ray_session

    with ray_session("local", num_cpus=2):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The slowest tests and each room's share, before pytest's own summary."""
    reports = test_reports(terminalreporter.stats)
    if len(reports) > 3 and not terminalreporter.config.getoption("collectonly"):
        terminalreporter.section("time")
        for line in lines(seconds_by_test(reports), marked_tests(reports)):
            terminalreporter.write_line(line)


class LongestRoomsFirst(LoadScopeScheduling):
    """Hands out whole files, so that a module's fixtures are made once, and those of the longest rooms first.

    The tests of several hosts share one set of hosts: they are handed out as if they were one file.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tests/cluster" if room_of(nodeid) == "cluster" and not file.endswith("_files.py") else file


@pytest.hookimpl(tryfirst=True, optionalhook=True)  # also without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongestRoomsFirst:
    config.option.loadscopereorder = False  # xdist would begin with the files of the most tests
    return LongestRoomsFirst(config, log)


@pytest.hookimpl(trylast=True)  # after pytest-randomly, whose order stays within each room
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    allowed = allowed_seconds()
    items.sort(key=lambda item: -allowed.get(room_of(item.nodeid), 0))
