"""How many images are attacked at once where nobody says.  Imports no torch."""

ON_CPU, ON_GPU = 64, 512
"""Few images keep a CPU busy. A GPU waits for the host at each step of an attack, so that a batch takes hardly longer
than an image (docs/results/gpu.md); one that does not fit into its memory is halved."""


def usual_batch_size(*, on_gpu: bool) -> int:
    """How many images are attacked at once on a device of this kind.  No image's fate depends on it."""
    return ON_GPU if on_gpu else ON_CPU
