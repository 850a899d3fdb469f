"""A private Ray is private, and leaves no trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bat_dist.config import UserError
from bat_dist.orchestration.private_ray import prepare_environment, wants_private
from bat_dist.orchestration.session import ray_session

NICENESS = "RAY_worker_niceness"
PRIVATE = """
import ipaddress, os
os.environ.pop("RAY_AUTH_TOKEN", None)
import psutil
from bat_dist.orchestration.private_ray import prepare_environment

prepare_environment("local")
import ray
from bat_dist.orchestration.session import ray_session

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
    done = subprocess.run([sys.executable, "-c", PRIVATE], capture_output=True, text=True, env=home, timeout=120)
    assert done.returncode == 0, done.stderr
    listening, mode, after = done.stdout.splitlines()
    number, outside = listening.split(maxsplit=1)
    assert int(number) >= 4
    assert outside == "[]"
    assert mode == "token 64"
    assert after == "[]"
    assert not list(tmp_path.rglob("*token*"))


def test_a_cluster_that_is_asked_for_and_not_there_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    """Although the tests' own private Ray is running: another driver's is not for us."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match="no Ray cluster answers at 'auto'"), ray_session("auto"):
        pass


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
