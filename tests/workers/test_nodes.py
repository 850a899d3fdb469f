"""Nodes are looked at before work starts.  Here on one node; tests/cluster has several."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bat_dist.errors import RunError, UserError
from bat_dist.settings.sections import RaySettings
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import source_hash
from bat_dist.workers import nodes
from bat_dist.workers.nodes import NodeReport, check_nodes, job_session, wait_for_nodes, wait_for_room
from bat_dist.workers.session import ray_session
from bat_dist.workers.terms import ClusterTerms

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first session has joined a cluster: it is the private Ray of the tests."""
    sessions = iter([True])

    @contextmanager
    def session(address: str | None) -> Iterator[bool]:
        with ray_session(address) as is_cluster:
            yield next(sessions, is_cluster)

    monkeypatch.setattr(nodes, "ray_session", session)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where the head notes its results


@pytest.mark.usefixtures("joined")
def test_the_terms_of_a_clusters_session_hold_in_those_within_it(tmp_path: Path) -> None:
    """Which would take the cluster for a private Ray: it is there when they begin."""
    asked, other = RaySettings(wait_minutes=2.0), RaySettings(wait_minutes=7.0)
    with pytest.raises(RunError), job_session(asked, Folder(tmp_path), all_write=False) as terms:  # noqa: PT012
        assert terms == ClusterTerms(2.0, source_hash())
        for _ in range(2):
            with job_session(other, Folder(tmp_path / "within"), all_write=False) as within:
                assert within == terms
        raise RunError("the job has failed")
    with job_session(asked, Folder(tmp_path), all_write=False) as terms:  # the test's own, which is private
        assert terms == ClusterTerms()


@pytest.mark.usefixtures("joined")
def test_workers_that_join_late_are_told_what_they_must_see(tmp_path: Path) -> None:
    with job_session(RaySettings(), Folder(tmp_path / "out"), all_write=True) as terms:
        terms.check_here()
        assert terms.probe is not None
        assert terms.probe.is_seen()
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(UserError, match="is not the same folder on all nodes"):
        terms.check_here()


def test_a_sound_node_leaves_nothing_behind(tmp_path: Path) -> None:
    check_nodes(Folder(tmp_path / "new"), all_write=True)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_relative_folder_is_the_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's processes are in a folder of their own."""
    check_nodes(Folder(tmp_path), all_write=True)  # from here on the worker is there, and in another folder
    monkeypatch.chdir(tmp_path)
    check_nodes(Folder("new"), all_write=True)


def test_other_code_on_a_node_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_nodes(Folder(tmp_path), all_write=False)  # from here on the worker has what asks for its own hash
    monkeypatch.setattr(nodes, "source_hash", lambda: "0123456789ab")  # the driver's
    with pytest.raises(UserError, match=r"other code than the driver's .*0123456789ab.* runs on "):
        check_nodes(Folder(tmp_path), all_write=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_node_does_not_see(caplog: pytest.LogCaptureFixture) -> None:
    """memory:// is another one in each process."""
    folder = Folder("memory://nodes-test")
    with pytest.raises(UserError, match="not the same folder on all nodes"):
        check_nodes(folder, all_write=True)
    with caplog.at_level(logging.WARNING, "bat_dist"):
        check_nodes(folder, all_write=False)
    assert "is on the driver's machine only" in caplog.text
    assert folder.names("*") == folder.names(".*") == []


def test_a_folder_that_a_node_cannot_write_is_told_with_the_reason() -> None:
    blind = NodeReport("w7", "0", "0", sees=False, problem=" (PermissionError: read-only)")
    with pytest.raises(UserError, match=r"w7 \(PermissionError: read-only\) cannot write"):
        nodes._check_folder([blind], Folder("/shared/x"), all_write=True)


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    monkeypatch.setattr(nodes.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(nodes.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    wait_for_nodes(1, 0.0)
    assert now == [0.0]
    with caplog.at_level(logging.INFO, "bat_dist"), pytest.raises(RunError, match=r"waited 1 minute for 2 nodes"):
        wait_for_nodes(2, 1.0)
    assert now[0] == pytest.approx(60, abs=1.1)
    assert (
        caplog.text.count("waiting for 2 nodes (min_nodes); the cluster has 1 node") == 4
    )  # every 15 s, not every look
    room = iter([False, False, True])
    start = now[0]
    wait_for_room(lambda: next(room), {"CPU": 1.0, "GPU": 4.0}, 3, 1.0, of="3 workers")
    assert now[0] == start + 1
