"""Where the tests' time goes: which were the slowest, and what each room took of what it may take.

A room is a folder of `tests/`, or a file that lies in `tests/` itself.  `allowed_seconds.yaml` says what each may take.
No test fails because of a clock: whoever adds a test looks at this report, and holds the allowance.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ALLOWED = Path(__file__).parents[1] / "allowed_seconds.yaml"
NUM_SLOWEST = 20
SLOW_SECONDS = 20.0  # a test that takes longer carries the marker `slow`, or `cluster`
SLOW_MARKERS = {"slow", "cluster"}


def room_of(nodeid: str) -> str:
    """The room of a test: `attacks` of tests/attacks/test_pgd.py, `test_train` of tests/test_train.py."""
    parts = Path(nodeid.partition("::")[0]).parts
    return parts[1].removesuffix(".py") if parts[0] == "tests" else parts[0].removesuffix(".py")


def allowed_seconds() -> dict[str, float]:
    """Seconds of one core that each room may take on a machine without AVX-512."""
    return yaml.safe_load(ALLOWED.read_text())


def seconds_by_test(reports: Iterable[pytest.TestReport]) -> dict[str, float]:
    """Seconds of each test, its fixtures counted where they were first needed."""
    seconds: dict[str, float] = defaultdict(float)
    for report in reports:
        seconds[report.nodeid] += report.duration
    return seconds


def lines(seconds: Mapping[str, float], marked: set[str]) -> Iterator[str]:
    """The report.  marked: the tests that carry one of SLOW_MARKERS."""
    allowed, rooms = allowed_seconds(), defaultdict(float)
    for test, taken in seconds.items():
        rooms[room_of(test)] += taken
    yield f"the {NUM_SLOWEST} slowest of {len(seconds):,} tests:"
    for test, taken in sorted(seconds.items(), key=lambda pair: -pair[1])[:NUM_SLOWEST]:
        unmarked = "" if taken <= SLOW_SECONDS or test in marked else "  (longer than 20 s, and not marked slow)"
        yield f"{taken:8.1f} s  {test}{unmarked}"
    total = sum(rooms.values())
    yield f"each room's share of {total:,.0f} s, and what it may take on a machine without AVX-512:"
    for room, taken in sorted(rooms.items(), key=lambda pair: -pair[1]):
        limit = f"of {allowed[room]:g} s" if room in allowed else f"no allowance: name the room in {ALLOWED.name}"
        over = "  MORE THAN IT MAY" if taken > allowed.get(room, taken) else ""
        yield f"{taken:8.1f} s  {taken / total:4.0%}  {room}, {limit}{over}"


def test_reports(stats: Mapping[str, list[Any]]) -> list[pytest.TestReport]:
    """All phases of all tests, as pytest's terminal has them."""
    return [report for kind in stats.values() for report in kind if isinstance(report, pytest.TestReport)]


def marked_tests(reports: Iterable[pytest.TestReport]) -> set[str]:
    """The tests that carry one of SLOW_MARKERS."""
    return {report.nodeid for report in reports if SLOW_MARKERS & report.keywords.keys()}
