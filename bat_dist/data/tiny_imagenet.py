"""Tiny ImageNet in its official layout, a folder or a zip, with or without the top `tiny-imagenet-200/`."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bat_dist.data.archive import Archive, open_archive
from bat_dist.data.images import only_images, warn_of_unread
from bat_dist.data.layout import describe, find_root, locate
from bat_dist.data.source import Samples, Source, file_samples
from bat_dist.data.table import DatasetError

LAYOUT = (
    "Tiny ImageNet's official layout (wnids.txt, words.txt, train/<wnid>/images/*.JPEG, "
    "val/val_annotations.txt, val/images/*.JPEG)"
)
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ClassOrder = Literal["sorted", "wnids"]


@contextmanager
def open_tiny_imagenet(data_dir: str | Path | None, class_order: ClassOrder) -> Iterator[Source]:
    """Open Tiny ImageNet. The test split is its `val`, since the labels of its `test` were never published.

    Classes are the wnids, sorted or in the order of wnids.txt; their names are those of words.txt. Train
    samples are sorted by (class, file name), test samples are in the order of val_annotations.txt, also where `val`
    has been sorted into folders of classes. Ids are `<wnid>/images/<file>` in train, in test the name below `val`.
    """
    source = f"Tiny ImageNet, from {URL}"
    with open_archive(locate(data_dir, "tiny_imagenet", "tiny-imagenet*.zip", source)) as archive:
        root = find_root(archive, LAYOUT)
        wnids = _wnids(archive, root, class_order)
        words = dict(line for _, line in _rows(archive, f"{root}words.txt"))
        names = tuple(words.get(wnid, wnid) for wnid in wnids)
        unread: list[str] = []
        train, labels = [], []
        for label, wnid in enumerate(wnids):  # load_dataset says so if a class that is asked for has no folder
            images = f"{root}train/{wnid}/images"
            files = only_images(archive.children(images).files, images, unread)
            train += [f"{wnid}/images/{file}" for file in files]
            labels += [label] * len(files)
        test = _val(archive, f"{root}val/", wnids, unread)
        warn_of_unread(archive.location, unread)
        yield Source(str(archive.location), file_samples(archive, f"{root}train/", train, labels), test, names)


def _wnids(archive: Archive, root: str, class_order: ClassOrder) -> list[str]:
    wnids = _text(archive, f"{root}wnids.txt").split()
    for wnid, count in Counter(wnids).items():
        if count > 1:
            raise DatasetError(f"{archive.location}: {root}wnids.txt names {wnid} twice")
    for folder in archive.children(f"{root}train").folders:
        if folder not in set(wnids):
            raise DatasetError(f"{archive.location}: {root}train/{folder}/ is no class of {root}wnids.txt")
    return sorted(wnids) if class_order == "sorted" else wnids


def _val(archive: Archive, folder: str, wnids: list[str], unread: list[str]) -> Samples:
    """Read `val` as it is published, or sorted into folders of classes, as many scripts leave it.

    Sorted, that is `val/<wnid>/<file>` or `val/<wnid>/images/<file>`. The order is that of val_annotations.txt, which
    the numbers in the file names tell: val_0, val_1, ...
    """
    classes = [name for name in archive.children(folder.rstrip("/")).folders if name != "images"]
    if not classes:
        return _published_val(archive, folder, wnids, unread)
    if archive.children(f"{folder}images").files:
        raise DatasetError(
            f"{archive.location}: {folder} holds images in images/ and in folders of classes ({classes[0]}/ ...): "
            "finish the sorting, or unpack it again"
        )
    found: list[tuple[int, str, int]] = []
    for wnid in classes:
        if wnid not in wnids:
            raise DatasetError(f"{archive.location}: {folder}{wnid}/ is no class of wnids.txt, so train has none of it")
        for inside in (wnid, f"{wnid}/images"):
            for file in only_images(archive.children(f"{folder}{inside}").files, f"{folder}{inside}", unread):
                number = re.search(r"\d+", file)
                found.append((int(number[0]) if number else 0, f"{inside}/{file}", wnids.index(wnid)))
    found.sort()
    return file_samples(archive, folder, [name for _, name, _ in found], [label for *_, label in found])


def _published_val(archive: Archive, folder: str, wnids: list[str], unread: list[str]) -> Samples:
    """Read `val` as it is published; annotations and images must cover each other exactly."""
    annotations = f"{folder}val_annotations.txt"
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    present = set(only_images(archive.children(f"{folder}images").files, f"{folder}images", unread))
    labels: dict[str, int] = {}
    for number, (file, wnid) in _rows(archive, annotations):
        where = f"{archive.location}: {annotations}, line {number}"
        if file in labels:
            raise DatasetError(f"{where}: {file} occurs twice")
        if wnid not in label_of:
            raise DatasetError(f"{where}: class {wnid} is not in wnids.txt, so train has none of it")
        if file not in present:
            raise DatasetError(f"{where}: {folder}images/{file} does not exist")
        labels[file] = label_of[wnid]
    for file in sorted(present - labels.keys()):
        raise DatasetError(f"{archive.location}: {folder}images/{file} has no line in {annotations}")
    return file_samples(archive, folder, [f"images/{file}" for file in labels], list(labels.values()))


def _rows(archive: Archive, name: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """Line number and the first two columns of a file of tab-separated lines."""
    for number, line in enumerate(_text(archive, name).split("\n"), start=1):
        columns = [column.strip() for column in line.split("\t")]
        if not line.strip():
            continue
        if len(columns) < 2:
            raise DatasetError(
                f"{archive.location}: {name}, line {number}: expected columns separated by tabs, got {line!r}"
            )
        yield number, (columns[0], columns[1])


def _text(archive: Archive, name: str) -> str:
    folder, _, file = name.rpartition("/")
    inside = archive.children(folder)
    if file not in inside.files:
        raise DatasetError(
            f"{archive.location}: expected {LAYOUT}; found no {name}, but {describe(inside)} in its place"
        )
    try:
        return archive.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{archive.location}: {name} is not text in UTF-8") from error
