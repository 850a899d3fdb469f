"""Images that are larger than the memory: decoded, read and trained on by processes that may not hold them.

    python benchmarks/images_on_disk.py --data_dir tiny-imagenet-200 [--num_train 25000] [--image_sizes 64 224]

Each phase is a process of its own, which limits itself, when its libraries are loaded, to so much more private memory
(RLIMIT_DATA, which does not count mapped files) as half of the decoded images, or --memory.

    decode    all images into files of an empty cache folder (a temporary one, unless $BAT_DIST_CACHE names one)
    again     a second start: nothing may be decoded
    cold      an epoch of the training set by the loader, after the system was asked to forget the file
    warm      the same once more
    steps     --num_steps training steps of --arch, batch by batch
    arrays    the same load into arrays, which must fail for want of memory: else the limit is none

private: the most beside what the process had before. mapped: pages of files in memory at the end, which the system
drops when memory is wanted. read: from the disk, by /proc/self/io. --json FILE keeps the numbers.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from bat_dist.data.datasets import Dataset, load_dataset, sizes_of
from bat_dist.data.loaders import dataset_loader
from bat_dist.data.mapped_images import file_of
from bat_dist.models.build import build
from bat_dist.wording import bytes_of, of_bytes

PHASES = ("decode", "again", "cold", "warm", "steps", "arrays")
NO_MEMORY = 3  # the exit code of a phase that got no memory
LEAST = 300 * 10**6  # bytes: what a loader and a small network need beside any images


class Watch:
    """The most private memory while a block runs, the seconds, and the bytes from the disk."""

    def __enter__(self) -> "Watch":
        self.before = self.peak = _status("RssAnon")
        self._read, self._start, self._ended = _bytes_read(), time.perf_counter(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self.peak = max(self.peak, _status("RssAnon"))

    def __exit__(self, *_error: object) -> None:
        self.seconds, self.read = time.perf_counter() - self._start, _bytes_read() - self._read
        self._ended.set()
        self._thread.join()

    def numbers(self, images: int) -> dict[str, Any]:
        """What a line of the table says."""
        return {
            "seconds": self.seconds,
            "images_per_second": images / self.seconds,
            "peak_private": self.peak - self.before,
            "mapped": _status("RssFile"),
            "read": self.read,
        }


def main() -> None:
    """Run all phases for each size, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--dataset", default="tiny_imagenet")
    parser.add_argument("--num_train", type=int, default=25_000)
    parser.add_argument("--num_test", type=int)
    parser.add_argument("--num_classes", type=int)
    parser.add_argument("--image_sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--arch", default="tinynet")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_steps", type=int, default=20)
    parser.add_argument("--memory", help="such as 1GB; default: half of the decoded images, 300 MB at least")
    parser.add_argument("--json")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.phase:
        print(json.dumps(_phase(asked, asked.image_sizes[0])))
        return
    found = {size: _all_phases(asked, size) for size in asked.image_sizes}
    if asked.json:
        Path(asked.json).write_text(json.dumps(found, indent=1))
    if any(numbers["decode"] is None or numbers["arrays"] is not None for numbers in found.values()):
        raise SystemExit("a phase ended as it must not")


def _all_phases(asked: argparse.Namespace, size: int) -> dict[str, Any]:
    spec, num_train, num_test = sizes_of(asked.dataset, **_data(asked, size))
    num_bytes = (num_train + num_test) * 3 * size * size
    room = bytes_of(asked.memory) if asked.memory else max(LEAST, num_bytes // 2)
    print(
        f"\n{num_train + num_test:,} images of {size} pixels: {of_bytes(num_bytes)}; private memory: {of_bytes(room)}"
    )
    print(f"{'':8}{'seconds':>9}{'images/s':>10}{'private':>10}{'mapped':>10}{'read':>10}")
    found: dict[str, Any] = {"bytes": num_bytes, "room": room, "classes": spec.num_classes}
    with tempfile.TemporaryDirectory() as cache:
        for phase in PHASES:
            if phase == "arrays" and num_bytes <= room:
                print("arrays   would fit: give more images, larger ones, or less --memory")
                found[phase] = None
                continue
            again = [sys.executable, __file__, *sys.argv[1:], "--phase", phase, "--memory", f"{room}B"]
            done = subprocess.run(
                [*again, "--image_sizes", str(size)],
                env={**os.environ, "BAT_DIST_CACHE": os.environ.get("BAT_DIST_CACHE", cache)},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode not in (0, NO_MEMORY):
                raise SystemExit(f"{phase} failed")
            found[phase] = json.loads(done.stdout) if done.returncode == 0 else None
            print(_line(phase, found[phase]), flush=True)
    return found


def _line(phase: str, numbers: dict[str, Any] | None) -> str:
    if numbers is None:
        return f"{phase:8}   not enough memory"
    sizes = "".join(f"{of_bytes(numbers[name]):>10}" for name in ("peak_private", "mapped", "read"))
    return f"{phase:8}{numbers['seconds']:9.1f}{numbers['images_per_second']:10,.0f}{sizes}"


def _phase(asked: argparse.Namespace, size: int) -> dict[str, Any]:
    limit = _status("VmData") + bytes_of(asked.memory)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    storage = "memory" if asked.phase == "arrays" else "disk"
    try:
        with Watch() as watch:
            dataset = load_dataset(asked.dataset, **_data(asked, size), image_storage=storage)
        number = len(dataset.train) + len(dataset.test)
        if asked.phase in ("cold", "warm", "steps"):
            if asked.phase == "cold":
                _forget(dataset)
            with Watch() as watch:
                number = _steps(dataset, asked) if asked.phase == "steps" else _epoch(dataset, asked.batch_size)
    except (MemoryError, RuntimeError) as error:  # torch's is a RuntimeError
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        sys.exit(NO_MEMORY)
    return watch.numbers(number)


def _epoch(dataset: Dataset, batch_size: int) -> int:
    loader = dataset_loader("auto", dataset, "train")
    generator = torch.Generator().manual_seed(0)
    return sum(
        len(b.labels) for b in loader.train_epoch(range(len(dataset.train)), batch_size=batch_size, generator=generator)
    )


def _steps(dataset: Dataset, asked: argparse.Namespace) -> int:
    """Train on the first batches of an epoch; the number of images."""
    spec = dataset.spec
    network = build(asked.arch, len(dataset.class_names), mean=spec.mean, std=spec.std)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    order = torch.randperm(len(dataset.train))[: asked.num_steps * asked.batch_size]
    generator = torch.Generator().manual_seed(0)
    for images, labels, _ in dataset_loader("auto", dataset, "train").train_epoch(
        order, batch_size=asked.batch_size, generator=generator
    ):
        loss = cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(order)


def _data(asked: argparse.Namespace, size: int) -> dict[str, Any]:
    names = ("data_dir", "num_train", "num_test", "num_classes")
    return {name: getattr(asked, name) for name in names} | {"image_size": size}


def _forget(dataset: Dataset) -> None:
    """Ask the system to drop the pages of the files, which are on the disk."""
    for split in (dataset.train, dataset.test):
        if file := file_of(split.images):
            with file.path.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _status(name: str) -> int:
    """Bytes, of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().partition("\nread_bytes: ")[2].split()[0])


if __name__ == "__main__":
    main()
