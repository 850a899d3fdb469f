"""Small image datasets: a tree is a dict of file names and bytes, to be written as a folder or a zip."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")
WNIDS = ("n03", "n01", "n02")  # the order of wnids.txt, which is not sorted


def noise(seed: int, width: int = 4, height: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray | Image.Image, file_format: str = "PNG") -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def image_tree(train: int = 4, test: int = 2, top: str = "", test_name: str = "test") -> dict[str, bytes]:
    """Image number i of a class is named i.png; its pixels are those of `seed_of`."""
    return {
        f"{top}{split}/{class_name}/{i}.png": png(noise(seed_of(split, class_name, i)))
        for split, count in (("train", train), (test_name, test))
        for class_name in CLASSES
        for i in range(count)
    }


def seed_of(split: str, class_name: str, i: int) -> int:
    return 1000 * (split == "train") + 100 * CLASSES.index(class_name) + i


def tiny_tree(train: int = 3, val: int = 2, top: str = "tiny-imagenet-200/") -> dict[str, bytes]:
    """Tiny ImageNet's layout; val images go round the classes, so their order is not that of the classes."""
    annotated = [(f"val_{i}.JPEG", WNIDS[i % 3]) for i in range(3 * val)]
    tree = {
        "wnids.txt": "\n".join(WNIDS).encode(),
        "words.txt": b"n01\tfish, a swimmer\nn02\tnewt\nn03\tfrog\nn99\tnot here\n",
        "val/val_annotations.txt": "".join(f"{f}\t{w}\t0\t1\t2\t3\n" for f, w in annotated).encode(),
    }
    for wnid in WNIDS:
        tree[f"train/{wnid}/{wnid}_boxes.txt"] = b"ignored"
        for i in range(train):
            tree[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = png(noise(10 * int(wnid[1:]) + i), "JPEG")
    for i, (file, _) in enumerate(annotated):
        tree[f"val/images/{file}"] = png(noise(500 + i), "JPEG")
    return {top + name: data for name, data in tree.items()}


def write_folder(tree: dict[str, bytes], path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in tree.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_zip(tree: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as handle:
        for name, data in reversed(tree.items()):  # the order within a zip must not matter
            handle.writestr(name, data)
    return path
