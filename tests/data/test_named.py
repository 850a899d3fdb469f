"""--dataset FILE.py:NAME, package.module:NAME, hf:NAME and torchvision:NAME."""

import re
import struct
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from bat_dist.data import hugging_face
from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.data.table import DatasetError, check_dataset, own_name
from bat_dist.errors import UserError
from bat_dist.settings.fields import _dataset
from tests.data.image_trees import CLASSES, image_tree, noise, png, write_folder

OF_FOLDER = """
from pathlib import Path
import numpy as np
from PIL import Image
from torch.utils.data import Dataset

class Birds(Dataset):
    def __init__(self, folder):
        self.files = sorted(Path(folder).rglob("*.png"))
        self.classes = sorted({file.parent.name for file in self.files})
    def __len__(self):
        return len(self.files)
    def __getitem__(self, index):
        file = self.files[index]
        return Image.open(file), self.classes.index(file.parent.name)

def birds(data_dir):
    return Birds(f"{data_dir}/train"), Birds(f"{data_dir}/test")
def alone(data_dir, image_size=None):
    return Birds(f"{data_dir}/train")
def by_name(data_dir):
    return dict(zip(("train", "test"), birds(data_dir)))
def greeting(data_dir, hello):
    pass
def broken(data_dir):
    raise RuntimeError("no wings")
def nothing():
    return None
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "birds.py").write_text(OF_FOLDER)
    return write_folder(image_tree(), tmp_path / "images")


def named(folder: Path, name: str) -> str:
    return f"{folder.parent}/birds.py:{name}"


@pytest.mark.parametrize("name", ["birds", "by_name"])
def test_a_function_of_a_file_gives_a_pair(folder: Path, name: str) -> None:
    mine = load_dataset(named(folder, name), data_dir=folder)
    assert mine.fingerprint == load_dataset("image_folder", data_dir=folder).fingerprint
    assert (mine.name, mine.spec.name, mine.class_names) == (name, name, CLASSES)
    fewer = load_dataset(named(folder, name), data_dir=folder, num_train=4, num_test=2, num_classes=2, image_size=6)
    theirs = load_dataset("image_folder", data_dir=folder, num_train=4, num_test=2, num_classes=2, image_size=6)
    assert fewer.fingerprint == theirs.fingerprint


def test_one_set_is_shared_out(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"birds.py:alone has no test set: test_share 0.2 makes one"):
        load_dataset(named(folder, "alone"), data_dir=folder)
    mine = load_dataset(named(folder, "alone"), data_dir=folder, test_share=0.5)
    assert (len(mine.train), len(mine.test)) == (6, 6)


def test_an_object_of_a_module_and_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from bat_dist.data.datasets import load_dataset\nsome = load_dataset('digits', num_train=50, num_test=50)\n"
    (tmp_path / "some_module_of_mine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    digits = load_dataset("digits", num_train=50, num_test=50)
    mine = load_dataset("some_module_of_mine:some", num_train=20)
    assert mine.name == "some"
    assert mine.fingerprint == load_dataset("digits", num_train=20, num_test=50).fingerprint != digits.fingerprint


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("greeting", "birds.py:greeting cannot be called without hello: only data_dir, image_size or num_classes are"),
        ("broken", "birds.py:broken raised RuntimeError: no wings"),
        ("nothing", "birds.py:nothing has no parameter data_dir: add one, or leave data_dir out"),
        ("Birdz", "has no 'Birdz'; did you mean Birds?"),
    ],
)
def test_functions_that_give_nothing(folder: Path, name: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        load_dataset(named(folder, name), data_dir=folder)


def test_what_a_function_needs_is_asked_for(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"birds.py:birds cannot be called without data_dir: give data_dir"):
        load_dataset(named(folder, "birds"))
    with pytest.raises(DatasetError, match="only its own code can download"):
        load_dataset(named(folder, "birds"), data_dir=folder, download=True)


def test_names_are_checked_without_reading_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("raise SystemExit")
    assert _dataset(f"{tmp_path}/a.py:birds") == f"{tmp_path}/a.py:birds"
    assert _dataset("hf:uoft-cs/cifar100@fine_label")
    assert _dataset("torchvision:MNIST")
    assert own_name("digits") is own_name("cifar-10") is None
    assert check_dataset("gone.py:birds").name == "birds"  # a report of results from elsewhere
    assert check_dataset("hf:uoft-cs/cifar100@fine_label").name == "uoft-cs/cifar100"
    with pytest.raises(UserError, match=r"there is no file gone.py to import the dataset from"):
        load_dataset("gone.py:birds")
    with pytest.raises(ValueError, match=r"'cifar10' is a dataset of bat_dist"):
        _dataset(f"{tmp_path}/a.py:cifar10")
    with pytest.raises(ValueError, match=r"unknown dataset 'cifar'.*FILE.py:NAME, package.module:NAME, hf:NAME or"):
        _dataset("cifar")


# --- Hugging Face


def table(split: str, **columns: Any) -> datasets.Dataset:
    number = 6 if split == "train" else 3
    images = [Image.fromarray(noise(10 * len(split) + i)) for i in range(number)]
    labels = [i % 3 for i in range(number)]
    features = {
        "picture": datasets.Image(),
        "kind": datasets.ClassLabel(names=list(CLASSES)),
        "number": datasets.Value("int64"),
    }
    rows = {"picture": images, "kind": labels, "number": list(range(number)), **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def check_hub(dataset: Dataset) -> None:
    np.testing.assert_array_equal(dataset.train.images, [noise(50 + i) for i in range(6)])
    np.testing.assert_array_equal(dataset.test.images, [noise(40 + i) for i in range(3)])
    assert dataset.train.labels.tolist() == [0, 1, 2] * 2
    assert (dataset.name, dataset.class_names) == ("birds/small", CLASSES)


@pytest.fixture
def both() -> datasets.DatasetDict:
    return datasets.DatasetDict({"train": table("train"), "test": table("test")})


@pytest.fixture(autouse=True)
def _no_cache_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf_cache")
    monkeypatch.setattr(hugging_face, "DEFAULT_DIR", tmp_path / "ours")


def test_a_saved_data_set(both: datasets.DatasetDict, tmp_path: Path) -> None:
    both.save_to_disk(str(tmp_path / "saved"))
    check_hub(load_dataset("hf:birds/small", data_dir=tmp_path / "saved"))
    both["train"].save_to_disk(str(tmp_path / "one"))
    dataset = load_dataset("hf:birds/small", data_dir=tmp_path / "one", test_share=0.5)
    assert (len(dataset.train), len(dataset.test)) == (3, 3)
    with pytest.raises(DatasetError, match=r"hf:birds/small has no test set: test_share 0.2"):
        load_dataset("hf:birds/small", data_dir=tmp_path / "one")


def test_a_folder_of_parquet(both: datasets.DatasetDict, tmp_path: Path) -> None:
    for name, one in both.items():
        (tmp_path / "files" / "data").mkdir(parents=True, exist_ok=True)
        one.to_parquet(str(tmp_path / "files" / "data" / f"{name}-00000-of-00001.parquet"))
    check_hub(load_dataset("hf:birds/small", data_dir=tmp_path / "files"))


def test_a_data_set_is_fetched_once(
    both: datasets.DatasetDict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"hf:birds/small is not in .*ours/hf/birds/small: let it be downloaded"):
        load_dataset("hf:birds/small")
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or both)
    for download in (True, True, False):
        check_hub(load_dataset("hf:birds/small", download=download))
    assert asked == ["birds/small"]


def test_a_failed_download_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(name: str) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DatasetError, match="hf:birds could not be downloaded: ConnectionError: nobody there"):
        load_dataset("hf:birds", download=True)
    assert not [path for path in (tmp_path / "ours" / "hf").iterdir() if path.suffix != ".lock"]


def test_a_test_split_without_labels_gives_way(both: datasets.DatasetDict, tmp_path: Path) -> None:
    both = datasets.DatasetDict({**both, "validation": both["test"], "test": table("test", kind=[-1, -1, -1])})
    both.save_to_disk(str(tmp_path / "saved"))
    check_hub(load_dataset("hf:birds/small", data_dir=tmp_path / "saved"))


def test_the_columns_of_labels(both: datasets.DatasetDict, tmp_path: Path) -> None:
    both.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(
        DatasetError,
        match=r"one column must hold the label \(ClassLabel\), and none does: the columns are picture \(Image\), kind",
    ):
        load_dataset("hf:birds/small@colour", data_dir=tmp_path / "saved")
    coarse = datasets.DatasetDict({name: one.add_column("coarse", one["kind"][:]) for name, one in both.items()})
    coarse = coarse.cast_column("coarse", datasets.ClassLabel(names=list("xyz")))
    coarse.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DatasetError, match=r"and several do: .*hf:NAME@COLUMN names that of the labels"):
        load_dataset("hf:birds/small", data_dir=tmp_path / "two")
    assert load_dataset("hf:birds/small@coarse", data_dir=tmp_path / "two").class_names == ("x", "y", "z")


def test_a_machine_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match=r"hf:birds needs the package datasets .*: .*pip install '\.\[hf\]'"):
        load_dataset("hf:birds")


# --- torchvision


def test_a_class_of_torchvision(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, number in (("train", 20), ("t10k", 10)):
        images = np.stack([noise(i, 28, 28)[..., 0] for i in range(number)])
        labels = (np.arange(number) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, number, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, number) + labels.tobytes())
    dataset = load_dataset("torchvision:MNIST", data_dir=tmp_path)
    assert (dataset.name, len(dataset.train), len(dataset.test)) == ("MNIST", 20, 10)
    np.testing.assert_array_equal(dataset.train.images[3], np.repeat(noise(3, 28, 28)[..., :1], 3, axis=2))
    assert dataset.class_names[3] == "3 - three"


def test_classes_that_torchvision_lacks(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"torchvision.datasets has no 'MNISTT'; did you mean .*MNIST"):
        load_dataset("torchvision:MNISTT", data_dir=tmp_path)
    with pytest.raises(DatasetError, match=r"torchvision's MNIST cannot be read from .*: let them be downloaded"):
        load_dataset("torchvision:MNIST", data_dir=tmp_path / "empty")


def test_the_page_about_data_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two blocks of Python, run as they are."""
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
    file, session = re.findall(r"```python[^\n]*\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("birds.py").write_text(file)
    birds = {"finch": 2, "owl": 1, "wren": 3}
    tree = {
        f"{split}/{name}/{i}.png": png(noise(100 * (split == "test") + 10 * number + i, 6, 5))
        for split in ("train", "test")
        for number, (name, count) in enumerate(birds.items())
        for i in range(count)
    }
    write_folder(tree, tmp_path / "birds")
    for split in ("train", "test"):
        lines = (f"{name}/{i}.png,{name}\n" for name, count in birds.items() for i in range(count))
        Path(f"birds/{split}/labels.csv").write_text("".join(lines))
    mine = load_dataset("birds.py:birds", data_dir="birds", image_size=32)
    assert mine.class_names == tuple(birds)
    made: dict[str, Any] = {}
    exec(session, made)
    assert made["dataset"].fingerprint == mine.fingerprint
    assert made["dataset"].train.ids.tolist()[:3] == ["finch/0.png", "finch/1.png", "owl/0.png"]
