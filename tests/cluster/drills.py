"""Drills: a job on the lab's cluster is hurt in the middle, and must end as if nothing had happened.

Each returns what a table of drills says of it.  Times come from the logs of the units in the result folder.
"""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bat_dist.storage.files import Folder
from tests.cluster.lab import NODES, Lab, Submitted, num_done
from tests.helpers.waiting import until

TRIALS = 60
NUM_WORKERS = len(NODES)  # one on each host: more would only wait for the two cores of this machine
WORKERS = ("--num_workers", str(NUM_WORKERS))
DATA = ("--dataset", "digits", "--arch", "tinynet", "--precision", "fp32", "--batch_size", "32", "--loader", "memory")
JOB = (*DATA, *WORKERS, "--epochs", "3", "--num_trials", str(TRIALS))
DRIVER = "python /root/memorize.py"
WORKER = "ray::Worker"  # what Ray calls the process of one of our workers
AT_WORK = "ray::Worker.run"  # and while it does a unit
SCORES = ("memorization.npz", "influence.npz")


@dataclass(frozen=True)
class Result:
    """One line of the table; seconds since the injury.  Unknown is None."""

    job: str
    injury: str
    detected: float | None  # until somebody saw it
    recovered: float | None  # until all that was lost was done again; resubmitted: until the first new unit was done
    work_lost: str
    commands: int  # how often the user gave the command

    def line(self) -> str:
        """As Markdown."""
        seconds = ["" if value is None else f"{value:.0f} s" for value in (self.detected, self.recovered)]
        return f"| {self.job} | {self.injury} | {seconds[0]} | {seconds[1]} | {self.work_lost} | {self.commands} |"


HEADER = (
    "| job | what happened | seen after | made good after | work done twice | commands |\n"
    "| --- | --- | ---: | ---: | --- | ---: |"
)


def submit_memorize(lab: Lab, out: str | Path, *words: str, options: Sequence[str] = ()) -> Submitted:
    """The job of most drills."""
    return lab.submit("memorize", *JOB, *words, "--out", str(out), options=options)


def shown_done(job: Submitted) -> int:
    """Finished trials, as the job's own progress bar has it."""
    return max((int(number) for number in re.findall(rf"(\d+)/{TRIALS}\b", job.output)), default=0)


def in_the_middle(out: str | Path, *, done: int = TRIALS // 4) -> None:
    """Wait until so many trials are there."""
    until(lambda: num_done(out) >= done, what=f"{done} finished trials in {out}", every=0.3)


def memorize_on_every_host(lab: Lab, out: Path) -> Submitted:
    """The job of most drills, in its middle, when every host has finished a trial and has more to do.

    A host whose worker comes up when the others have nearly finished is of no use: then the job is run once more.
    """
    everywhere = lambda: set(NODES) <= hosts_of_trials(out).keys()  # noqa: E731
    while True:
        job = submit_memorize(lab, out)
        in_the_middle(out)
        until(lambda: everywhere() or num_done(out) == TRIALS, what="trials of every host", every=0.3)
        if everywhere() and num_done(out) <= TRIALS * 2 // 3:
            return job
        assert job.wait() == 0, job.output
        shutil.rmtree(out)


@dataclass(frozen=True)
class Injury:
    """Something that happens to one host; words for the table."""

    host: str
    words: str
    happens: Callable[[], None]


def hurt(lab: Lab, out: Path, *injuries: Injury) -> list[Result]:
    """Hurt a job that must get over it by itself: all at once, each on a host of its own."""
    job = memorize_on_every_host(lab, out)
    at = time.time()
    for injury in injuries:
        injury.happens()
    assert job.wait() == 0, job.output
    return [row_of_host(out, host=injury.host, since=at, words=injury.words) for injury in injuries]


def row_of_host(out: Path, *, host: str, since: float, words: str) -> Result:
    """What the table says of a host that lost trials."""
    detected, recovered, lost = trouble(out, host=host, since=since)
    assert lost, f"nothing was lost by: {words}"
    return Result(f"{TRIALS} trials", words, detected, recovered, f"{len(lost)} trials, {sum(lost):.0f} s", 1)


@dataclass(frozen=True)
class Blow:
    """Something that ends a job, and how what is broken is mended; words for the table."""

    words: str
    happens: Callable[[], None]
    mend: Callable[[], None] = lambda: None


def hurt_and_resubmit(lab: Lab, out: Path, *blows: Blow) -> list[Result]:
    """End a job, mend what is broken and give the same command again: for each blow, a fifth of the trials later.

    A job that has done all trials when the blow falls is of no use: then all of it is done once more.
    """
    while (results := _hurt_and_resubmit(lab, out, *blows)) is None:
        shutil.rmtree(out)
    return results


def _hurt_and_resubmit(lab: Lab, out: Path, *blows: Blow) -> list[Result] | None:
    results: list[Result] = []
    since, kept = [], []  # each blow: when it had been seen, and the trials that were there
    job = submit_memorize(lab, out)
    for number, blow in enumerate(blows, 1):
        in_the_middle(out, done=TRIALS * number // 5)
        at = time.time()
        blow.happens()
        code = job.wait()
        since.append(time.time())
        kept.append(num_done(out))
        blow.mend()
        if kept[-1] == TRIALS:
            return None
        assert code != 0
        assert TRIALS * number // 5 <= kept[-1]
        job = submit_memorize(lab, out)
        new = lambda seen=since[-1]: [r["at"] for r in records(out) if r["event"] == "done" and r["at"] > seen]  # noqa: E731
        until(new, what="a trial of the second command", every=0.3)
        lost = f"at most {NUM_WORKERS} trials"
        results.append(Result(f"{TRIALS} trials", blow.words, since[-1] - at, min(new()) - at, lost, 2))
    assert job.wait() == 0, job.output
    done = [r["at"] for r in records(out) if r["event"] == "done"]
    for seen, had, until_then, then_had in zip(
        since, kept, [*since[1:], time.time()], [*kept[1:], TRIALS], strict=True
    ):
        # What was there was not done again.  (A full disk may have taken a trial's row, but not its record.)
        assert sum(seen < at <= until_then for at in done) <= then_had - had
    return results


def records(out: str | Path) -> list[dict[str, Any]]:
    """All records of all units' logs, with their time in seconds as `at`."""
    logs = Folder(str(out)) / "logs"
    return [found for name in logs.names("*.jsonl") for found in records_of(logs, name)]


def trouble(out: Path, *, host: str, since: float) -> tuple[float, float, list[float]]:
    """Seconds until a host's first loss was seen, until its last lost unit was done, and what each had cost."""
    logs, seen, good, lost = Folder(str(out)) / "logs", [], [], []
    for name in logs.names("*.jsonl"):
        unit = [r for r in records_of(logs, name) if r["at"] > since]
        if bad := [r for r in unit if r["event"] == "lost" and r["host"] == host]:
            seen += [r["at"] for r in bad]
            good += [r["at"] for r in unit if r["event"] == "done"]
            lost += [r.get("seconds", 0.0) for r in bad]
    return min(seen, default=since) - since, max(good, default=since) - since, lost


def records_of(logs: Folder, name: str) -> list[dict[str, Any]]:
    """The records of one unit."""
    found = [json.loads(line) for line in logs.read(name).splitlines()]
    return [r | {"at": datetime.fromisoformat(r["time"]).timestamp()} for r in found]


def hosts_of_trials(out: Path) -> dict[str, int]:
    """How many trials each host finished."""
    done = [r["host"] for r in records(out) if r["event"] == "done"]
    return {host: done.count(host) for host in set(done)}


def assert_equal_scores(out: str | Path, reference: str | Path) -> None:
    """All trials are there, each once, and all scores are equal to the last bit."""
    assert num_done(out) == TRIALS
    done = [r for r in records(out) if r["event"] == "done"]
    assert len(done) >= TRIALS
    for name in SCORES:
        got, wanted = Folder(str(out)).read_npz(name), Folder(str(reference)).read_npz(name)
        assert got.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_array_equal(got[key], value, err_msg=f"{name} {key}", strict=True)


def host_at_work(lab: Lab, job: Submitted, names: Sequence[str] = ("w1", "w2")) -> str:
    """The name of a host whose worker is stopped (SIGSTOP) in the middle of a unit; empty if the job ended before.

    A unit may be shorter than the time it takes to switch its host off; a stopped process cannot finish it meanwhile.
    """

    def stopped() -> str:
        for name in names:
            for number in lab.hosts.processes(name, AT_WORK):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGSTOP)
                    if number in lab.hosts.processes(name, AT_WORK):
                        return name
                    os.kill(number, signal.SIGCONT)
        return ""

    found = ""

    def settled() -> bool:
        nonlocal found
        found = stopped()
        return bool(found) or job.process.poll() is not None

    until(settled, what="work on a worker host", every=0.05)
    return found


def kill_processes(lab: Lab, host: str, pattern: str, *, most: int = 1000) -> None:
    """kill -9."""
    found = lab.hosts.processes(host, pattern)[:most]
    assert found, f"no process {pattern} on {host}"
    for number in found:
        os.kill(number, signal.SIGKILL)
