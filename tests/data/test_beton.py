import errno
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from bat_dist.data import beton
from bat_dist.data.beton import MIN_PAGE, check_cache, default_cache_dir, ensure_beton, import_ffcv
from bat_dist.data.split_loader import LoaderUnavailable
from bat_dist.errors import UserError

ROOT = Path(__file__).parents[2]


def arrays(count=300, size=32):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), rng.integers(0, 10, count)


def ensure(folder, images, labels):
    return ensure_beton(images, labels, fingerprint="0f", split_name="train", cache_dir=folder)


def identity(path):
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


# Part of a page; pages partly filled; one image more than a page holds; a page for each image.
@pytest.mark.parametrize(("count", "size"), [(1, 8), (1500, 32), (171, 64), (3, 724)])
def test_bytes_are_those_of_ffcvs_own_writer(count, size, tmp_path, monkeypatch):
    import_ffcv()
    import ffcv.writer
    from ffcv.fields import IntField, NDArrayField

    monkeypatch.setattr(ffcv.writer, "Process", threading.Thread)  # it would fork out of pytest
    monkeypatch.setattr(ffcv.writer.tqdm, "monitor_interval", 0)
    progress = ffcv.writer.tqdm
    monkeypatch.setattr(ffcv.writer, "tqdm", lambda **_: progress(disable=True))
    images, labels = arrays(count, size)
    image_field = NDArrayField(np.dtype(np.uint8), images.shape[1:])
    fields = {"index": IntField(), "label": IntField(), "image": image_field}
    theirs = tmp_path / "theirs.beton"
    samples = list(zip(range(count), labels, images, strict=True))
    ffcv.writer.DatasetWriter(str(theirs), fields, page_size=MIN_PAGE, num_workers=1).from_indexed_dataset(samples)
    assert ensure(tmp_path / "ours", images, labels).read_bytes() == theirs.read_bytes()


def test_images_larger_than_the_smallest_page(tmp_path):
    images, labels = arrays(2, 900)
    import_ffcv()
    from ffcv.reader import Reader

    reader = Reader(str(ensure(tmp_path, images, labels)))
    assert reader.page_size == 2 * MIN_PAGE
    assert reader.alloc_table["size"].tolist() == [images[0].size] * 2


def test_written_once(tmp_path):
    path = ensure(tmp_path, *arrays())
    before = identity(path)
    assert ensure(tmp_path, *arrays()) == path
    assert identity(path) == before
    assert path.parent == tmp_path
    assert not list(tmp_path.glob("*.partial"))


def test_other_content_is_another_file(tmp_path):
    images, labels = arrays()
    paths = {
        ensure_beton(images, labels, fingerprint=fingerprint, split_name=split, cache_dir=tmp_path)
        for fingerprint in ("0f", "1f")
        for split in ("train", "test")
    }
    assert len(paths) == 4


def cut_short(path):
    os.truncate(path, path.stat().st_size - 1)


def change_a_byte(path):
    with path.open("r+b") as file:
        file.seek(MIN_PAGE + 12345)
        byte = file.read(1)[0]
        file.seek(MIN_PAGE + 12345)
        file.write(bytes([byte ^ 1]))


def change_manifest(path, **changes):
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


DAMAGES = {
    "cut short": cut_short,
    "one bit": change_a_byte,
    "gone": lambda path: path.unlink(),
    "manifest gone": lambda path: path.with_suffix(".json").unlink(),
    "manifest empty": lambda path: path.with_suffix(".json").write_text(""),
    "manifest binary": lambda path: path.with_suffix(".json").write_bytes(b"\xff\x00"),
    "manifest no object": lambda path: path.with_suffix(".json").write_text("[1]"),
    "manifest without digest": lambda path: path.with_suffix(".json").write_text("{}"),
    "of another shape": lambda path: change_manifest(path, shape=[300, 16, 64, 3]),
    "of another dataset": lambda path: change_manifest(path, fingerprint="2f"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_repaired(damage, tmp_path):
    path = ensure(tmp_path, *arrays())
    whole, before = path.read_bytes(), identity(path)
    damage(path)
    assert ensure(tmp_path, *arrays()) == path
    assert path.read_bytes() == whole
    repaired = identity(path)
    assert repaired != before
    ensure(tmp_path, *arrays())
    assert identity(path) == repaired


def test_a_leftover_of_a_killed_process_does_no_harm(tmp_path):
    clean = ensure(tmp_path / "clean", *arrays())
    (tmp_path / clean.with_suffix(".partial").name).write_bytes(b"x" * 50_000_000)
    assert ensure(tmp_path, *arrays()).read_bytes() == clean.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def fill_the_disk(path, monkeypatch):
    path.with_suffix(".partial").symlink_to("/dev/full")


def fill_the_disk_late(path, monkeypatch):
    def fail(_):
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("fill", [fill_the_disk, fill_the_disk_late])
def test_a_full_disk_is_named_and_left_clean(fill, tmp_path, monkeypatch):
    size = ensure(tmp_path / "elsewhere", *arrays()).stat().st_size
    folder = tmp_path / "full"
    folder.mkdir()
    with monkeypatch.context() as patch:
        fill(folder / "0f-train-v1.beton", patch)
        with pytest.raises(OSError, match=f"{size:,} bytes needed in {folder}") as failure:
            ensure(folder, *arrays())
    assert failure.value.errno in (errno.ENOSPC, errno.EDQUOT)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    assert ensure(folder, *arrays()).stat().st_size == size


@pytest.mark.parametrize("name", ["file", "file/folder", "/proc/bat_dist", "/sys/bat_dist"])
def test_a_folder_that_cannot_be_written_to_is_named(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{name}, cannot be written to .*: name another in .BAT_DIST_CACHE, or use"):
        ensure(tmp_path / name, *arrays())
    with pytest.raises(UserError, match=f"{name}, cannot be written to"):
        check_cache(arrays()[0], fingerprint="0f", split_name="train", cache_dir=tmp_path / name)


def test_a_cache_that_holds_the_split_need_not_be_writable(tmp_path, monkeypatch):
    ensure(tmp_path / "cache", *arrays())

    def fail(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(beton, "TemporaryFile", fail)
    check_cache(arrays()[0], fingerprint="0f", split_name="train", cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match=r"cache, cannot be written to \(Read-only file system\)"):
        check_cache(arrays()[0], fingerprint="1e", split_name="train", cache_dir=tmp_path / "cache")


def test_other_errors_pass(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is broken"):
        ensure(tmp_path, *arrays())


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path, *arrays())
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_read_only_and_strided_arrays(tmp_path):
    images, labels = arrays()
    expected = ensure(tmp_path / "plain", images[::2].copy(), labels[::2].copy()).read_bytes()
    images.flags.writeable = labels.flags.writeable = False
    assert ensure(tmp_path, images[::2], labels[::2]).read_bytes() == expected


def test_threads_write_once(tmp_path, caplog):
    start = threading.Barrier(4)
    paths = []

    def work():
        start.wait()
        paths.append(ensure(tmp_path, *arrays()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with caplog.at_level(logging.INFO, "bat_dist.data.beton"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert caplog.messages == [f"writing {paths[0]}"]


PROCESS = textwrap.dedent(
    """
    import logging, sys, torch
    import numpy as np
    torch.set_num_threads(2)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    from bat_dist.data import beton, ffcv_loader, loaders, memory_loader
    assert "ffcv" not in sys.modules and "numba" not in sys.modules
    beton.import_ffcv()
    assert torch.get_num_threads() == 2
    print("ready", flush=True)
    sys.stdin.readline()
    labels = np.arange(5000)
    images = np.zeros((5000, 32, 32, 3), np.uint8)
    path = beton.ensure_beton(images, labels, fingerprint="0f", split_name="train", cache_dir=sys.argv[1])
    loader = ffcv_loader.FfcvLoader(path, crop_padding=0, flip=False)
    assert sum(len(batch.labels) for batch in loader.eval_epoch(batch_size=999)) == 5000
    assert torch.get_num_threads() == 2
    """
)


@pytest.mark.timeout(600)
def test_processes_write_once_and_ffcv_comes_late_and_in_silence(tmp_path, caplog):
    # The standard library's distutils, which FFCV imports, warns; setuptools' does not.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SETUPTOOLS_USE_DISTUTILS": "stdlib"}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROCESS, str(tmp_path)],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    import_ffcv()
    with process, caplog.at_level(logging.INFO, "bat_dist.data.beton"):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[0]
        process.stdin.write("\n")
        process.stdin.flush()
        labels = np.arange(5000)
        images = np.zeros((5000, 32, 32, 3), np.uint8)
        ensure(tmp_path, images, labels)
        output = process.communicate()[0]
    assert process.returncode == 0, output
    assert output.splitlines() + caplog.messages == [f"writing {tmp_path}/0f-train-v1.beton"]


def test_the_cache_folder(monkeypatch):
    monkeypatch.setenv("BAT_DIST_CACHE", "~/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path.home() / "own"
    monkeypatch.delenv("BAT_DIST_CACHE")
    assert default_cache_dir() == Path("/xdg/bat_dist")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "bat_dist"


def test_the_default_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("BAT_DIST_CACHE", str(tmp_path / "cache"))
    images, labels = arrays()
    assert ensure_beton(images, labels, fingerprint="0f", split_name="train").parent == tmp_path / "cache"


def hide_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ffcv", None)


def hide_a_system_library(tmp_path, monkeypatch):
    (tmp_path / "ffcv.py").write_text("raise OSError('libturbojpeg.so.0: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "ffcv", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("hide", [hide_the_package, hide_a_system_library])
def test_missing_ffcv_says_what_to_do(hide, tmp_path, monkeypatch):
    import_ffcv.cache_clear()
    hide(tmp_path, monkeypatch)
    with pytest.raises(LoaderUnavailable) as failure:
        ensure(tmp_path / "cache", *arrays())
    for part in (
        "apt-get install libopencv-dev libturbojpeg0-dev pkg-config",
        "pip install '.[ffcv]'",
        "--loader memory",
        str(failure.value.__cause__),
    ):
        assert part in str(failure.value)
    assert not (tmp_path / "cache").exists()


def test_torchs_threads_are_kept_when_ffcv_fails():
    before = torch.get_num_threads()
    context = beton.torch_threads_kept()
    context.__enter__()
    torch.set_num_threads(before + 1)
    context.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert torch.get_num_threads() == before
