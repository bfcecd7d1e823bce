"""Failures for want of memory or of handles, of which no file is to blame; it knows no torch."""

import errno

_SHORT = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_TORCH_SAYS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Of a GPU, from torch, from the driver, when it is opened or later, or from cuBLAS; and of a
processor. Source: `CUDACachingAllocator.cpp`, `cudaGetErrorString`, `alloc_cpu.cpp` and
`CUDABlas.cpp` in torch and CUDA."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether something failed because there was not enough of something."""
    if isinstance(error, OSError):
        return error.errno in _SHORT
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _TORCH_SAYS)
    return isinstance(error, MemoryError)
