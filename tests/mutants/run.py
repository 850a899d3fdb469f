"""Has the test suite teeth?  Plants each fault of `faults.yaml` in a copy of the tree; its tests must go red.

    make mutants                                  all faults, one after the other
    make mutants MUTANTS="--room pool"            those of a room (--list shows all)
    make mutants MUTANTS="--only lease-shared"    some

A fault is found if its tests fail; one that survives, or cannot be planted or run, makes the exit code 1.
"""

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).with_name("faults.yaml")
SECONDS = 600  # for the tests of one fault, which take two minutes at most on a quiet machine
BASELINE_SECONDS = 3600
FAILED = 1  # pytest's exit code; from 2 on it could not run them, and 5 is no test at all


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One planted fault.  old: occurs once in the file.  tests: files or node ids that must go red."""

    id: str
    room: str
    broken: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    cluster: bool = False  # seen on several hosts alone

    def planted(self, text: str) -> str:
        """The file's text with the fault.  Raises ValueError unless the old text is there once."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"the old text is {count} times in {self.file}")
        return text.replace(self.old, self.new)


class Verdict(NamedTuple):
    """What became of a fault.  red: found.  green: it survived.  error: nothing is known.  why: not of green ones."""

    fault: Fault
    colour: Literal["red", "green", "error"]
    seconds: float
    why: str = ""

    def __str__(self) -> str:
        return f"{self.colour:<6}{self.seconds:7.1f} s  {self.fault.room:<14}{self.fault.id:<33}{self.why}".rstrip()


def read_faults() -> list[Fault]:
    """The list.  Raises TypeError for an entry with other keys than a `Fault`'s."""
    return [Fault(**{**entry, "tests": tuple(entry["tests"])}) for entry in yaml.safe_load(FAULTS.read_text())]


def copy_tree(place: Path) -> Path:
    """What git tracks or would, as it is now, below `place`; beside it what lies in ../shared."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    tree = place / "tree"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # else removed, but not yet from git
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)  # the laptop of the drills takes what git would
    if (shared := ROOT.parent / "shared").exists():
        (place / "shared").symlink_to(shared)
    return tree


def run_tests(tree: Path, tests: Sequence[str], *options: str, seconds: float) -> tuple[int | None, str]:
    """Pytest's exit code, None if time was up, and what it said.

    PYTHONPATH comes before an editable install, in programs and workers that the tests start too. Nothing is compiled
    into files: a fault that is as long as what it replaces must not meet yesterday's bytecode.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options, *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        code: int | None = None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:  # time is up, or we are interrupted
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        return code, said.read()


@contextmanager
def planted(tree: Path, fault: Fault) -> Iterator[None]:
    """The fault is in the tree while the block runs.  Raises ValueError if it does not fit."""
    file = tree / fault.file
    sound = file.read_text()
    file.write_text(fault.planted(sound))
    try:
        yield
    finally:
        file.write_text(sound)


def judge(tree: Path, fault: Fault) -> Verdict:
    """Plant one fault and run its tests."""
    start = time.monotonic()
    try:
        with planted(tree, fault):
            code, said = run_tests(tree, fault.tests, "-x", seconds=SECONDS)
    except (ValueError, OSError) as error:
        return Verdict(fault, "error", 0.0, str(error))
    seconds = time.monotonic() - start
    if code == 0:
        return Verdict(fault, "green", seconds)
    if code == FAILED:
        return Verdict(fault, "red", seconds, _failure(said))
    why = f"not at an end after {SECONDS} s" if code is None else f"pytest ended with {code}: {_last_line(said)}"
    return Verdict(fault, "error", seconds, why)


def _failure(said: str) -> str:
    """The first test that failed, and how, of pytest's summary."""
    found = re.search(r"^(?:FAILED|ERROR) .*::(.*)$", said, flags=re.MULTILINE)
    return found[1][:140] if found else _last_line(said)


def _last_line(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")


def is_sound(tree: Path, faults: Sequence[Fault]) -> bool:
    """Are all named tests green without a fault?  Says what is not, and which tests were left out."""
    start = time.monotonic()
    tests = list(dict.fromkeys(test for fault in faults for test in fault.tests))
    code, said = run_tests(tree, tests, seconds=BASELINE_SECONDS)
    for line in re.findall(r"^SKIPPED .*$", said, flags=re.MULTILINE):
        print(f"left out here: {line}", flush=True)
    print(f"without a fault, {time.monotonic() - start:.0f} s: {_last_line(said)}", flush=True)
    if code != 0:
        print(said, file=sys.stderr)
        print("the tests must be green before a fault is planted", file=sys.stderr)
    return code == 0


def judge_all(trees: Sequence[Path], faults: Sequence[Fault]) -> list[Verdict]:
    """As many at a time as there are trees; a line for each as it comes."""
    free: queue.Queue[Path] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def one(fault: Fault) -> Verdict:
        tree = free.get()
        try:
            verdict = judge(tree, fault)
        finally:
            free.put(tree)
        print(verdict, flush=True)
        return verdict

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(one, faults))


def chosen(faults: Sequence[Fault], asked: argparse.Namespace) -> list[Fault]:
    """Those that the options ask for; one that is named is taken without --cluster too."""
    known, rooms = {fault.id for fault in faults}, {fault.room for fault in faults}
    if strange := [name for name in asked.only if name not in known]:
        raise SystemExit(f"there is no fault {', '.join(strange)}; --list shows all")
    if asked.room and asked.room not in rooms:
        raise SystemExit(f"there is no room {asked.room}; there are {', '.join(sorted(rooms))}")
    found = [fault for fault in faults if fault.id in asked.only or not asked.only]
    found = [fault for fault in found if asked.room in (None, fault.room)]
    return [fault for fault in found if asked.cluster or asked.only or not fault.cluster]


def main() -> int:
    """Plant all faults that are asked for; 0 if every one was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="these faults")
    parser.add_argument("--room", help="those of one room")
    parser.add_argument("--list", action="store_true", help="name the faults and what they break, and end")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at a time, each in its own copy")
    parser.add_argument("--cluster", action="store_true", help="also those that need several hosts (root)")
    asked = parser.parse_args()
    faults = chosen(read_faults(), asked)
    if asked.list:
        for fault in faults:
            print(f"{fault.room:<14}{fault.id:<33}{fault.broken}")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trees = [copy_tree(Path(scratch) / str(number)) for number in range(max(1, asked.jobs))]
        if not is_sound(trees[0], faults):
            return 1
        start = time.monotonic()
        verdicts = judge_all(trees, faults)
    bad = [verdict for verdict in verdicts if verdict.colour != "red"]
    names = ", ".join(f"{verdict.fault.id} ({verdict.colour})" for verdict in bad) or "none"
    print(f"{len(verdicts)} planted, {len(verdicts) - len(bad)} found, survivors: {names}", end="; ")
    print(f"{time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
