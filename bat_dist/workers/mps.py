"""NVIDIA's Multi-Process Service: kernels of processes that share a GPU run side by side, not by turns.

`start` starts its control daemon on this machine, `join` lets a worker's CUDA work go through it.  Both do without it
where it cannot be had.  `python -m bat_dist.workers.mps [COMMAND ...]` starts it, as the files in cluster/ do on every
node before Ray, and then becomes the command, if there is one.  BAT_DIST_MPS=0 in the environment: neither; nor where
CUDA_MPS_PIPE_DIRECTORY is set, as by those who have an MPS of their own.  BAT_DIST_MPS=/a/folder: with its pipes there.

What NVIDIA says of it (https://docs.nvidia.com/deploy/mps): a daemon is found by the folder of its pipes.  Where
CUDA_VISIBLE_DEVICES is set for the daemon, its clients count the GPUs anew; so it is taken away.  A fault of one
process ends all that share its GPU, and until they are gone the server takes no others.  Limits of a client's share of
the multiprocessors (CUDA_MPS_ACTIVE_THREAD_PERCENTAGE) and of its memory (CUDA_MPS_PINNED_DEVICE_MEM_LIMIT) are not
set: the first keeps a worker from what the others leave idle, which is what MPS is for here; the second counts the
context too, so that a part too small would end a worker at its start, where `gpu_share` leaves a batch too large.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

SWITCH = "BAT_DIST_MPS"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
DEFAULT_PIPES = "/tmp/nvidia-mps"  # CUDA's own
CONTROL = "nvidia-cuda-mps-control"
SERVERS = "get_server_list"  # a question that any daemon answers
ANSWER_SECONDS = 20.0  # for a program of NVIDIA's
TRIES, PAUSE = 5, 2.0  # seconds between tries to join, while the server starts or recovers

# A context on the first GPU, without torch: CUDA of a process that MPS has refused once is of no use to it.
TRIAL = """
import ctypes, sys
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
sys.exit(cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
    or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
"""
_started: list[Path] = []  # the pipes of the daemon that this process has started


def pipes() -> Path:
    """The folder of our daemon: BAT_DIST_MPS, or this user's in /tmp, where paths of sockets are short."""
    asked = os.environ.get(SWITCH, "")
    return Path(asked if asked.startswith("/") else f"/tmp/bat-dist-mps-{os.getuid()}")


def _is_off() -> bool:
    return os.environ.get(SWITCH) == "0" or PIPES in os.environ


def start() -> bool:
    """Start the daemon, unless one runs or it cannot be; True if it runs now, and did not before.

    Nothing is done on a machine without NVIDIA's programs; why it was not started elsewhere is logged in a line.
    """
    if _is_off() or not (shutil.which(CONTROL) and shutil.which("nvidia-smi")):
        return False
    try:
        why_not = _obstacle() or _start()
    except (OSError, subprocess.TimeoutExpired) as error:
        why_not = str(error)
    if why_not:
        log.info("GPUs are shared without MPS: %s", why_not)
        return False
    _started.append(pipes())
    log.info("started MPS: workers that share a GPU run side by side (%s=0: by turns)", SWITCH)
    return True


def stop() -> None:
    """Stop the daemon that this process has started, if it has; clients that are left end as they would have."""
    while _started:
        _tell(_started.pop(), "quit")


def join() -> None:
    """Let this process use its GPU through the daemon of this machine; to be called before it uses CUDA at all.

    Tried in another process before: without an answer this one uses its GPU as without MPS.
    """
    folder = pipes()
    if _is_off() or not _is_own(folder) or not _tell(folder, SERVERS):
        return
    for attempt in range(TRIES):
        time.sleep(PAUSE * bool(attempt))
        if _works(folder):
            os.environ[PIPES] = str(folder)
            return
    log.warning("MPS in %s does not take this process: it shares its GPU by turns", folder)


def _obstacle() -> str:
    """Why no daemon is to be started here, or nothing."""
    query = ["nvidia-smi", "--query-gpu=compute_mode,mig.mode.current", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    modes = found.stdout.lower()
    if found.returncode or not modes.strip():
        return f"nvidia-smi shows no GPU ({(found.stdout + found.stderr).strip() or found.returncode})"
    if "prohibited" in modes:
        return "the compute mode of a GPU is Prohibited"
    if "enabled" in modes:
        return "a GPU is partitioned (MIG)"
    running = next((folder for folder in {Path(DEFAULT_PIPES), pipes()} if _tell(folder, SERVERS)), None)
    return f"a control daemon runs already ({running})" if running else ""


def _start() -> str:
    """Start it; returns why it did not work, or nothing."""
    folder = pipes()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder):
        return f"{folder} belongs to somebody else"
    nothing = subprocess.DEVNULL  # a pipe of ours the daemon would keep open for ever
    env, limit = _environment(folder), ANSWER_SECONDS
    done = subprocess.run([CONTROL, "-d"], env=env, timeout=limit, stdin=nothing, stdout=nothing, stderr=nothing)
    if done.returncode:
        return f"{CONTROL} -d ended with exit code {done.returncode}; its log is in {folder}"
    if not _works(folder):
        _tell(folder, "quit")
        return f"no context could be made through it; its log is in {folder}"
    return ""


def _tell(folder: Path, word: str) -> bool:
    """Say a word to the daemon in a folder; False if none is there, or it does not answer."""
    if not (folder / "control").exists():
        return False
    try:
        env = _environment(folder)
        return not subprocess.run(
            [CONTROL], input=f"{word}\n", text=True, capture_output=True, timeout=ANSWER_SECONDS, env=env
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def _is_own(folder: Path) -> bool:
    """Whether the folder is there and this user's: in /tmp anybody may have made it."""
    return folder.is_dir() and folder.stat().st_uid == os.getuid()


def _works(folder: Path) -> bool:
    """Whether a process gets a context on a GPU through the daemon in the folder."""
    env = {**os.environ, PIPES: str(folder)}
    try:
        trial = subprocess.run([sys.executable, "-c", TRIAL], capture_output=True, timeout=3 * ANSWER_SECONDS, env=env)
    except subprocess.TimeoutExpired:
        return False
    return trial.returncode == 0


def _environment(folder: Path) -> Mapping[str, str]:
    """What the daemon is started and spoken to with: all GPUs, and its logs beside its pipes."""
    others = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {LOGS: str(folder), **others, PIPES: str(folder)}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="bat_dist: %(message)s")
    start()
    if sys.argv[1:]:
        os.execvp(sys.argv[1], sys.argv[1:])
