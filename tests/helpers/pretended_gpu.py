"""A GPU that is not there: tensors that say `cuda:0` and hold real values on the CPU.

    with pretended_gpu() as gpu:
        model.to("cuda")(images.to("cuda")).sum().item()
    gpu.waits     {("item", "file.py:12"): 1}: where the host would wait until a GPU has caught up
    gpu.launches  {("convolution", "file.py:9"): 20, ...}: kernels that it would start, about

What a GPU would refuse raises `DeviceMistake`: operands on two devices, a CPU tensor indexed by one of the GPU, a CPU
generator, numpy. Two of torch's modes do it, so that nothing is compiled or preloaded: one sees each call from Python
and knows the devices, the other the kernels of such a call, those of a backward pass too. For torch's own C++ code the
tensors are on the CPU: its kernels run, and autocast's lists of operations are the CPU's.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")

WAITS = {
    "_local_scalar_dense": "item",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "equal": "equal",
    "allclose": "allclose",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique",
    "bincount": "bincount",
}
"""Operations of ATen whose result, or its shape, the host must know; beside them boolean indices and copies."""

NO_KERNEL = frozenset(
    (
        *("view", "_unsafe_view", "_reshape_alias", "as_strided", "alias", "detach", "lift_fresh", "is_same_size"),
        *("t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "diagonal", "unfold", "view_as_real"),
        *("slice", "select", "unbind", "split", "split_with_sizes"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    )
)
"""Operations of ATen that look at the same memory in another way, or ask for memory."""

_HOST_DATA = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
_TO_NUMPY = (Tensor.numpy, Tensor.__array__)
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
_MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)
_SET_DATA = Tensor.data.__set__  # pyright: ignore[reportAttributeAccessIssue]
_PARSE_TO = torch._C._nn._parse_to  # pyright: ignore[reportAttributeAccessIssue]
_OF_NO_DEVICE = (_PARSE_TO, torch._has_compatible_shallow_copy_type)  # pyright: ignore[reportPrivateImportUsage]


class DeviceMistake(RuntimeError):
    """What a GPU would refuse."""


class OnGpu(Tensor):
    """A tensor that says it is on the GPU. `PretendedGpu` makes them, by giving tensors this class."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]
    device = property(lambda self: CUDA)  # pyright: ignore[reportAssignmentType]
    is_cuda = property(lambda self: True)  # pyright: ignore[reportAssignmentType]

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy._is_param = True  # pyright: ignore[reportAttributeAccessIssue]
        return memo.setdefault(id(self), copy)


class PretendedGpu(TorchFunctionMode):
    """Sees each call of torch from Python: which device it works on, and whether that is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.launches: Counter[tuple[str, str]] = Counter()

    def wait(self, kind: str, count: int = 1) -> None:
        """The host waits."""
        if count:
            self.waits[kind, place()] += count

    def synchronize(self, device: Any = None) -> None:
        """`torch.cuda.synchronize`."""
        self.wait("synchronize")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        found = list(tensors((*args, *kwargs.values())))
        on_gpu = any(isinstance(tensor, OnGpu) for tensor in found)
        asked = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if func in _MOVES:
            return self._move(func, *args, **kwargs)
        if func in _OF_NO_DEVICE or (not on_gpu and (asked is None or asked.type != "cuda")):
            return func(*args, **kwargs)
        if asked:
            kwargs["device"] = CPU
        if func in _TO_NUMPY:
            raise DeviceMistake(f"numpy of a GPU's tensor, {place()}")
        if func == _SET_DATA:
            func(*args)
            return put_on_gpu(args[0]) if isinstance(args[1], OnGpu) else take_from_gpu(args[0])
        if func in (Tensor.copy_, *_INDEXING):
            return self._copy_or_index(func, *args, **kwargs)
        check_devices(func, found, kwargs.get("generator"))
        data = args[1:] if func is Tensor.new_tensor else args[:1]
        from_host = func in _HOST_DATA and not any(isinstance(one, OnGpu) for one in data)
        self.wait(func.__name__, func is Tensor.tolist or from_host)
        with _Kernels(self):
            result = func(*args, **kwargs)
        if func in _HOST_DATA and any(result is tensor for tensor in found) and not on_gpu:
            result = result.clone()
        return result if asked == CPU else put_on_gpu(result)

    def _move(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        target, dtype, non_blocking, layout = _parsed(func, tensor, *args, **kwargs)
        there, here = target.type == "cuda", isinstance(tensor, OnGpu)
        with _Kernels(self) if here else ExitStack():
            how: dict[str, Any] = {} if layout is None else {"memory_format": layout}
            moved = tensor.to(CPU, dtype or tensor.dtype, copy=bool(kwargs.get("copy", False)), **how)
        if there != here:
            self.wait("copy to the GPU" if there else "copy from the GPU", not non_blocking)
            moved = moved.clone() if moved is tensor else moved
        return put_on_gpu(moved) if there else moved

    def _copy_or_index(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The operations in which both devices may meet."""
        here, values = isinstance(tensor, OnGpu), [arg for arg in args if isinstance(arg, Tensor)]
        if func is Tensor.copy_:
            non_blocking = kwargs.get("non_blocking", args[1] if len(args) > 1 else False)
            self.wait("copy", isinstance(values[0], OnGpu) != here and not non_blocking)
        else:
            index = list(tensors(args[:1]))
            if not here and any(isinstance(one, OnGpu) for one in index):
                raise DeviceMistake(f"a CPU's tensor is indexed by one of a GPU, {place()}")
            self.wait("copy of an index to the GPU", here * sum(not isinstance(one, OnGpu) for one in index))
            values = list(tensors(args[1:]))
            if any(isinstance(value, OnGpu) != here and value.ndim for value in values) and index:
                raise DeviceMistake(f"values of another device are put into a tensor, {place()}")
            self.wait("copy", sum(isinstance(value, OnGpu) != here and value.ndim > 0 for value in values))
        with _Kernels(self):
            result = func(tensor, *args, **kwargs)
        return put_on_gpu(result) if here else result


class _Kernels(TorchDispatchMode):
    """Counts what a call on the GPU does there."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # inference mode gives compositions whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if name in ("index", "index_put", "index_put_"):
            self.gpu.wait("boolean index", num_masks(*args))
        if name in WAITS:
            self.gpu.wait(WAITS[name])
        elif name not in NO_KERNEL:
            parts = sum(args[-1]) if name == "convolution_backward" else 1
            self.gpu.launches[name.rstrip("_"), place()] += parts
        return func(*args, **kwargs)


def num_masks(tensor: Tensor, indices: Iterable[Tensor | None], value: Tensor | None = None, *_: Any) -> int:
    """How many of the indices the host must count; one number that is put through one mask is a `masked_fill`."""
    given = [index for index in indices if index is not None]
    masks = sum(index.dtype in (torch.bool, torch.uint8) for index in given)
    return 0 if masks == len(given) == 1 and value is not None and value.numel() == 1 else masks


def check_devices(func: Any, found: list[Tensor], generator: torch.Generator | None) -> None:
    """Numbers that a CPU holds may go along with a GPU's tensors; other tensors, and generators, may not."""
    if generator is not None:
        raise DeviceMistake(f"{func.__name__} on a GPU with a generator of the {generator.device}, {place()}")
    on_gpu = any(isinstance(tensor, OnGpu) for tensor in found)
    joined = func in (torch.cat, torch.stack, torch.gather, Tensor.gather)
    strangers = [t for t in found if not isinstance(t, OnGpu) and (t.ndim or joined)]
    if on_gpu and strangers:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in strangers)
        raise DeviceMistake(f"{func.__name__} of tensors on cuda:0 with tensors on the CPU, {shapes}; {place()}")


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among the arguments of a call, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


def put_on_gpu(result: Any) -> Any:
    """The same result, whose tensors now say that they are on the GPU."""
    for tensor in tensors((result,)):
        if not isinstance(tensor, OnGpu):
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            tensor.__class__ = OnGpu
            if is_parameter:
                tensor._is_param = True  # pyright: ignore[reportAttributeAccessIssue]
    return result


def take_from_gpu(tensor: Tensor) -> None:
    """The tensor, such as a parameter that its module moves, no longer says that it is on the GPU."""
    if isinstance(tensor, OnGpu):
        kind = torch.nn.Parameter if getattr(tensor, "_is_param", False) else Tensor
        tensor.__class__ = kind  # pyright: ignore[reportAttributeAccessIssue]


def place() -> str:
    """The innermost line of the package that is being run, or else the line that calls torch."""
    frame, outside = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if "/bat_dist/" in file and "/tests/" not in file and "/site-packages/" not in file:
            return f"{file.rpartition('/bat_dist/')[2]}:{frame.f_lineno}"
        if not outside and "/torch/" not in file and file != __file__:
            outside = f"{file.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return outside


def _parsed(
    func: Any, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any
) -> tuple[torch.device, torch.dtype | None, bool, torch.memory_format | None]:
    """Device, dtype, non_blocking and memory format that a move asks for; those of another tensor too."""
    if func is Tensor.to:
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, non_blocking, layout = _PARSE_TO(*args, **kwargs)
        return device or tensor.device, dtype, non_blocking, layout
    device = CPU if func is Tensor.cpu else CUDA
    return device, None, kwargs.get("non_blocking", False), kwargs.get("memory_format")


def _grouped(gpu: PretendedGpu, group: Callable[..., Any], lists: list[list[Tensor]], *args: Any) -> Any:
    """Torch sorts tensors by the device that its C++ code sees."""
    groups = group(lists, *args)
    on_gpu = any(isinstance(tensor, OnGpu) for tensor in tensors(lists))
    return {(CUDA if on_gpu else device, dtype): found for (device, dtype), found in groups.items()}


class _Autocast(torch.autocast):
    """Autocast of the GPU is the CPU's."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Inside, torch has one GPU."""
    gpu = PretendedGpu()
    state = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_initialized": lambda: True,
        "get_device_name": lambda device=None: "pretended GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "get_rng_state": lambda device="cuda": state,
        "set_rng_state": lambda state, device="cuda": None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "max_memory_allocated": lambda device=None: 0,
        "synchronize": gpu.synchronize,
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(patch.object(torch, "autocast", _Autocast))
        name = "_group_tensors_by_device_and_dtype"
        stack.enter_context(patch.object(torch._C, name, partial(_grouped, gpu, getattr(torch._C, name))))
        yield stack.enter_context(gpu)
