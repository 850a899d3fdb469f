"""What is odd about data is said: copies, labels that contradict each other, files that were not read."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bat_dist.data.datasets import Split, load_dataset
from bat_dist.data.oddities import oddities
from bat_dist.data.table import DatasetError


def split(numbers: list[int], labels: list[int], name: str = "train") -> Split:
    """Images of one value each."""
    images = np.stack([np.full((2, 2, 3), number, np.uint8) for number in numbers])
    ids = np.array([f"{name}{position}" for position in range(len(numbers))])
    return Split(images, np.array(labels), ids)


@pytest.mark.parametrize(
    ("train", "test", "lines"),
    [
        (([1, 2, 3, 4], [0, 0, 1, 1]), ([5, 5], [0, 1]), []),
        (
            ([1, 1, 1, 2, 2, 3], [0, 0, 0, 1, 1, 1]),
            ([5], [0]),
            ["3 training images are copies of another of the same label, such as train0 and train1"],
        ),
        (
            ([1, 2, 2, 4], [0, 0, 1, 1]),
            ([5], [0]),
            ["1 image is in the training set under several labels, such as train1 and train2"],
        ),
        (
            ([1, 2, 3, 4], [0, 0, 1, 1]),
            ([9, 4, 1], [0, 1, 0]),
            ["2 test images are training images too, such as test1 and train3"],
        ),
        (
            ([1, 2, 3], [0, 0, 1]),
            ([9], [0]),
            ["the classes are of unequal size: from 1 to 2 training images"],
        ),
    ],
)
def test_each_kind_is_counted_with_an_example(
    train: tuple[list[int], list[int]], test: tuple[list[int], list[int]], lines: list[str]
) -> None:
    assert oddities(split(*train), split(*test, "test")) == lines


def folder_of_images(top: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        for label in ("cat", "dog"):
            place = top / name / label
            place.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return top


def test_sound_data_are_loaded_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_dataset("image_folder", data_dir=folder_of_images(tmp_path))
    assert not caplog.records


def test_files_that_are_not_read_and_copies_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = folder_of_images(tmp_path)
    (top / "train/cat/picture.gif").write_bytes(b"GIF89a")
    (top / "test/dog/notes.txt").touch()
    (top / "train/cat/@eaDir").mkdir()  # of a Synology disk
    shutil.copy(top / "train/cat/0.png", top / "test/cat/9.png")
    with caplog.at_level(logging.WARNING):
        load_dataset("image_folder", data_dir=top)
    unread, copy = (record.getMessage() for record in caplog.records)
    assert "2 files are not read, since the name is not that of an image" in unread
    assert "train/cat/picture.gif" in unread
    assert "test/dog/notes.txt" in unread
    assert copy == f"{top}: 1 test image is a training image too, such as cat/9.png and cat/0.png"


def test_a_rotation_that_is_not_done_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = folder_of_images(tmp_path)
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 8)).save(top / "train/cat/turned.jpg", exif=exif)
    load_dataset("image_folder", data_dir=top)
    assert "1 image has a rotation in the EXIF data, which is not done (as in torchvision)" in caplog.text
    assert "train/cat/turned.jpg" in caplog.text


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    top = folder_of_images(tmp_path)
    (top / "train/dog/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DatasetError, match=r"gone.png is a link to .*nowhere.png, which does not exist"):
        load_dataset("image_folder", data_dir=top)
