"""What part of a GPU a process was given.  Imports no ray: where nothing else has, there is nobody to share with."""

import sys


def gpu_share() -> float:
    """The part of a GPU, in (0, 1], that Ray gave this process; 1 for whole ones, and outside of Ray's workers."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 1.0
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return 1.0
    return min(1.0, context.get_assigned_resources().get("GPU") or 1.0)
