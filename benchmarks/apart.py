"""Sides in a process of their own, which keeps the memory that it frees as ours do.

Rivals stay in the process that calls, whose memory is managed as their users have it.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from bat_dist.training.freed_memory import keep_freed_memory
from benchmarks.measurement import Context, Quantities, Sides, Unavailable

T = TypeVar("T")
_made: dict[str, Callable[[int], Quantities | None]] = {}  # of the new process


@contextmanager
def apart(context: Context, make: Callable[..., Sides], *args: object) -> Iterator[Sides]:
    """The sides of `make(*args)`, made and worked in one new process; in the tiny size in this one."""
    if context.size == "tiny":
        yield make(*args)
        return
    with _process() as pool:
        lacks = pool.submit(_make, make, args).result()
        yield {name: lack or partial(_ask, pool, name) for name, lack in lacks.items()}


def done_apart(context: Context, function: Callable[..., T], *args: object) -> T:
    """What a function gives that is called in a new process; in the tiny size in this one."""
    if context.size == "tiny":
        return function(*args)
    with _process() as pool:
        return pool.submit(function, *args).result()


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=keep_freed_memory)


def _make(make: Callable[..., Sides], args: tuple[object, ...]) -> dict[str, Unavailable | None]:
    """Make the sides, and tell of each why it cannot be measured; None if it can."""
    for name, side in (sides := make(*args)).items():
        if not isinstance(side, Unavailable):
            _made[name] = side
    return {name: side if isinstance(side, Unavailable) else None for name, side in sides.items()}


def _ask(pool: ProcessPoolExecutor, name: str, number: int) -> Quantities | None:
    return pool.submit(_work, name, number).result()


def _work(name: str, number: int) -> Quantities | None:
    return _made[name](number)
