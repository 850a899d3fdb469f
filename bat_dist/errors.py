"""What went wrong, in words that lead on; and what an exception says of the GPU.

A mistake of the user is a `UserError` wherever it is found, and `program.run_command` makes it exit code 2.  Any other
exception, a plain ValueError from inside the package too, keeps its traceback.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

WAY_OUT = "use another --out, or --fresh to replace it"  # of a folder that holds other results

# What the message of a RuntimeError has, in lower case, where memory of a GPU was asked for and not to be had.
GPU_FULL = (
    "out of memory",  # torch's allocator, CUDA's runtime and driver; NCCL's last error, Cuda failure 2 'out of memory'
    "_alloc_failed",  # CUBLAS_STATUS_, CUSOLVER_STATUS_, CUFFT_; CUDNN_STATUS_ up to cuDNN 8
    "device_allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_ of cuDNN 9, which has a HOST_ALLOCATION_FAILED too
    "failed to cuda malloc",  # NCCL's last error, as the next
    "failed to cuda calloc",
    "unable to find an engine to execute this computation",  # torch's, after the allocations of all cuDNN plans failed
)


class UserError(ValueError):
    """Bad input: the message names the value, the rule and the way out."""


class RunError(RuntimeError):
    """The run could not go on, through no mistake in its settings: the message says why and how to go on."""


class ConfigError(UserError):
    """All that is wrong with the settings, one line each in `errors`."""

    def __init__(self, errors: Iterable[str]):
        self.errors = list(errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "\n".join(self.errors)


def describe_error(error: BaseException) -> str:
    """An error in words, with the name of its class unless it is one of ours."""
    return str(error) if isinstance(error, UserError | RunError) else f"{type(error).__name__}: {error}"


EXTRAS = {
    **dict.fromkeys(("ray", "psutil", "zarr", "numcodecs"), "ray"),
    "optuna": "tune",
    **dict.fromkeys(("matplotlib", "plotly", "pandas"), "report"),
    "trak": "attribution",
    "timm": "timm",
    "datasets": "hf",
}
"""The extra of pyproject.toml that brings a package, by the package's name."""


def installing(extra: str) -> str:
    """How a person gets the packages of an extra; the package is on no index, so the way leads through the clone."""
    return f"`make setup`, or pip install '.[{extra}]' in the clone of bat-dist"


@contextmanager
def naming_extras() -> Iterator[None]:
    """Raise UserError for a package of an extra that is not installed, where the block raises ModuleNotFoundError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (lack := not_installed(error)) is None:
            raise
        raise lack from error


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """What to tell a person whose environment lacks a package of an extra; None for any other module."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return UserError(f"{package} is not installed: {installing(EXTRAS[package])}")


def is_gpu_full(error: BaseException) -> bool:
    """Whether memory of a GPU was not to be had, says the error or one that led to it, and none says worse.

    Only RuntimeErrors say so: torch.OutOfMemoryError, torch.AcceleratorError, torch.distributed's DistBackendError, and
    plain ones of cuBLAS and cuDNN.  The GPU, and the process's use of it, are in order after it.
    """
    return any(map(_says_full, _chain(error))) and not is_gpu_broken(error)


def is_gpu_broken(error: BaseException) -> bool:
    """Whether the process can use its GPU no more, says the error or one that led to it, as of an illegal access.

    That is every torch.AcceleratorError but one of a GPU that is full.
    """
    return any(_is_a(error, "AcceleratorError") and not _says_full(error) for error in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_full(error: BaseException) -> bool:
    message = str(error).lower()
    return isinstance(error, RuntimeError) and (
        _is_a(error, "OutOfMemoryError") or any(words in message for words in GPU_FULL)
    )


def _is_a(error: BaseException, torch_class: str) -> bool:
    """By the name of its class: torch need not be imported for it."""
    return any(one.__name__ == torch_class and one.__module__.startswith("torch") for one in type(error).__mro__)
