"""What clusters do to jobs.  Each drill must end with every trial there once, and scores equal to the last bit."""

import itertools
import time
from pathlib import Path

import pytest

from tests.cluster.drills import (
    AT_WORK,
    DRIVER,
    TRIALS,
    WORKER,
    Blow,
    Injury,
    Result,
    assert_equal_scores,
    hosts_of_trials,
    hurt,
    hurt_and_resubmit,
    kill_processes,
    num_done,
    records,
    row_of_host,
    shown_done,
    submit_memorize,
)
from tests.cluster.hosts import SMALL_BYTES
from tests.cluster.image import SECRET
from tests.cluster.lab import NODES, Lab, Submitted, object_store
from tests.helpers.waiting import until

pytestmark = pytest.mark.cluster
SILENCE = 12.0  # seconds; the programs speak of an outage after a few
CUT = 40.0


@pytest.fixture(autouse=True)
def _all_nodes(lab: Lab) -> None:
    """What an earlier drill broke has come back by itself."""
    lab.wait_for_nodes()


def test_in_tmux_both_workers_do_trials_and_the_table_comes_back(lab: Lab, reference: Path) -> None:
    assert num_done(reference) == TRIALS
    shares = hosts_of_trials(reference)
    assert sum(shares.values()) == TRIALS
    assert shares.keys() == set(NODES)
    lab.on_laptop(["bat-dist", "collect", "cluster/local.yaml", "--runs", str(reference), "--out", "fetched"])
    fetched = lab.hosts.home("laptop") / "bat-dist/fetched" / reference.name
    assert_equal_scores(fetched, reference)
    assert (fetched / "index.html").is_file()


def test_a_process_a_raylet_and_a_host_are_lost_at_once(lab: Lab, reference: Path, results: list[Result]) -> None:
    out = lab.hosts.shared / "three"
    process = Injury("head", "kill -9 of a trial's process", lambda: kill_processes(lab, "head", WORKER, most=1))
    raylet = Injury("w1", "kill -9 of a node's raylet", lambda: kill_processes(lab, "w1", "raylet/raylet"))
    power = Injury("w2", "a worker host loses power", lambda: lab.hosts.switch_off("w2"))
    try:
        results += hurt(lab, out, process, raylet, power)
    finally:
        lab.hosts.switch_on("w2")
    assert_equal_scores(out, reference)


def test_the_driver_is_killed_then_the_storage_is_full_then_the_head_loses_power(
    lab: Lab, reference: Path, results: list[Result]
) -> None:
    out, ballast = lab.hosts.small / "full", lab.hosts.small / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:  # a buffer would be written once more at the end
            try:
                while True:
                    file.write(bytes(2**14))
            except OSError:
                assert file.tell() < SMALL_BYTES

    words = "the head loses power; another machine in its place, `ray down`, `ray up`"
    killed = Blow("kill -9 of the driver", lambda: kill_processes(lab, "head", DRIVER, most=1))
    full = Blow("the storage is full; room is made", fill, mend=ballast.unlink)
    lost = Blow(words, lambda: lab.hosts.switch_off("head"), mend=lambda: lab.replace("head"))
    results += hurt_and_resubmit(lab, out, killed, full, lost)
    assert_equal_scores(out, reference)
    until(lambda: lab.num_nodes() == len(NODES), what="all nodes")


def test_the_storage_does_not_answer_and_a_link_is_cut(lab: Lab, reference: Path, results: list[Result]) -> None:
    """The link for longer than it takes the cluster to give the host up."""
    with object_store(lab, "drills") as bucket:
        job, out = submit_to_store(lab, bucket)
        at = time.time()
        lab.hosts.cut("store")
        lab.hosts.cut("w1")
        try:
            time.sleep(SILENCE)
            lab.hosts.heal("store")
            assert job.wait() == 0, job.output
            time.sleep(max(0.0, at + CUT - time.time()))
        finally:
            lab.hosts.heal("store")
            lab.hosts.heal("w1")
        fetch = ["bat-dist", "collect", "cluster/local.yaml", "--runs", out, "--out", "from-s3"]
        lab.on_laptop(fetch)
    fetched = lab.hosts.home("laptop") / "bat-dist/from-s3" / out.rpartition("/")[2]
    assert_equal_scores(fetched, reference)
    assert SECRET not in job.output
    assert not any(SECRET.encode() in path.read_bytes() for path in fetched.rglob("*") if path.is_file())
    again = min(r["at"] for r in records(fetched) if r["event"] == "done" and r["at"] > at + SILENCE) - at
    results.append(Result(f"{TRIALS} trials", f"an S3 store does not answer for {SILENCE:g} s", None, again, "none", 1))
    results.append(row_of_host(fetched, host="w1", since=at, words=f"a worker host's link is cut for {CUT:g} s"))


def submit_to_store(lab: Lab, bucket: str) -> tuple[Submitted, str]:
    """The job of most drills, in its middle and at work on w1, and the place of its results."""
    for attempt in itertools.count():
        out = f"{bucket}/run{attempt}"
        job = submit_memorize(lab, out)
        busy = lambda job=job: shown_done(job) >= TRIALS // 4 and lab.hosts.processes("w1", AT_WORK)  # noqa: E731
        until(
            lambda job=job, busy=busy: busy() or job.process.poll() is not None,
            what="work on w1",
            every=0.2,
        )
        if job.process.poll() is None and shown_done(job) <= TRIALS * 2 // 3:
            return job, out
        assert job.wait() == 0, job.output
    raise AssertionError
