"""Result folders from a cluster to this machine: Ray's own rsync for the head's disk, fsspec for URIs."""

import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bat_dist.errors import RunError, UserError
from bat_dist.settings.collect import CollectSettings
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import without_passwords
from bat_dist.wording import counted

log = logging.getLogger(__name__)

LAUNCHER_CONFIG = "~/ray_bootstrap_config.yaml"  # where `ray up` puts the cluster's file on the head
RUNS = ".bat-dist/runs.jsonl"  # in the home of the head's user
# Never wanted, and what is fetched only if asked.
SCRAP = ("*.partial", ".driver.lock", ".ray-*", ".visible-*")
CHECKPOINTS = ("*.safetensors", "*.pt", "*.onnx")
_SOURCE = ".fetched-from"  # in each fetched folder, where it comes from
_PLAIN = re.compile(r"[A-Za-z0-9_./~@+=,:-]+")  # of a path on the head: a shell there reads it


@dataclass(frozen=True)
class Fetched:
    """One result folder that is here now."""

    run: str
    place: Path
    files: int
    size: int  # bytes

    def __str__(self) -> str:
        return f"{self.run} -> {self.place}: {counted(self.files, 'file')}, {self.size / 2**20:.1f} MiB"


def remember_run(folder: Folder) -> None:
    """Note on this machine, the head, where a program writes its results, for `collect` to find.

    A note that cannot be made is only warned about: the program's own work does not need it.
    """
    place = folder.absolute_location
    if without_passwords(place) != place:
        return
    try:
        notes = Path.home() / RUNS
        text = notes.read_text(errors="replace") if notes.exists() else ""
        if place in _places(text):
            return
        notes.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"out": place, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}) + "\n"
        with notes.open("a") as file:
            file.write(line if not text or text.endswith("\n") else f"\n{line}")  # after a line that was cut
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        log.warning("%s is not noted in ~/%s (%s): `bat-dist collect` finds it by --runs only", place, RUNS, error)


def _places(notes: str) -> list[str]:
    """The result folders that were noted.  Lines that are none, as one that a full disk has cut, are left out."""
    places = []
    for line in notes.splitlines():
        with suppress(ValueError, TypeError, KeyError):
            places.append(json.loads(line)["out"])
    return [place for place in places if isinstance(place, str)]


def remember_on_head(folder: Folder) -> None:
    """As `remember_run`, for programs without Ray; nothing happens on a machine that is no cluster's head."""
    with suppress(OSError, RuntimeError):  # a home that cannot be read, or none: that is no head's
        if Path(LAUNCHER_CONFIG).expanduser().exists():
            remember_run(folder)


def collect(settings: CollectSettings) -> Iterator[Fetched]:
    """Fetch each run into a folder of its own below `out`.

    Raises UserError for a cluster file or a path that cannot be right, or a folder that was fetched from elsewhere,
    RunError if the head does not give.
    """
    cluster = _cluster_file(settings.cluster)
    out = Path(settings.out)
    if out.is_file():
        raise UserError(f"{out} is a file, and a folder is wanted: name another --out")
    name, address = cluster.get("cluster_name", "?"), cluster["provider"].get("head_ip")
    head = f"{name} ({address})" if address else name
    with tempfile.TemporaryDirectory() as scratch:
        runs = settings.runs or _remembered(cluster, Path(scratch))
        if strange := [run for run in runs if not _PLAIN.fullmatch(run)]:
            raise UserError(
                f"runs: {strange[0]!r} has characters that a shell on the head would read; letters, digits and ./_-~ go"
            )
        for run, name in zip(runs, local_names(runs), strict=True):
            place = out / name
            _claim(place, run if "://" in run else f"{run} on {head}")
            unwanted = SCRAP if settings.checkpoints else (*SCRAP, *CHECKPOINTS)
            if "://" in run:
                _copy(Folder(run), place, unwanted)
            else:
                _rsync(_with_excludes(cluster, unwanted, Path(scratch)), f"{run.rstrip('/')}/", f"{place}/")
            files = [path for path in place.rglob("*") if path.is_file() and path.name != _SOURCE]
            if not files:
                raise UserError(f"{run} on the head is empty, or not there: name result folders with --runs")
            yield Fetched(run, place, len(files), sum(path.stat().st_size for path in files))


def local_names(runs: Sequence[str]) -> list[str]:
    """A folder name for each run: its last part where that tells them apart, else its whole path."""
    last = [run.rstrip("/").rpartition("/")[2] for run in runs]
    if bad := [run for run, name in zip(runs, last, strict=True) if name.strip(".~") == ""]:
        raise UserError(f"{bad[0]!r} has no name of its own: give the path of a result folder")
    whole = [re.sub(r"[/:~]+", "_", run).strip("_") for run in runs]
    return [name if last.count(name) == 1 else full for name, full in zip(last, whole, strict=True)]


def _claim(place: Path, source: str) -> None:
    """Make the folder for what comes from there.  Raises UserError if it holds what came from elsewhere."""
    note = place / _SOURCE
    if note.exists() and (before := note.read_text().strip()) != source:
        raise UserError(
            f"{place} holds what was fetched from {before}, which {source} would mix with: use another --out"
        )
    place.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{source}\n")


def _cluster_file(name: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(name).read_bytes())
    except OSError as error:
        raise UserError(f"cluster {name}: {error.strerror}: give the file that `ray up` was given") from None
    except yaml.YAMLError as error:
        raise UserError(f"cluster {name} is not plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise UserError(
            f"cluster {name} is no cluster file (it has no provider): give the file that `ray up` was given"
        )
    return content


def _remembered(cluster: dict[str, Any], scratch: Path) -> list[str]:
    target = scratch / "runs.jsonl"
    try:
        _rsync(_with_excludes(cluster, (), scratch), f"~/{RUNS}", str(target))
        return _places(target.read_text(errors="replace"))
    except (RunError, OSError) as error:
        raise RunError(
            f"the head does not say which programs ran on it ({error}): is it up? If it is a new machine, name the "
            "result folders with --runs"
        ) from None


def _with_excludes(cluster: dict[str, Any], patterns: Sequence[str], scratch: Path) -> Path:
    """The cluster file with other words about what is not copied, and without what only `ray up` needs."""
    changed = {key: value for key, value in cluster.items() if key not in ("file_mounts", "rsync_filter")}
    path = scratch / "cluster.yaml"
    path.write_text(yaml.safe_dump(changed | {"rsync_exclude": list(patterns)}))
    return path


def _rsync(cluster: Path, source: str, target: str) -> None:
    """`ray rsync-down`, without a shell on this side."""
    words = [sys.executable, "-m", "ray.scripts.scripts", "rsync-down", str(cluster), source, target]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        told = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        why = next((line for line in told if line.startswith(("rsync:", "ssh:", "Error"))), told[-1] if told else "")
        raise RunError(f"cannot fetch {source} from the head: {why.strip()}")


def _copy(folder: Folder, place: Path, unwanted: Sequence[str]) -> None:
    for path in folder.fs.find(folder.root):
        name = str(path).removeprefix(folder.root).lstrip("/")
        parts = Path(name).parts
        if ".." in parts:
            raise UserError(f"{folder} holds a name that leads out of its folder, {name!r}: nobody of ours wrote that")
        if not any(Path(name).match(pattern) or Path(parts[0]).match(pattern) for pattern in unwanted):
            Folder(place).write(name, folder.read(name))
