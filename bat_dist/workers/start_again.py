"""`ray start`, again where Ray's processes do not come up in time.  Does not import ray.

    python -m bat_dist.workers.start_again ray start --head ...

They must be up within 30 s, a limit of Ray's own that cannot be set.  On a node whose disk is cold, or whose cores are
busy, that can be too little.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

START_ATTEMPTS = 5
TOO_LATE = "timed out during startup"  # what Ray says then


def start_again(words: Sequence[str]) -> int:
    """Run the command, at most `START_ATTEMPTS` times while Ray says that it is too late; returns its exit code.

    What it says on stderr is passed on when it ends, and SIGTERM at once.
    """
    code = 0
    for attempt in range(1, START_ATTEMPTS + 1):
        with tempfile.TemporaryFile("w+") as file:  # no pipe: the processes that it leaves running would keep it open
            code = _run(words, file)
            file.seek(0)
            said = file.read()
        sys.stderr.write(said)
        if code == 0 or TOO_LATE not in said:
            break
        print(f"bat_dist: {too_late(attempt)}", file=sys.stderr, flush=True)
        if "--block" not in words:  # with it Ray itself ends what it has started
            subprocess.run([words[0], "stop", "--force"])
    return code


def _run(words: Sequence[str], file: IO[str]) -> int:
    """The exit code of a command that has the file as its stderr."""
    process = subprocess.Popen(words, stderr=file)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # Slurm ends a step, which is to end cleanly
    return process.wait()


def too_late(attempt: int) -> str:
    """What to say when that start, counted from 1, has failed."""
    return f"Ray's processes did not start in time (start {attempt} of {START_ATTEMPTS})"


if __name__ == "__main__":
    sys.exit(start_again(sys.argv[1:]))
