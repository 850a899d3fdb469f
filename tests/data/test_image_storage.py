"""Decoded images in files that are mapped into memory: equal to arrays, resumed, shared, sent as a name."""

import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bat_dist.data import image_storage, loaders, pixel_file
from bat_dist.data.archive import FolderArchive
from bat_dist.data.datasets import Dataset, fingerprint, load_dataset
from bat_dist.data.image_hashes import image_hashes
from bat_dist.data.image_storage import memory_here
from bat_dist.data.loaders import check_cache, dataset_loader
from bat_dist.data.mapped_images import MappedImages, file_of, hashes_of
from bat_dist.data.mapped_loader import MappedLoader
from bat_dist.data.memory_loader import MemoryLoader
from bat_dist.data.own import dataset_of
from bat_dist.data.pixel_file import digest_of, write_pixels
from bat_dist.data.table import DatasetError
from bat_dist.errors import UserError
from tests.data.image_trees import image_tree, noise, png, tiny_tree, write_folder, write_zip
from tests.data.test_datasets import assert_same

NUM_IMAGES, SHAPE = 23, (23, 4, 4, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAT_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images to a shard, two to a chunk."""
    monkeypatch.setattr(pixel_file, "SHARD_BYTES", 5 * 48)
    monkeypatch.setattr(pixel_file, "CHUNK_BYTES", 2 * 48)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The image files that are read."""
    found: list[str] = []
    read = FolderArchive.read

    def noted(archive: FolderArchive, name: str) -> bytes:
        found.append(name)
        return read(archive, name)

    monkeypatch.setattr(FolderArchive, "read", noted)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(image_tree(), tmp_path / "images")


def on_disk(folder: Path, **asked: Any) -> Dataset:
    return load_dataset("image_folder", data_dir=folder, image_storage="disk", **asked)


def file_path(images: np.ndarray) -> Path:
    file = file_of(images)
    assert file
    return file.path


# --- what is loaded


@pytest.mark.usefixtures("small_shards")
def test_images_on_the_disk_are_those_in_memory(folder: Path, tmp_path: Path) -> None:
    places = {"image_folder": folder, "tiny_imagenet": write_zip(tiny_tree(), tmp_path / "tiny.zip"), "digits": None}
    for name, place in places.items():
        counts = {"num_train": 9, "num_test": 3, "num_classes": 3} if name != "digits" else {"num_train": 40}
        asked: dict[str, Any] = {"data_dir": place, **counts, "image_size": 6}
        disk = load_dataset(name, image_storage="disk", **asked)
        assert isinstance(disk.train.images, MappedImages)
        assert isinstance(disk.test.images, MappedImages)
        assert not disk.train.images.flags.writeable
        assert_same(disk, load_dataset(name, image_storage="memory", **asked))
        assert disk.fingerprint == fingerprint(disk.train, disk.test)


def test_the_second_start_decodes_nothing(folder: Path, reads: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = on_disk(folder, image_size=8)
    assert "18 images of 8 pixels: 3.46 kB, decoded once into" in caplog.text
    reads.clear()
    assert_same(first, on_disk(folder, image_size=8))
    assert not reads
    assert "18 images of 8 pixels: 3.46 kB, mapped from" in caplog.text
    on_disk(folder, image_size=9)
    assert {*reads} == {*image_tree()}


def test_a_file_that_changes_is_decoded_again(folder: Path) -> None:
    before = on_disk(folder)
    file = folder / "train/bee/1.png"
    time = file.stat().st_mtime_ns
    file.write_bytes(png(noise(99)))  # as large as before: noise cannot be compressed
    os.utime(file, ns=(time + 1, time + 1))
    after = on_disk(folder)
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(after.train.images[5], noise(99))


def test_own_data_of_one_name_are_read_each_time_and_do_not_replace_others(cache: Path) -> None:
    first = dataset_of((PIXELS, np.arange(23) % 2), name="own", image_storage="disk")
    sent = pickle.dumps(first)
    same = dataset_of((PIXELS, np.arange(23) % 2), name="own", image_storage="disk")
    other = dataset_of((255 - PIXELS, np.arange(23) % 2), name="own", image_storage="disk")
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert np.array_equal(first.train.images, 255 - other.train.images)
    assert file_path(first.train.images) == file_path(same.train.images)
    assert np.array_equal(pickle.loads(sent).train.images, first.train.images)  # a worker that starts later
    assert len([*cache.glob("*.u8")]) == 4  # train and test
    assert not [*cache.glob("*.partial"), *cache.glob("*.shards")]


def test_what_is_odd_is_said_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for copy in ("train/bee/0.png", "test/ant/1.png"):
        (folder / copy).write_bytes((folder / "train/ant/3.png").read_bytes())
    for _ in range(2):
        caplog.clear()
        on_disk(folder)
        assert "1 image is in the training set under several labels, such as ant/3.png and bee/0.png" in caplog.text
        assert "1 test image is a training image too, such as ant/1.png and ant/3.png" in caplog.text


@pytest.mark.parametrize("left", [None, 0, 20, 151, -8])
def test_hashes_that_are_lost_or_damaged_are_computed_again(folder: Path, left: int | None) -> None:
    images = on_disk(folder).train.images
    place = file_path(images).with_suffix(".hashes.npy")
    whole, expected = place.read_bytes(), image_hashes(images)
    place.unlink()
    if left is not None:
        place.write_bytes(whole[:left])
    assert np.array_equal(hashes_of(on_disk(folder).train.images), expected)
    assert place.read_bytes() == whole
    np.save(place, np.load(place)[:-1])  # of another number of images
    assert np.array_equal(hashes_of(images), expected)


@pytest.mark.parametrize(("memory", "is_mapped"), [(4 * 864, False), (4 * 864 - 1, True)])
def test_auto_takes_the_disk_beyond_a_quarter_of_the_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, memory: int, is_mapped: bool
) -> None:
    monkeypatch.setattr(image_storage, "memory_here", lambda: memory)  # 18 images of 4 x 4 x 3 bytes are 864
    dataset = load_dataset("image_folder", data_dir=folder)
    assert isinstance(dataset.train.images, MappedImages) == is_mapped


def test_the_memory_is_what_the_innermost_limit_says(tmp_path: Path) -> None:
    for place, text in {
        "memory.max": "max",
        "job/memory.max": "4096",
        "memory/v1/memory.limit_in_bytes": "512",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"{text}\n")
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    assert [*image_storage.cgroup_limits(tmp_path / "cgroup", tmp_path)] == [4096]
    (tmp_path / "cgroup").write_text("3:cpu,memory:/v1\n2:pids:/job\n")
    assert [*image_storage.cgroup_limits(tmp_path / "cgroup", tmp_path)] == [512]
    assert [*image_storage.cgroup_limits(tmp_path / "none", tmp_path)] == []
    assert 0 < memory_here() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- how files are written


def reader(asked: list[int], before: Callable[[int], None] = lambda _: None) -> pixel_file.Read:
    """Images of PIXELS; their positions are noted, after `before` was called with the first of them."""

    def read(start: int, stop: int) -> np.ndarray:
        before(start)
        asked.extend(range(start, stop))
        return PIXELS[start:stop]

    return read


@pytest.mark.usefixtures("small_shards")
def test_what_is_finished_is_kept_when_the_process_is_killed(cache: Path) -> None:
    asked: list[int] = []

    def killed(start: int) -> None:
        if start >= 12:  # in the third shard
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pixels(cache / "x.u8", SHAPE, reader(asked, killed))
    assert digest_of(cache / "x.u8") is None
    asked.clear()
    digest = write_pixels(cache / "x.u8", SHAPE, reader(asked))
    assert asked == [*range(10, 23)]
    assert (cache / "x.u8").read_bytes() == PIXELS.tobytes()
    assert digest == write_pixels(cache / "y.u8", SHAPE, reader([]))
    assert {file.suffix for file in cache.iterdir()} == {".u8", ".json", ".npy", ".lock"}


@pytest.mark.usefixtures("small_shards")
def test_writers_divide_the_shards(cache: Path) -> None:
    asked: list[int] = []
    both = threading.Barrier(2, timeout=20)

    def meet(start: int) -> None:
        if start in (0, 5):  # each of two writers has a shard of its own
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write_pixels, cache / "x.u8", SHAPE, reader(asked, meet)) for _ in range(2)]
        digests = {writer.result() for writer in writers}
    assert sorted(asked) == [*range(23)]
    assert digests == {digest_of(cache / "x.u8")}
    assert (cache / "x.u8").read_bytes() == PIXELS.tobytes()


@pytest.mark.usefixtures("small_shards")
def test_an_image_that_cannot_be_decoded_leaves_nothing_behind(folder: Path, cache: Path) -> None:
    (folder / "train/cat/3.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"train/cat/3.png in .* is not an image"):
        on_disk(folder)
    assert {file.suffix for file in cache.iterdir()} <= {".lock"}


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("is_begun_again", [False, True])
def test_a_writer_goes_on_after_another_could_not_read(cache: Path, *, is_begun_again: bool) -> None:
    """The other one removes what both wrote; it may be started again before this one has finished a shard."""
    path, asked, has_failed = cache / "x.u8", list[int](), list[bool]()

    def broken(_: int, __: int) -> np.ndarray:
        raise DatasetError("train/ant/0.png cannot be read")

    def killed(_: int, __: int) -> np.ndarray:
        raise KeyboardInterrupt

    def others(start: int) -> None:
        if start == 7 and not has_failed:  # in this writer's second shard
            has_failed.append(True)
            with pytest.raises(DatasetError):
                write_pixels(path, SHAPE, broken)
            assert not path.with_suffix(".partial").exists()
            if is_begun_again:
                with pytest.raises(KeyboardInterrupt):
                    write_pixels(path, SHAPE, killed)

    digest = write_pixels(path, SHAPE, reader(asked, others))
    assert path.read_bytes() == PIXELS.tobytes()
    assert asked == [*range(10), *range(23)]
    assert digest == write_pixels(cache / "y.u8", SHAPE, reader([]))


@pytest.mark.usefixtures("small_shards")
def test_a_writer_that_cannot_read_leaves_the_file_of_others(cache: Path) -> None:
    """What this one wrote was removed, and another has begun anew since: that is not this one's to remove."""
    path, asked = cache / "x.u8", list[int]()

    def killed(start: int) -> None:
        if start >= 5:
            raise KeyboardInterrupt

    def read(start: int, _: int) -> np.ndarray:
        path.with_suffix(".partial").unlink()
        shutil.rmtree(path.with_suffix(".shards"))
        with pytest.raises(KeyboardInterrupt):
            write_pixels(path, SHAPE, reader([], killed))
        raise DatasetError(f"{start} cannot be read")

    with pytest.raises(DatasetError, match="0 cannot be read"):
        write_pixels(path, SHAPE, read)
    write_pixels(path, SHAPE, reader(asked))
    assert asked == [*range(5, 23)]


@pytest.mark.usefixtures("small_shards")
def test_sizes_are_compared_across_chunks(folder: Path) -> None:
    for file in (2, 3):  # all of a chunk
        (folder / f"train/cat/{file}.png").write_bytes(png(noise(file, 5, 5)))
    with pytest.raises(DatasetError, match=r"images differ in size: train/ant/0.png is 4x4, train/cat/2.png is 5x5"):
        on_disk(folder)


def test_damage_is_repaired_and_a_touched_file_is_kept(cache: Path) -> None:
    path, asked = cache / "x.u8", []
    digest = write_pixels(path, SHAPE, reader(asked))

    def cut() -> None:
        path.write_bytes(PIXELS.tobytes()[:-1])

    def flip() -> None:
        path.write_bytes(bytes([PIXELS.flat[0] ^ 1]) + PIXELS.tobytes()[1:])

    def lose() -> None:
        path.with_suffix(".json").unlink()

    for damage in (path.unlink, cut, flip, lose):
        damage()
        asked.clear()
        assert digest_of(path) is None
        assert write_pixels(path, SHAPE, reader(asked)) == digest
        assert len(asked) == NUM_IMAGES
        assert path.read_bytes() == PIXELS.tobytes()
    os.utime(path, ns=(1, 1))
    asked.clear()
    assert write_pixels(path, SHAPE, reader(asked)) == digest
    assert not asked


def test_a_full_disk_is_told_with_the_bytes_needed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_file.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DatasetError, match=r"1,104 bytes \(1.1 kB\) needed in .*pixels, 1 kB free: make room"):
        write_pixels(cache / "x.u8", SHAPE, reader([]))


def test_a_folder_that_cannot_be_written_to_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAT_DIST_CACHE", "/proc/no-folder")
    with pytest.raises(UserError, match=r"decoded images, /proc/no-folder/pixels, cannot .* --image_storage memory"):
        on_disk(folder)


# --- how they travel


def elsewhere(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Dataset]:
    """The dataset on another machine, where the cache folder is another one and this one's is not there."""
    sent = pickle.dumps(dataset)
    (tmp_path / "cache").rename(tmp_path / "not-here")
    monkeypatch.setenv("BAT_DIST_CACHE", str(tmp_path / "other"))
    return lambda: pickle.loads(sent)


def test_a_pickle_holds_no_pixels(folder: Path) -> None:
    dataset = on_disk(folder, image_size=64)
    buffers: list[Any] = []
    sent = pickle.dumps(dataset.train.images, protocol=5, buffer_callback=buffers.append)
    assert len(sent) < 1000
    assert not buffers
    again = pickle.loads(sent)
    assert np.array_equal(again, dataset.train.images)
    assert not again.flags.writeable
    for part in (dataset.train.images[3:5], dataset.train.images[[1, 2]], dataset.train.images[0], again // 2):
        assert np.array_equal(pickle.loads(pickle.dumps(part)), part)


def test_another_machine_decodes_them_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    dataset = on_disk(folder, image_size=8)
    expected = dataset.train.images.copy()
    received = elsewhere(dataset, tmp_path, monkeypatch)
    assert np.array_equal(received().train.images, expected)
    assert file_path(received().train.images).is_relative_to(tmp_path / "other")
    reads.clear()
    assert received().fingerprint == dataset.fingerprint
    assert not reads


def test_another_machine_reads_data_of_ones_own_from_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Although its processes are in another folder, which a relative name does not lead from."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/stripes.py").write_text(
        "import numpy as np\nIMAGES = np.arange(24 * 48).reshape(24, 4, 4, 3).astype('u1')\n"
        "data = [(IMAGES[part], np.arange(12) % 2) for part in (slice(0, 24, 2), slice(1, 24, 2))]\n"
    )
    monkeypatch.chdir(tmp_path / "work")
    dataset = load_dataset("stripes.py:data", image_storage="disk")
    expected = np.asarray(dataset.train.images).copy()
    assert dataset.name == "data"
    received = elsewhere(dataset, tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(received().train.images, expected)
    caplog.set_level("INFO")
    caplog.clear()
    assert received().fingerprint == dataset.fingerprint
    assert "decoded" not in caplog.text


def test_one_process_of_a_machine_decodes_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    received = elsewhere(on_disk(folder, image_size=8), tmp_path, monkeypatch)
    reads.clear()
    with ThreadPoolExecutor(3) as pool:
        found = [call.result() for call in [pool.submit(received) for _ in range(3)]]
    assert len({dataset.train.images.tobytes() for dataset in found}) == 1
    assert len(reads) <= len(image_tree()) + 4  # the first of each split is looked at for its size, and again


def test_other_pixels_there_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = elsewhere(on_disk(folder), tmp_path, monkeypatch)
    (folder / "train/bee/1.png").write_bytes(png(noise(99)))
    with pytest.raises(UserError, match=r"what data_dir .*images has here are other pixels"):
        received()


def test_data_that_are_not_there_are_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = elsewhere(on_disk(folder), tmp_path, monkeypatch)
    folder.rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"cannot be decoded here: .* does not exist.*Let \$BAT_DIST_CACHE name a folder"
    ):
        received()


def test_data_given_as_objects_need_a_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of((PIXELS, np.arange(23) % 2), name="own", image_storage="disk")
    received = elsewhere(dataset, tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"not data by name, .*\$BAT_DIST_CACHE name a folder that all machines share"):
        received()


# --- how they are read


@pytest.fixture
def two(folder: Path) -> tuple[Dataset, Dataset]:
    """The same data mapped and in memory."""
    return on_disk(folder), load_dataset("image_folder", data_dir=folder)


def batches(loader: loaders.Loader) -> Iterator[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for batch in (*loader.train_epoch(range(12), batch_size=5, generator=generator), *loader.eval_epoch(batch_size=7)):
        yield [*batch]


@pytest.mark.parametrize("kind", ["auto", "memory"])
def test_loaders_give_the_bits_that_they_give_of_arrays(two: tuple[Dataset, Dataset], kind: str) -> None:
    mapped, expected = (dataset_loader(kind, dataset, "train") for dataset in two)
    assert isinstance(mapped, MappedLoader)
    for batch, other in zip(batches(mapped), batches(expected), strict=True):
        assert all(torch.equal(tensor, its_other) for tensor, its_other in zip(batch, other, strict=True))


def test_an_epoch_that_is_left_leaves_no_thread(two: tuple[Dataset, Dataset]) -> None:
    before = threading.enumerate()
    epoch = dataset_loader("auto", two[0], "train").eval_epoch(batch_size=2)
    next(epoch)
    epoch.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.enumerate() == before


def test_a_gpu_that_has_room_holds_them(two: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "fits_gpu", lambda *_: True)
    assert type(dataset_loader("auto", two[0], "train")) is MemoryLoader


def test_auto_needs_no_beton(two: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAT_DIST_CACHE", "/proc/no-folder")
    monkeypatch.setattr(loaders, "SMALL_BYTES", 0)
    check_cache("auto", two[0], ("train", "test"))
    with pytest.raises(UserError, match="FFCV cache"):
        check_cache("ffcv", two[0], ("train",))


CHILD = """
import sys, threading, time
import torch
from pathlib import Path
from bat_dist.data.datasets import load_dataset
from bat_dist.data.loaders import dataset_loader

def anonymous():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])

def watch():
    global most
    while True:
        most = max(most, anonymous())
        time.sleep(0.002)

def load(storage, **asked):
    return load_dataset("image_folder", data_dir=sys.argv[1], image_storage=storage, image_size=224, **asked)

def epoch(dataset):
    loader, order = dataset_loader("auto", dataset, "train"), range(len(dataset.train))
    for _ in loader.train_epoch(order, batch_size=4, generator=torch.Generator().manual_seed(0)): pass

most = 0
threading.Thread(target=watch, daemon=True).start()
few = load("disk", num_train=12, num_test=2)
for _ in range(3): epoch(few)  # what a batch needs
before = most
dataset = load("disk")
loaded = most
epoch(dataset)
on_disk = most
held = load("memory")
print(dataset.train.images.nbytes + dataset.test.images.nbytes, loaded - before, on_disk - before, anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_the_memory_of_a_process_does_not_grow_by_the_images(tmp_path: Path) -> None:
    """The pages of a mapped file are not counted: the system drops them when memory is wanted."""
    image = png(Image.fromarray(noise(0, 16, 16)).resize((32, 32)), "JPEG")
    tree = {f"{split}/{name}/{i}.jpg": image for split in ("train", "test") for name in "ab" for i in range(250)}
    write_folder(tree, tmp_path / "images")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "images")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, loaded, with_epoch, in_memory = map(int, done.stdout.split())
    assert size == 1000 * 224 * 224 * 3
    assert loaded <= with_epoch < size / 5  # batches that are read ahead take some 15 MB, however many images there are
    assert in_memory > 0.9 * size  # which is seen, then
