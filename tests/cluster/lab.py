"""A Ray cluster on hosts of this machine, as a user makes it: `ray up cluster/local.yaml` from a laptop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore
from tests.cluster.hosts import Hosts
from tests.cluster.image import prepare_laptop, prepare_node
from tests.helpers.options import last_ones
from tests.helpers.waiting import PATIENCE, until

ADDRESSES = {"laptop": "10.78.0.1", "head": "10.78.0.2", "w1": "10.78.0.11", "w2": "10.78.0.12", "store": "10.78.0.20"}
NODES = ("head", "w1", "w2")
YAML = "cluster/local.yaml"
_ALIVE = "http://127.0.0.1:8265/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"


class Lab:
    """The hosts, and what a user does on them."""

    def __init__(self, hosts: Hosts):
        self.hosts = hosts
        self._submitted: list[Submitted] = []

    def up(self, *options: str) -> str:
        """`ray up` from the laptop."""
        return self.on_laptop(["ray", "up", "-y", *options, YAML], timeout=PATIENCE)

    def on_laptop(self, words: Sequence[str], *, timeout: float = PATIENCE, check: bool = True) -> str:
        """What a command prints in the laptop's clone."""
        return self.hosts.run("laptop", _in_clone(words), timeout=timeout, check=check).stdout

    def submit(self, script: str, *words: str, options: Sequence[str] = ()) -> "Submitted":
        """`ray submit` in the background."""
        command = ["ray", "submit", *options, YAML, f"bat_dist/{script}.py", "--", *last_ones(words)]
        job = Submitted(self.hosts.command("laptop", _in_clone(command)), self.hosts.base / "submit.log")
        self._submitted.append(job)
        return job

    def end(self) -> None:
        """Lose the connections that are still open."""
        for job in self._submitted:
            job.process.kill()
            job.process.wait(timeout=PATIENCE)

    def on_head(self, line: str, *, timeout: float = PATIENCE, check: bool = True) -> str:
        """What a line prints in a login shell of the head."""
        return self.hosts.shell("head", line, timeout=timeout, check=check)

    def num_nodes(self) -> int:
        """How many nodes the head counts: what `ray list nodes` asks, without the second that its process takes."""
        token = (self.hosts.home("laptop") / ".ray/auth_token").read_text().strip()
        return self.on_head(f"curl -s -H 'Authorization: Bearer {token}' '{_ALIVE}'", check=False).count('"node_id"')

    def wait_for_nodes(self) -> None:
        """Wait until every host runs a raylet and the head counts these alone: not one that has just been lost."""
        until(
            lambda: self.num_nodes() == len(NODES) and all(map(self._runs_raylet, NODES)), what="all nodes", every=2.0
        )

    def _runs_raylet(self, name: str) -> bool:
        try:
            return bool(self.hosts.processes(name, "raylet/raylet"))
        except (KeyError, OSError):  # it is off
            return False

    def replace(self, name: str) -> None:
        """Put a new machine in the place of one that is off, and make the cluster anew."""
        self.hosts.replace(name)
        prepare_node(self.hosts, name)
        self.on_laptop(["ray", "down", "-y", YAML])  # or `ray up` would take it for the machine that it set up before
        self.up()
        self.wait_for_nodes()


class Submitted:
    """A submitted program, seen from the laptop."""

    def __init__(self, command: Sequence[str], log: Path):
        self.log = log.with_name(f"{log.stem}-{time.monotonic_ns()}.log")
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    @property
    def output(self) -> str:
        """All that it printed so far."""
        return self.log.read_text(errors="replace")

    def wait(self, *, seconds: float = PATIENCE) -> int:
        """Its exit code."""
        return self.process.wait(timeout=seconds)


@contextmanager
def object_store(lab: Lab, bucket: str):
    """An S3 server on the host `store`, with an empty bucket; its location."""
    words = [sys.executable, "-m", "moto.server", "--host", ADDRESSES["store"], "--port", "5000"]
    with (lab.hosts.base / "store.log").open("ab") as log:
        server = subprocess.Popen(lab.hosts.command("store", words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        make = f"import s3fs; s3fs.S3FileSystem().mkdir({bucket!r})"
        until(lambda: "Error" not in lab.on_laptop(["python", "-c", make], check=False), what="bucket")
        yield f"s3://{bucket}"
    finally:
        for number in lab.hosts.processes("store", "moto.server"):
            os.kill(number, signal.SIGKILL)
        server.wait(timeout=PATIENCE)


@contextmanager
def cluster_lab():
    """A lab whose cluster is up, with all nodes."""
    with Hosts(ADDRESSES) as hosts:
        lab = Lab(hosts)
        for name in NODES:
            prepare_node(hosts, name)
        prepare_laptop(hosts, "laptop", head="head", workers=["w1", "w2"])
        lab.on_laptop(["ray", "get-auth-token", "--generate"])
        lab.up()
        lab.wait_for_nodes()
        try:
            yield lab
        finally:
            lab.end()


def num_done(out: Path | str) -> int:
    """Finished trials in a result folder."""
    store = RowStore.existing(Folder(str(out)) / "trials")
    return int(store.status().complete.sum()) if store else 0


def _in_clone(words: Sequence[str]) -> list[str]:
    return ["bash", "--login", "-c", 'cd bat-dist && exec "$@"', "bash", *words]
