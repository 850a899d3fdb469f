"""A part of a GPU: each worker that shares one keeps to its part of the memory, and they run side by side."""

import contextlib
import sys

from bat_dist.workers import mps

# Of a worker's part, in bytes, for what torch's allocator does not count: CUDA's context with the kernels of torch,
# cuBLAS and cuDNN that are loaded.  It does not grow with the part or the batch.  An estimate (300 to 600 MB on recent
# cards), not measured here.
OUTSIDE_ALLOCATOR = 768 * 2**20
FULL = "the GPU was full"


def part_of_gpu() -> float:
    """The part of a GPU, in (0, 1], that Ray gave this process; 1 for whole ones, and outside of Ray's workers."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 1.0
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return 1.0
    return min(1.0, context.get_assigned_resources().get("GPU") or 1.0)


def keep_to_part(gpus: float) -> None:
    """Limit what tensors may take to this process's part of its GPU; to be called before it uses CUDA at all.

    gpus: the part, as Ray was asked for it; nothing is done unless 0 < gpus < 1.  What is asked for beyond it raises
    torch.OutOfMemoryError in this process, where it would have taken the memory of those that share the GPU.
    """
    if not 0 < gpus < 1:
        return
    mps.join()
    import torch  # here: work without torch need not wait for it

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(allocator_part(gpus, total), 0)


def allocator_part(gpus: float, total: int) -> float:
    """The share of a GPU's memory (`total` bytes) that tensors of a worker with a part of it may take.

    The part less OUTSIDE_ALLOCATOR, and at least half of the part.
    """
    return max(gpus - OUTSIDE_ALLOCATOR / total, gpus / 2)


def await_gpu() -> None:
    """Wait for what this process has at work on its GPU, so that it can be ended: MPS has others of its clients suffer
    from one that is killed at work.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # it may still be full
            torch.cuda.synchronize()


def gpu_full(error: BaseException, gpus: float) -> str:
    """What is said of an error of a GPU that is full, to a user whose worker had so much of it; once is enough."""
    if str(error).startswith(FULL):
        return str(error)
    fewer = "let fewer workers share it (--gpus_per_trial or --gpus_per_worker; 1: a GPU of its own), or "
    others = "end what else uses it, or "
    return f"{FULL}: {fewer if 0 < gpus < 1 else others}lower the batch size ({type(error).__name__}: {error})"
