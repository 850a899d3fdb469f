"""What can be said of `collect` without a cluster; with one: tests/cluster."""

import json
import logging
from pathlib import Path

import fsspec
import pytest

from bat_dist.collect import main
from bat_dist.errors import UserError
from bat_dist.storage.files import Folder
from bat_dist.workers import collecting
from bat_dist.workers.collecting import RUNS, local_names, remember_on_head, remember_run

CLUSTER = Path(__file__).parents[2] / "cluster/local.yaml"


def test_folders_are_named_so_that_none_falls_on_another() -> None:
    assert local_names(["/shared/digits", "s3://bucket/cifar10/"]) == ["digits", "cifar10"]
    assert local_names(["/a/bat", "/b/bat", "/b/erm"]) == ["a_bat", "b_bat", "erm"]
    for nameless in ("/", "..", "/shared/..", "~"):
        with pytest.raises(UserError, match="no name of its own"):
            local_names([nameless])


@pytest.mark.parametrize("path", ["/a;touch b", "/a b", "$(id)", "/a`id`", "/a'", "/a\nb"])
def test_a_path_that_a_shell_would_read_is_refused(path: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert main([str(CLUSTER), "--out", str(out), "--runs", path]) == 2
    assert "characters that a shell on the head would read" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("a: [", "not plain YAML"),
        ("- 1", "no cluster file"),
        ("!!python/object/apply:os.system ['touch owned']", "not plain YAML"),
    ],
)
def test_a_cluster_file_that_is_none(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "cluster.yaml"
    if content is not None:
        file.write_text(content)
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_from_a_uri_all_but_checkpoints_and_scrap(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = fsspec.filesystem("memory")
    wanted = ["history.csv", "logs/trials-1.jsonl"]
    for name in (*wanted, "last.safetensors", ".ray-12ab/x.json", ".driver.lock"):
        source.pipe_file(f"/collect-test/{name}", name.encode())
    words = [str(CLUSTER), "--out", str(tmp_path), "--runs", "memory://collect-test"]
    assert main(words) == 0
    place = tmp_path / "collect-test"
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == [
        ".fetched-from",
        *wanted,
    ]
    assert "2 files" in capsys.readouterr().out
    assert main([*words, "--checkpoints"]) == 0
    assert (place / "last.safetensors").read_bytes() == b"last.safetensors"


def test_a_folder_that_was_fetched_from_elsewhere_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = fsspec.filesystem("memory")
    for place in ("one/run", "two/run"):
        source.pipe_file(f"/collect-from/{place}/history.csv", place.encode())
    words = [str(CLUSTER), "--out", str(tmp_path), "--runs"]
    assert main([*words, "memory://collect-from/one/run"]) == 0
    assert main([*words, "memory://collect-from/one/run"]) == 0
    assert main([*words, "memory://collect-from/two/run"]) == 2
    said = capsys.readouterr().err
    assert "run holds what was fetched from memory://collect-from/one/run, which memory://collect-from/two/run" in said
    assert (tmp_path / "run/history.csv").read_text() == "one/run"


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fsspec.filesystem("memory").pipe_file("/collect-evil/../../owned", b"x")  # an object store takes any key
    words = [str(CLUSTER), "--out", str(tmp_path / "out"), "--runs", "memory://collect-evil"]
    assert main(words) == 2
    assert "leads out of its folder" in capsys.readouterr().err
    assert not list(tmp_path.rglob("owned"))


def test_a_head_remembers_where_programs_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        remember_run(Folder(tmp_path / "runs/a"))
        remember_run(Folder("memory://b/c"))
        remember_run(Folder("memory://user:hunter5@host/c"))
    notes = [json.loads(line)["out"] for line in (tmp_path / RUNS).read_text().splitlines()]
    assert notes == [str(tmp_path / "runs/a"), "memory://b/c"]


DAMAGED = '{"out": "/shared/a"}\n7\n["out"]\n{"place": "/x"}\n{"out": 5}\n{"out": "/sha'


def test_notes_with_damaged_lines_are_read_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full cuts the last line."""
    monkeypatch.setenv("HOME", str(tmp_path))
    notes = tmp_path / RUNS
    notes.parent.mkdir()
    notes.write_bytes(b"\xff\n" + DAMAGED.encode())
    remember_run(Folder("/shared/b"))
    remember_run(Folder("/shared/a"))
    monkeypatch.setattr(collecting, "_rsync", lambda cluster, source, target: Path(target).write_bytes(fetched))
    fetched = notes.read_bytes()
    assert collecting._remembered({}, tmp_path) == ["/shared/a", "/shared/b"]


def test_a_note_that_cannot_be_made_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # below which nobody can write, not even root
    with caplog.at_level(logging.WARNING, "bat_dist"):
        remember_run(Folder("/shared/b"))
    assert "/shared/b is not noted in ~/.bat-dist/runs.jsonl" in caplog.text

    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    remember_on_head(Folder("/shared/b"))
