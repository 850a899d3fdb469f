"""Every bad input gives one DatasetError that says what is wrong and where."""

import re
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bat_dist.data import archive
from bat_dist.data.datasets import load_dataset
from bat_dist.data.table import DatasetError
from tests.data.image_trees import image_tree, noise, png, tiny_tree, write_folder, write_zip


def refused(name: str, data_dir: Path | None, *, match: str, **settings) -> None:
    with pytest.raises(DatasetError, match=match) as caught:
        load_dataset(name, data_dir=data_dir, **settings)
    assert "\n" not in str(caught.value)


def without(tree: dict[str, bytes], pattern: str) -> dict[str, bytes]:
    return {name: data for name, data in tree.items() if not re.search(pattern, name)}


# --- where the data is


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        (image_tree(), "test is the test split: leave test_share out"),
        (image_tree(top="a/", test_name="val"), "a/val is the test split: leave test_share out"),
        ({"ant/0.png": b"", "bee/0.png": b"", "bee/1.png": b""}, "class 'ant' has 1 image, and test_share needs two"),
        (
            {"train/ant/0.png": b"", "other/0.png": b""},
            r"expected \[top/\]\[train/\]<class>/<image>.*found other/, train/",
        ),
    ],
)
def test_a_share_that_cannot_be_taken(tree, match, tmp_path):
    refused("image_folder", write_folder(tree, tmp_path), match=match, test_share=0.5)


@pytest.mark.parametrize("name", ["image_folder", "tiny_imagenet"])
def test_data_dir_is_needed(name, tmp_path):
    refused(name, None, match=f"{name} needs data_dir: the folder or the zip of")
    refused(name, tmp_path / "nowhere", match="data_dir .*/nowhere does not exist: give")
    refused(name, tmp_path, match="expected .*; found no folder train, but nothing")
    refused(name, tmp_path, download=True, match="cannot be downloaded")


def test_several_zips_are_not_guessed_at(tmp_path):
    write_zip(image_tree(), tmp_path / "a.zip")
    write_zip(image_tree(), tmp_path / "b.zip")
    refused("image_folder", tmp_path, match=r"several zips \(a.zip, b.zip\): give the one")


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"not a zip at all")
    refused("image_folder", tmp_path / "data.zip", match="data.zip is neither a folder nor a whole zip")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_zip(tmp_path, kept):
    whole = write_zip(image_tree(), tmp_path / "whole.zip").read_bytes()
    (tmp_path / "part.zip").write_bytes(whole[: int(kept * len(whole))])
    refused("image_folder", tmp_path / "part.zip", match="part.zip is neither a folder nor a whole zip")


def test_a_damaged_zip_entry_is_named(tmp_path):
    tree = image_tree()
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as handle:  # stored, so that its bytes are found
        for name, data in tree.items():
            handle.writestr(name, data)
    data = bytearray(path.read_bytes())
    data[data.index(tree["train/bee/2.png"]) + 40] ^= 255
    path.write_bytes(data)
    refused("image_folder", path, match="train/bee/2.png in .*bad.zip cannot be read .*CRC")


# --- zip entries that are refused


@pytest.mark.parametrize(
    "name",
    [
        "../x.png",
        "train/../../x.png",
        "/etc/x.png",
        "C:/x.png",
        "train\\ant\\9.png",
        "..\\x",
        "a/" * 40 + "x.png",
    ],
)
def test_zip_entries_outside_or_too_deep(tmp_path, name):
    path = write_zip(image_tree() | {name: b""}, tmp_path / "bad.zip")
    refused("image_folder", path, match="entry '.*x.png'|'.*9.png'|'.*x' (is not a relative|lies deeper)")


def test_a_symbolic_link_in_a_zip(tmp_path):
    path = write_zip(image_tree(), tmp_path / "bad.zip")
    link = zipfile.ZipInfo("train/ant/9.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as handle:
        handle.writestr(link, "/etc/passwd")
    refused("image_folder", path, match="entry 'train/ant/9.png' is a symbolic link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["train/ant/0.png", "./train/ant/0.png", "train//ant/0.png"])
def test_duplicate_entries(tmp_path, name):
    path = write_zip(image_tree(), tmp_path / "bad.zip")
    with zipfile.ZipFile(path, "a") as handle:
        handle.writestr(name, png(noise(1)))
    refused("image_folder", path, match=f"entry '{name}' occurs twice")


def test_a_file_that_is_also_a_folder(tmp_path):
    path = write_zip(image_tree() | {"train/ant": b""}, tmp_path / "bad.zip")
    refused("image_folder", path, match="'train/ant' is both a file and a folder")


def test_an_encrypted_zip(tmp_path):
    path = write_zip(image_tree(), tmp_path / "bad.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag, in the directory
    path.write_bytes(data)
    refused("image_folder", path, match="is encrypted")


def test_files_too_large_to_be_images_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1000)
    tree = image_tree() | {"train/ant/1.png": b"0" * 1001}
    refused("image_folder", write_zip(tree, tmp_path / "a.zip"), match="ant/1.png in .* has 1,001 bytes; at most")
    refused("image_folder", write_folder(tree, tmp_path / "a"), match="ant/1.png has 1,001 bytes; at most 1,000")


# --- images


def broken_images() -> dict[str, bytes]:
    photo = png(noise(1, 32, 32), "JPEG")
    drawing = png(noise(1, 32, 32))
    return {
        "truncated.jpg": photo[: len(photo) // 2],
        "truncated.png": drawing[: len(drawing) // 2],
        "empty.png": b"",
        "text.jpg": b"<html>404 not found</html>",
        "header.png": drawing[:20],
    }


@pytest.mark.parametrize("file", broken_images())
def test_a_broken_image_is_named(tmp_path, file):
    tree = image_tree() | {f"test/cat/{file}": broken_images()[file]}
    message = f"test/cat/{file} in .* (cannot be decoded|is not an image)"
    refused("image_folder", write_folder(tree, tmp_path / "a"), match=message)
    refused("image_folder", write_zip(tree, tmp_path / "a.zip"), match=message)


@pytest.mark.parametrize(
    "data",
    [png(noise(1), "GIF"), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n"],
    ids=["gif", "postscript"],
)
def test_formats_behind_another_suffix_are_not_opened(tmp_path, data):
    """PostScript would be run by another program."""
    folder = write_folder(image_tree() | {"train/ant/0.png": data}, tmp_path)
    refused("image_folder", folder, match=r"train/ant/0.png in .* is not an image, or of a format other than JPEG")


def test_the_first_broken_image_in_order_is_named(tmp_path):
    tree = image_tree(train=300) | {f"train/{c}/299.png": b"broken" for c in ("ant", "bee", "cat")}
    refused("image_folder", write_zip(tree, tmp_path / "a.zip"), match="train/ant/299.png in")


def test_sixteen_bit_images_are_refused_not_clipped(tmp_path):
    deep = png(Image.fromarray(np.full((4, 4), 40000, np.uint16)))
    tree = image_tree() | {"train/ant/0.png": deep}
    refused("image_folder", write_folder(tree, tmp_path), match="train/ant/0.png in .* mode I;16, not 8 bit")


@pytest.mark.parametrize("limit", [200, 100])  # Pillow raises above twice its limit and warns above the limit
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    tree = image_tree() | {"train/ant/3.png": png(np.zeros((21, 20, 3), np.uint8))}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    refused("image_folder", write_folder(tree, tmp_path), match="train/ant/3.png in .*decompression bomb")


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("train/bee/1.png", "train/ant/0.png is 4x4", "train/bee/1.png is 7x5"),
        ("test/bee/1.png", "test/ant/0.png is 4x4", "test/bee/1.png is 7x5"),
    ],
)
def test_different_sizes_name_both_files_and_the_way_out(tmp_path, name, first, second):
    folder = write_folder(image_tree() | {name: png(noise(1, width=7, height=5))}, tmp_path)
    refused("image_folder", folder, match=f"{first}, {second}.*give image_size")


def test_different_sizes_of_the_two_splits(tmp_path):
    tree = {n: png(noise(1, 4 + n.startswith("test"), 4 + n.startswith("test"))) for n in image_tree()}
    folder = write_folder(tree, tmp_path)
    refused("image_folder", folder, match="train/ant/0.png is 4x4, test/ant/0.png is 5x5.*give image_size")
    assert load_dataset("image_folder", data_dir=folder, image_size=4).test.images.shape == (6, 4, 4, 3)


def test_images_must_be_square(tmp_path):
    folder = write_folder({name: png(noise(1, 6, 4)) for name in image_tree()}, tmp_path)
    refused("image_folder", folder, match="train/ant/0.png is 6x4, not square: give image_size")


# --- layouts


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (without(image_tree(), "^test"), "expected .*; found neither test nor val, but train/"),
        (without(image_tree(top="a/b/"), "^$"), "found no folder train, but a/"),
        (image_tree(top="a/") | image_tree(top="b/"), "a folder train in several places: a/, b/"),
        (without(image_tree(), "test/cat"), "class 'cat' has no image in the test split"),
        (without(image_tree(), "train/cat"), "class 'cat' is in test but not in train"),
        (
            without(image_tree(), "/cat/") | {"train/cat/a.txt": b"", "test/cat/a.txt": b""},
            "class 'cat' has no",
        ),
        (image_tree() | {"train/ant/deep/0.png": b""}, r"found the folder train/ant/deep/ within a class"),
        (image_tree() | {"train/0.png": b""}, "found train/0.png outside a class"),
        (without(image_tree(), "bee|cat"), "at least 2 classes are needed, got 1"),
        (tiny_tree(), "within a class .*tiny_imagenet"),
    ],
)
def test_wrong_image_folders(tmp_path, tree, message):
    refused("image_folder", write_folder(tree, tmp_path / "folder"), match=message)
    refused("image_folder", write_zip(tree, tmp_path / "a.zip"), match=message)


def test_an_empty_class_folder(tmp_path):
    folder = write_folder(image_tree(), tmp_path / "a")
    (folder / "train" / "dog").mkdir()
    refused("image_folder", folder, match="class 'dog' has no image in the train split")
    refused(
        "image_folder",
        write_zip(image_tree() | {"train/dog/": b""}, tmp_path / "a.zip"),
        match="'dog' has no",
    )


def test_classes_left_out_need_no_images(tmp_path):
    folder = write_folder(without(image_tree(), "test/cat"), tmp_path)
    assert load_dataset("image_folder", data_dir=folder, num_classes=2).class_names == ("ant", "bee")


TINY = tiny_tree(top="")
ANNOTATIONS = TINY["val/val_annotations.txt"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (image_tree(), "expected Tiny ImageNet's official layout .*; found no wnids.txt, but test/, train/"),
        (without(TINY, "words"), "found no words.txt"),
        (without(TINY, "val_annotations"), "found no val/val_annotations.txt, but images/"),
        (without(TINY, "^train"), "found no folder train, but val/, wnids.txt"),
        (without(TINY, "train/n02"), "class 'newt' has no image in the train split"),
        (TINY | {"train/n77/images/0.JPEG": b""}, "train/n77/ is no class of wnids.txt"),
        (TINY | {"wnids.txt": b"n01 n02 n03 n01"}, "wnids.txt names n01 twice"),
        (TINY | {"wnids.txt": b"n01 n02 n03 ../val"}, "at most 4, .*50 is the default"),
        (TINY | {"wnids.txt": b"\xff\xfe"}, "wnids.txt is not text"),
        (
            TINY | {"words.txt": b"n01\tfish\nn02 newt\n"},
            "words.txt, line 2: expected columns .* got 'n02 newt'",
        ),
        (
            TINY | {"val/val_annotations.txt": ANNOTATIONS + b"val_0.JPEG\tn01\n"},
            "line 7: val_0.JPEG occurs twice",
        ),
        (
            TINY | {"val/val_annotations.txt": ANNOTATIONS + b"val_9.JPEG\tn01\n"},
            "images/val_9.JPEG does not exist",
        ),
        (TINY | {"val/val_annotations.txt": ANNOTATIONS + b"../x.JPEG\tn01\n"}, "does not exist"),
        (
            TINY | {"val/val_annotations.txt": ANNOTATIONS + b"val_9.JPEG\tn99\n"},
            "class n99 is not in wnids.txt",
        ),
        (TINY | {"val/images/val_6.JPEG": b""}, "val/images/val_6.JPEG has no line in"),
        (without(TINY, "val/images/val_3"), "val/images/val_3.JPEG does not exist"),
    ],
)
def test_wrong_tiny_imagenets(tmp_path, tree, message):
    settings = {} if "default" in message else {"num_classes": 3}
    refused("tiny_imagenet", write_folder(tree, tmp_path / "folder"), match=message, **settings)
    refused("tiny_imagenet", write_zip(tree, tmp_path / "a.zip"), match=message, **settings)
