"""What torch 2.14 raises where a GPU is full, and where it is broken; the texts are those of users' reports.

Each is (class, message); a class of torch by its name, so that whoever raises it need not import torch.
"""

_HINT = "CUDA kernel errors might be asynchronously reported at some other API call\n"
_NCCL = (
    "NCCL error in: NCCLUtils.cpp:77, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.30.7"
)

FULL = [
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.18 GiB"),
    ("OutOfMemoryError", ""),
    ("AcceleratorError", f"CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'\n{_HINT}"),
    ("RuntimeError", f"CUDA error: out of memory\n{_HINT}"),
    ("RuntimeError", "CUDA driver error: out of memory"),
    ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ("RuntimeError", "GET was unable to find an engine to execute this computation"),
    ("DistBackendError", f"{_NCCL}\nncclUnhandledCudaError: ...\nLast error:\nCuda failure 2 'out of memory'"),
    ("DistBackendError", f"{_NCCL}\nncclUnhandledCudaError: ...\nLast error:\nFailed to CUDA calloc async 608 bytes"),
]
BROKEN = [
    ("AcceleratorError", f"CUDA error: an illegal memory access was encountered\n{_HINT}"),
    ("AcceleratorError", "CUDA error: uncorrectable ECC error encountered"),
    ("AcceleratorError", "CUDA error: the remote procedural call between the MPS server and the MPS client failed"),
]
NEITHER = [
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    ("RuntimeError", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
    ("DistBackendError", f"{_NCCL}\nncclUnhandledCudaError: ...\nLast error:\nCuda failure 1 'invalid argument'"),
    ("ValueError", "out of memory"),
    ("MemoryError", "out of memory"),
]
