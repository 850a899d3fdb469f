"""Where a result comes from: command, versions, hardware, git revision.  Never the environment: it holds secrets."""

import functools
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NotRequired, TypedDict

import bat_dist

SOURCE_SUFFIXES = (".py", ".j2")
_DRIVERS: list[str] = []  # the commands for which this process, a worker, has worked; the last is the present one
PACKAGES = ("torch", "torchvision", "ray", "ffcv", "numpy", "zarr")


class ComputedOn(TypedDict):
    """What a process computed on: nothing that names a machine, and of GPUs only where it had one."""

    cpu: str
    threads: int  # of torch, on the CPU
    gpu: NotRequired[str]
    driver: NotRequired[str]
    cuda: NotRequired[str]
    cudnn: NotRequired[str]


class Provenance(TypedDict):
    """What is needed to run the same again; files of results hold these entries beside their own.

    cpu, cpus and system are those of the process that wrote the file, on a cluster the driver's.
    """

    command: str
    bat_dist: str  # the package's version
    git_revision: str | None
    source: str  # see `source_hash`
    python: str
    versions: dict[str, str]
    cpu: str
    cpus: int  # that this process may use
    system: str
    computed_on: NotRequired[Sequence[ComputedOn]]  # all hardware of the workers, see `storage.computed_on`


def provenance(computed_on: Sequence[ComputedOn] = ()) -> Provenance:
    """The provenance of what this process makes of what was computed on that hardware, if that is known."""
    packages = {name: next(iter(metadata.distributions(name=name)), None) for name in PACKAGES}
    found: Provenance = {
        "command": command(),
        "bat_dist": bat_dist.__version__,
        "git_revision": git_revision(),
        "source": source_hash(),
        "python": platform.python_version(),
        "versions": {name: package.version for name, package in packages.items() if package},
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }
    return {**found, "computed_on": computed_on} if computed_on else found


def command() -> str:
    """What was typed, without passwords; in a worker what its driver was called with."""
    return _DRIVERS[-1] if _DRIVERS else without_passwords(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def work_for(driver: str) -> None:
    """Note that this process, a worker, does the work of this command from now on."""
    _DRIVERS.append(driver)


def without_passwords(text: str) -> str:
    """The text with `***` for what stands before the @ of a URI."""
    return re.sub(r"(?<=://)[^/\s@]+@", "***@", text)


@functools.cache
def source_hash() -> str:
    """Twelve hexadecimal digits of a hash over the package's files: equal where the same code runs."""
    package, digest = Path(bat_dist.__file__).parent, hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.suffix in SOURCE_SUFFIXES):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:12]


def git_revision() -> str | None:
    """The revision of the checkout that the package lies in, `+changes` if it was edited; None outside a checkout."""
    folder = Path(bat_dist.__file__).parent
    try:
        revision = _git(folder, "rev-parse", "--short=12", "HEAD")
        return revision + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


@functools.cache
def driver_version() -> str | None:
    """The version of NVIDIA's driver, asked once a process; None where nvidia-smi does not tell it in time."""
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(ask, capture_output=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(rb"[\d.]+", told)  # a line for each GPU
    return found[0].decode() if found else None


@functools.cache
@functools.cache
def cpu_name() -> str:
    """The processor as its maker calls it; empty if nobody knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
