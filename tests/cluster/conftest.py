"""The cluster of the drills: one for all of them, gone before other tests begin.

Where hosts cannot be made, the tests skip and say why.
"""

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster.drills import DRIVER, HEADER, Result, hosts_of_trials, submit_memorize
from tests.cluster.hosts import missing
from tests.cluster.lab import NODES, Lab, cluster_lab
from tests.helpers.waiting import until

HERE = Path(__file__).parent
_OPEN = ExitStack()  # holds the cluster
BEGIN, END = "<!-- drills -->", "<!-- end of drills -->"
TABLE = os.environ.get("BAT_DIST_DRILL_TABLE")  # a Markdown file whose table of drills is to be written anew


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if why := missing():
        pytest.skip(why)
    with _OPEN:
        _OPEN.enter_context(priority(-5))  # drills wait most of the time, and end last of all that is tested at once
        yield _OPEN.enter_context(cluster_lab())


@contextmanager
def priority(nice: int) -> Iterator[None]:
    """This process's, and that of those it starts meanwhile, where that is allowed."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """After the last of these tests the hosts go, and other tests have the machine to themselves."""
    found = yield
    if nextitem is None or HERE not in nextitem.path.parents:
        _OPEN.close()
    return found


@pytest.fixture(scope="session")
def reference(lab: Lab) -> Path:
    """The job, undisturbed, in tmux: the laptop may be closed.  Every host has done trials.

    A host whose worker comes up when the others have done all trials is of no use: then the job is run once more.
    """
    out = lab.hosts.shared / "reference"
    while True:
        job = submit_memorize(lab, out, "--min_nodes", "3", "--loader", "ffcv", options=["--tmux"])  # equal batches
        assert job.wait() == 0, job.output
        until(lambda: (out / "index.html").exists(), what="the page")  # which comes last
        if hosts_of_trials(out).keys() == set(NODES):
            return out
        # The driver still holds the folder for a moment after its page.
        until(lambda: not lab.hosts.processes("head", DRIVER), what="end of the driver")
        shutil.rmtree(out)


@pytest.fixture(scope="session")
def results() -> Iterator[list[Result]]:
    """Where drills leave their line of the table."""
    results: list[Result] = []
    yield results
    if TABLE and results:
        page = Path(TABLE)
        before, _, rest = page.read_text().partition(BEGIN)
        table = "\n".join([HEADER, *(result.line() for result in results)])
        page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")
