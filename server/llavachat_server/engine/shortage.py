"""Failures for want of memory or of handles, of which no file is to blame; it knows no torch."""

import errno
import re

_SHORT = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_TORCH_SAYS = re.compile(
    r"out of memory|can't allocate memory"
    r"|CU(BLAS|DNN)_STATUS_\w*ALLOC(ATION)?_FAILED"
    r"|CUBLAS_STATUS_NOT_INITIALIZED when calling `?cublas(Lt)?Create"
)
"""Of a GPU, from torch, from the driver, when it is opened or later, or from cuBLAS and cuDNN, the
former of which finds no room for its workspace when it begins; and of a processor. Source:
`CUDACachingAllocator.cpp`, `cudaGetErrorString`, `alloc_cpu.cpp` and `CUDABlas.cpp` in torch and
CUDA; `cudnnStatus_t`, before cuDNN 9 and since; github.com/karpathy/llama2.c/issues/279."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether something failed because there was not enough of something."""
    if isinstance(error, OSError):
        return error.errno in _SHORT
    return is_memory_shortage(error)


def is_memory_shortage(error: BaseException | None) -> bool:
    """Whether the computing itself found too little memory; no file, process or handle did."""
    if isinstance(error, RuntimeError):
        return _TORCH_SAYS.search(str(error)) is not None
    return isinstance(error, MemoryError)
