"""A private Ray is private, and leaves no trace."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bat_dist.errors import UserError
from bat_dist.settings.ray_address import host_and_port
from bat_dist.workers import session
from bat_dist.workers.private_ray import current_cluster, prepare_environment, wants_private
from bat_dist.workers.session import ray_session
from tests.helpers.waiting import PATIENCE

NICENESS = "RAY_worker_niceness"
PRIVATE = """
import ipaddress, os
os.environ.pop("RAY_AUTH_TOKEN", None)
import psutil
from bat_dist.workers.private_ray import prepare_environment

prepare_environment("local")
import ray
from bat_dist.workers.session import ray_session

with ray_session("local", num_cpus=1):
    ray.get(ray.remote(lambda: 1).remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    print(len(listening), [ip for ip in listening if not (
        ipaddress.ip_address(ip).is_loopback or ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback)])
    print(os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]))
print([p.name() for p in psutil.Process().children(recursive=True) if "ray" in p.name()])
"""


def test_a_private_ray_listens_on_loopback_alone_and_leaves_nothing(tmp_path: Path) -> None:
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PRIVATE], capture_output=True, text=True, env=home, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    listening, mode, after = done.stdout.splitlines()
    number, outside = listening.split(maxsplit=1)
    assert int(number) >= 4
    assert outside == "[]"
    assert mode == "token 64"
    assert after == "[]"
    assert not list(tmp_path.rglob("*token*"))


SLOW = """
import logging, psutil
from bat_dist.workers.private_ray import prepare_environment

prepare_environment("local")
import ray
from ray._private import services
from bat_dist.workers.session import ray_session

logging.basicConfig(level="WARNING", format="%(message)s")
real = services.get_node

def late(*where):
    services.get_node = real
    raise Exception("The current node timed out during startup.")

services.get_node = late
with ray_session("local", num_cpus=1):
    print(ray.get(ray.remote(lambda: 1).remote()))
    print(sum(p.name() == "gcs_server" and p.status() != "zombie" for p in psutil.Process().children()))
print([p.name() for p in psutil.Process().children() if "ray" in p.name() or "gcs" in p.name()])
"""


def test_a_private_ray_that_did_not_come_up_in_time_is_started_again() -> None:
    words = [sys.executable, "-W", "always:subprocess:ResourceWarning", "-c", SLOW]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1", "1", "[]"]
    assert done.stderr.splitlines()[-1] == "Ray's processes did not start in time (start 1 of 5)"
    assert "is still running" not in done.stderr  # a ResourceWarning, an error in tests


def failing_starts(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[object]:
    """The starts of a private Ray, each of which will end in this error."""
    starts: list[object] = []

    def init(**how: object) -> None:
        starts.append(how)
        raise error

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    return starts


@pytest.mark.usefixtures("ray_cluster")  # so that ray has been imported, once
def test_a_private_ray_that_never_comes_up_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Exception("The current node timed out during startup. This could happen because ...")
    starts = failing_starts(monkeypatch, late)
    words = r"^Ray did not start on this machine, 5 times: .* on \d+ cores?\)"
    with pytest.raises(UserError, match=words), ray_session("local"):
        pass
    assert len(starts) == 5


@pytest.mark.usefixtures("ray_cluster")
def test_what_keeps_a_private_ray_from_starting_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = failing_starts(monkeypatch, PermissionError("/tmp/ray"))
    with pytest.raises(PermissionError), ray_session("local"):
        pass
    assert len(starts) == 1


def test_a_cluster_that_is_asked_for_and_not_there_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    """Although the tests' own private Ray is running: another driver's is not for us."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match="no Ray cluster answers at 'auto'"), ray_session("auto"):
        pass


@pytest.mark.parametrize("where", ["ray_address", "RAY_ADDRESS", "ray_current_cluster"])
def test_an_address_where_nobody_listens_is_named_with_its_origin(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # but not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.setattr(session, "KNOCK_SECONDS", 0.2)
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        monkeypatch.setenv("RAY_ADDRESS", address if where == "RAY_ADDRESS" else "")
        (tmp_path / "ray").mkdir()
        if where == "ray_current_cluster":
            (tmp_path / "ray" / where).write_text(address)
        with (
            pytest.raises(UserError, match=rf"at '{address}' \(Connection refused; the address is that of .*{where}\)"),
            ray_session(address if where == "ray_address" else None),
        ):
            pass


@pytest.mark.parametrize(
    "address", ["nonsense", "host", "host:port", "host:99999", "http://127.0.0.1:8265", "::1:6379"]
)
def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="must be auto, local or HOST:PORT"):
        host_and_port(address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="RAY_ADDRESS must be auto, local or HOST:PORT"), ray_session(None):
        pass


@pytest.mark.parametrize(
    "variables", [{}, {"TMPDIR": "/a"}, {"RAY_TMPDIR": "/b"}, {"TMPDIR": "/a", "RAY_TMPDIR": "/b"}]
)
def test_rays_folder_is_where_ray_has_it(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.utils import get_ray_address_file

    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(current_cluster()) == get_ray_address_file(None)


def test_a_folder_too_long_for_sockets_is_no_hindrance(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    where = {name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"} | {"TMPDIR": str(long)}
    code = PRIVATE.replace("    listening =", "    print(ray._private.worker._global_node.temp_dir)\n    listening =")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    place = Path(done.stdout.splitlines()[0])
    assert place.parent == Path("/tmp")
    assert not place.exists()
    assert not list(long.iterdir())


def test_the_longest_name_of_a_socket_is_rays(ray_cluster: None) -> None:
    from ray._private import worker

    node = worker._global_node
    assert node is not None
    names = [node.plasma_store_socket_name, node.raylet_socket_name]
    longest = max(len(name) - len(node.temp_dir) - len(str(os.getpid())) for name in names)
    assert longest + len("4194304") <= session.LONGEST_SOCKET_NAME


@pytest.mark.usefixtures("ray_cluster")  # so that ray has been imported, once
def test_a_private_ray_has_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that others use too; joblib itself reads affinity and the cgroup's quota."""
    asked = {}
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **how: asked.update(how))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr(session, "describe_resources", lambda: "")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with ray_session("local"):
            pass
    finally:
        os.sched_setaffinity(0, before)
    assert asked["num_cpus"] == 1


def test_where_a_machine_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert (wants_private(None), wants_private("auto"), wants_private("local")) == (True, False, True)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not wants_private(None)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert wants_private(None)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert not wants_private(None)  # a node whose Ray has gone
    monkeypatch.delenv("RAY_ADDRESS")
    assert wants_private(None)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    assert not wants_private(None)


def test_workers_of_a_private_ray_have_the_priority_of_the_driver(ray_cluster: None) -> None:
    import ray

    assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


def test_a_niceness_of_the_users_own_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_SCHEDULER_EVENTS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(NICENESS, "7")
    prepare_environment("local")
    assert os.environ[NICENESS] == "7"
