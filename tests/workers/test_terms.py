"""What a worker's machine must meet, as it finds out for itself: one that joins late was not asked by the driver."""

import socket
from pathlib import Path

import pytest

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.workers.terms import ClusterTerms, check_folder, folder_probe


def test_a_machine_that_sees_the_folder_leaves_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with folder_probe(Folder("new")) as probe:
        before = list((tmp_path / "new").iterdir())
        monkeypatch.chdir("/")  # a worker is in another folder than the driver
        ClusterTerms(probe=probe).check_here()
        assert list((tmp_path / "new").iterdir()) == before
        (tmp_path / f"new/{probe.name}-w7").touch()  # of a worker that was killed
        monkeypatch.chdir(tmp_path)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_machine_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    words = f"{tmp_path} is not the same folder on all nodes: {socket.gethostname()} cannot write .*; name a folder"
    with folder_probe(Folder(tmp_path)) as probe:
        check_folder(probe)
        for name in (probe.name, "another"):  # a disk of its own has nothing there, or what an earlier driver left
            with pytest.raises(UserError, match=words):
                check_folder(probe._replace(name=name, content=b"other"))
    with pytest.raises(UserError, match=words):
        ClusterTerms(probe=probe).check_here()


def test_a_machine_that_cannot_write_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_probe(Folder(tmp_path)) as probe:

        def write(folder: Folder, name: str, data: bytes) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Folder, "write", write)
        with pytest.raises(
            UserError, match=rf"{socket.gethostname()} \(OSError: .*Read-only file system\) cannot write"
        ):
            check_folder(probe)


def test_a_probe_that_cannot_be_removed_ends_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(folder: Folder, name: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Folder, "remove", remove)
    with folder_probe(Folder(tmp_path)):
        pass
    assert len(list(tmp_path.iterdir())) == 1
