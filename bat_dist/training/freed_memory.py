"""Memory that a computation on CPUs frees is kept for its next tensors.

glibc's malloc takes each large block from the system (from 32 MiB always, below by what was freed before), and gives it
back when it is freed.  The next pass through a network asks for the same blocks again, and the kernel fills them with
zeros page by page: up to half of a pass of a small network over 128 images.  Imports no torch.
"""

import ctypes
import os
import sys
from functools import cache

SWITCH = "BAT_DIST_KEEP_FREED"
LARGEST_KEPT = 256 * 2**20  # bytes of a block; larger ones, such as a data set, go back to the system
MOST_KEPT = 2**31 - 1  # bytes at the end of the heap, the most that mallopt takes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_OF_THE_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees, up to 2 GiB beside what its tensors take; results do not change.

    For processes that compute.  Nothing happens without glibc, where the user has set malloc's thresholds in the
    environment, or with BAT_DIST_KEEP_FREED=0.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or any(name in os.environ for name in _OF_THE_USER):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have none
        mallopt(_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, MOST_KEPT)
