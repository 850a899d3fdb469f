"""CIFAR through torchvision, on small files in its format whose md5 sums we tell it."""

import functools
import hashlib
import pickle
import tarfile
import warnings
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import load_dataset
from bat_dist.data.table import DatasetError


def dtype_as_of_numpy_2_4_0(*arguments) -> np.dtype:
    warnings.warn("align should be a boolean", np.exceptions.VisibleDeprecationWarning, stacklevel=2)
    return np.dtype(*arguments)


class Python2Dtype:
    """Unpickles as Python 2 wrote uint8's dtype into the real files, with the warning of some versions."""

    def __reduce__(self):
        return dtype_as_of_numpy_2_4_0, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)


class Python2Array:
    def __init__(self, array: np.ndarray):
        self.array = array

    def __reduce__(self):
        function, arguments, state = self.array.__reduce__()
        return function, arguments, (*state[:2], Python2Dtype(), *state[3:])


def batch(images: np.ndarray, key: str, labels: list[int]) -> bytes:
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return pickle.dumps({"data": Python2Array(rows), key: labels}, protocol=2).replace(
        b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    )


def noise(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


LABELS = [3, 0, 1, 2, 0, 1, 2, 3]
TEST_LABELS = [1, 3, 2, 0]
CLASSES = ["plane", "car", "bird", "cat"]


@pytest.fixture(params=["cifar10", "cifar100"])
def stored(request, tmp_path, monkeypatch) -> tuple[str, Path]:
    """Name and folder of a CIFAR of 8 train and 4 test images of 4 classes."""
    kind, key = kind_of(request.param), {"cifar10": "labels", "cifar100": "fine_labels"}[request.param]
    names = kind.meta["key"]
    files = {
        "first": batch(noise(0, 5), key, LABELS[:5]),
        "second": batch(noise(1, 3), key, LABELS[5:]),
        "held_out": batch(noise(2, 4), key, TEST_LABELS),
        "names": pickle.dumps({names: CLASSES}, protocol=2),
    }
    (tmp_path / kind.base_folder).mkdir()
    for name, data in files.items():
        (tmp_path / kind.base_folder / name).write_bytes(data)
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    monkeypatch.setattr(kind, "train_list", [["first", md5["first"]], ["second", md5["second"]]])
    monkeypatch.setattr(kind, "test_list", [["held_out", md5["held_out"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "names", "key": names, "md5": md5["names"]})
    return request.param, tmp_path


def kind_of(name: str) -> Any:
    """torchvision's class."""
    from torchvision.datasets import CIFAR10, CIFAR100  # here, since every test process would wait two seconds for it

    return {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]


def test_cifar_keeps_pixels_labels_and_order(stored):
    name, root = stored
    dataset = load_dataset(name, data_dir=root, num_classes=4)
    np.testing.assert_array_equal(dataset.train.images, np.concatenate([noise(0, 5), noise(1, 3)]))
    np.testing.assert_array_equal(dataset.test.images, noise(2, 4))
    assert list(dataset.train.labels) == LABELS
    assert list(dataset.test.labels) == TEST_LABELS
    assert list(dataset.train.ids) == list("01234567")
    assert dataset.class_names == tuple(CLASSES)
    assert dataset.train.images.flags.c_contiguous


def test_cifar_subsets_keep_the_original_index(stored):
    name, root = stored
    dataset = load_dataset(name, data_dir=root, num_classes=3, num_train=3, num_test=3)
    assert list(dataset.train.ids) == ["1", "2", "3"]
    assert list(dataset.test.ids) == ["0", "2", "3"]
    np.testing.assert_array_equal(dataset.test.images, noise(2, 4)[[0, 2, 3]])


def test_cifar_takes_its_own_folder_too(stored):
    name, root = stored
    dataset = load_dataset(name, data_dir=root / kind_of(name).base_folder, num_classes=4)
    assert dataset.fingerprint == load_dataset(name, data_dir=str(root), num_classes=4).fingerprint


def test_missing_cifar_says_how_to_get_it(stored, tmp_path):
    name, root = stored
    kind = kind_of(name)
    with pytest.raises(DatasetError, match=rf"has no file first: .*download.*{kind.filename} from {kind.url}"):
        load_dataset(name, data_dir=tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    (root / kind.base_folder / "held_out").unlink()
    with pytest.raises(DatasetError, match="has no file held_out"):
        load_dataset(name, data_dir=root)


def test_a_zip_is_not_cifar(stored):
    name, root = stored
    (root / "images.zip").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"images.zip is a file, but .*dataset image_folder"):
        load_dataset(name, data_dir=root / "images.zip")


class Attack:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", ["first", "held_out", "names"])
def test_a_file_with_another_md5_is_not_unpickled(stored, file):
    name, root = stored
    bait = root / "unpickled"
    (root / kind_of(name).base_folder / file).write_bytes(pickle.dumps(Attack(bait)))
    with pytest.raises(DatasetError, match=r"its md5 is not the published one.*: let it be downloaded"):
        load_dataset(name, data_dir=root, num_classes=4)
    assert not bait.exists()
    pickle.loads(pickle.dumps(Attack(bait)))
    assert bait.exists()  # the bait would have worked


@pytest.fixture
def server_of(monkeypatch) -> Iterator[Callable[[Path], str]]:
    """Serves a folder over HTTP on this machine; returns the address."""
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def serve(folder: Path) -> str:
        handler = functools.partial(QuietHandler, directory=folder)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_download_fetches_once(stored, tmp_path, monkeypatch, server_of):
    name, root = stored
    kind = kind_of(name)
    served = tmp_path / "served" / kind.filename
    served.parent.mkdir()
    with tarfile.open(served, "w:gz") as handle:
        handle.add(root / kind.base_folder, kind.base_folder)
    monkeypatch.setattr(kind, "url", f"{server_of(served.parent)}/{served.name}")
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(served.read_bytes()).hexdigest())
    target = tmp_path / "new" / "cache"
    first = load_dataset(name, data_dir=target, num_classes=4, download=True)
    assert list(first.train.labels) == LABELS
    served.unlink()
    again = load_dataset(name, data_dir=target, num_classes=4, download=True)
    assert first.fingerprint == again.fingerprint
    with pytest.raises(DatasetError, match=r"could not be downloaded from http://.*404.*unpack"):
        load_dataset(name, data_dir=tmp_path / "third", download=True)
