"""Files of a result folder appear whole or not at all, and one driver holds the folder."""

import ast
import errno
import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bat_dist.errors import UserError
from bat_dist.storage.files import Folder, aside
from bat_dist.storage.lease import FolderBusy, only_driver


@pytest.mark.parametrize("name", ["", "  "])
def test_a_folder_without_a_name_is_not_the_root(name: str) -> None:
    with pytest.raises(UserError, match="must have a name"):
        Folder(name)


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "scores.npz"
    target.write_bytes(b"old")

    def write() -> None:
        with aside(target) as file:
            file.write(b"new, and then the disk is")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]
    assert target.read_bytes() == b"old"


def test_threads_read_headers_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CPython 3.11 the module ast, by which numpy reads them, fails at times where threads use it at once."""
    at_work, together, evaluate = [], [], ast.literal_eval

    def watched(text: str) -> object:
        at_work.append(text)
        time.sleep(0.002)
        together.append(len(at_work))
        at_work.remove(text)
        return evaluate(text)

    folder = Folder(tmp_path)
    for name in "abcd":
        folder.write_npz(f"{name}.npz", x=np.zeros(3), y=np.zeros((2, 2)))
    monkeypatch.setattr(ast, "literal_eval", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(folder.read_npz, [f"{name}.npz" for name in "abcd"]))
    assert together == [1] * 8


def test_a_folder_keeps_the_old_file_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Folder(tmp_path).write("scores.npz", b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        Folder(tmp_path).write("scores.npz", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("scores.npz", b"old")]


class KilledWhileItWrites(MemoryFileSystem):
    """Storage that, like sftp, is written to piece by piece."""

    protocol = "piecewise"
    is_killed = False
    renames_over = True

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value[: len(value) // 2] if self.is_killed else value)
        if self.is_killed:
            raise KeyboardInterrupt

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if not self.renames_over and self.exists(path2):
            raise FileExistsError(path2)
        super().mv(path1, path2, **kwargs)


@pytest.mark.parametrize("renames_over", [True, False])
def test_the_old_file_stays_when_writing_is_cut_off_elsewhere(
    renames_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("piecewise", KilledWhileItWrites, clobber=True)
    monkeypatch.setattr(KilledWhileItWrites, "renames_over", renames_over)
    folder = Folder(f"piecewise://{uuid.uuid4().hex}")
    folder.write("state", b"first")
    folder.write("state", b"second")
    monkeypatch.setattr(KilledWhileItWrites, "is_killed", True)
    with pytest.raises(KeyboardInterrupt):
        folder.write("state", b"third")
    assert folder.read("state") == b"second"


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_files_come_back(tmp_path: Path, kind: str) -> None:
    folder = Folder(tmp_path if kind == "local" else f"memory://{uuid.uuid4().hex}")
    folder.write_npz("a/b.npz", x=np.arange(3), names=np.array(["ä", "b"]))
    folder.write_json("failed/3.json", {"loss": float("nan"), "n": np.int64(3)})
    np.testing.assert_array_equal(folder.read_npz("a/b.npz")["names"], ["ä", "b"])
    assert folder.read_json("failed/3.json") == {"loss": None, "n": 3}
    assert folder.names("failed/*.json") == ["3.json"]
    folder.remove("failed/3.json")
    folder.remove("failed/3.json")
    assert not folder.exists("failed/3.json")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", bad=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="cannot be read as npz"):
        Folder(tmp_path).read_npz("x.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_npz_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as npz"):
        Folder(tmp_path).read_npz("x.npz")


def test_unknown_protocols_and_files_in_the_way_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open nonsense://x"):
        Folder("nonsense://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Folder(tmp_path / "file").create()


def test_a_second_driver_is_refused_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, time; from bat_dist.storage.files import Folder; from bat_dist.storage.lease import only_driver\n"
        "with only_driver(Folder(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderBusy, match="another run is writing"), only_driver(Folder(tmp_path)):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with only_driver(Folder(tmp_path)):
        pass


def test_an_absolute_location_holds_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder("runs/a").absolute_location == str(tmp_path / "runs" / "a")
    assert Folder(tmp_path / "runs").absolute_location == str(tmp_path / "runs")
    assert Folder("memory://runs/").absolute_location == "memory://runs"
