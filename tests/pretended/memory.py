"""Tensors on a GPU that is not there: by DLPack, in the host's memory."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

_CUDA, _META = 1, 14
"""By ``c10::DeviceType``."""

_PROCESSOR = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_LIBC = ctypes.CDLL(None)
_LIBC.malloc.restype = ctypes.c_void_p
_LIBC.malloc.argtypes = [ctypes.c_size_t]


class _Managed(ctypes.Structure):
    """DLPack's `DLManagedTensor`; what it points to follows in the same piece of memory."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_HEAD_BYTES = ctypes.sizeof(_Managed)
_FREE = ctypes.cast(_LIBC.free, ctypes.c_void_p).value
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def _describe(dtype: torch.dtype) -> tuple[int, int]:
    # DLPack's code and bits.
    if dtype == torch.bool:
        return 6, 8
    if dtype == torch.bfloat16:
        return 4, 16
    kind = 2 if dtype.is_floating_point else 5 if dtype.is_complex else int(not dtype.is_signed)
    return kind, dtype.itemsize * 8


def make_tensor(
    sizes: Sequence[int], strides: Sequence[int], dtype: torch.dtype, *, memory: int | None = None
) -> Tensor:
    """A tensor on the device in new memory, or a processor's on memory that another holds."""
    ndim = len(sizes)
    spans = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    count = 0 if 0 in sizes else spans + 1
    start = -(-(_HEAD_BYTES + 16 * ndim) // 64) * 64
    place = _LIBC.malloc(start + (count * dtype.itemsize + 64 if memory is None else 0))
    lists = (ctypes.c_int64 * (2 * ndim)).from_address(place + _HEAD_BYTES)
    lists[:] = [*sizes, *strides]
    data = -(-(place + start) // 64) * 64 if memory is None else memory
    if memory is None:
        ctypes.memset(data, 0xFF, count * dtype.itemsize)
    head = _Managed.from_address(place)
    head.data, head.device_type, head.device_id = data, 2 if memory is None else 1, 0
    head.ndim, (head.code, head.bits), head.lanes = ndim, _describe(dtype), 1
    head.shape, head.strides = place + _HEAD_BYTES, place + _HEAD_BYTES + 8 * ndim
    head.byte_offset, head.context, head.deleter = 0, None, _FREE
    return torch._C._from_dlpack(_new_capsule(place, b"dltensor", None))


def alias(tensor: Tensor) -> Tensor:
    """What a processor computes with in a device tensor's place."""
    return make_tensor(tensor.shape, tensor.stride(), tensor.dtype, memory=tensor.data_ptr())


@contextmanager
def switch_devices() -> Iterator[None]:
    """Have torch know a current GPU, the first."""
    # Torch's build for processors can not tell which GPU is the current one. What can is a C++
    # object (`DeviceGuardImplInterface.h`): that of tensors without memory, which does nothing,
    # with the first three of its methods replaced: `type`, `exchangeDevice` and `getDevice`.
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    table = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    assert table[_CUDA] is None, "there is a GPU, or torch's build is for one"
    idle = ctypes.c_void_p.from_address(table[_META])
    methods = (ctypes.c_void_p * 48)()
    ctypes.memmove(methods, idle.value - 16, ctypes.sizeof(methods))
    tell_type = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p)(lambda _: _CUDA)
    # A type and an index, 8 bits each.
    tell_device = ctypes.CFUNCTYPE(ctypes.c_uint16, ctypes.c_void_p, ctypes.c_uint16)(
        lambda *_: _CUDA
    )
    methods[2] = ctypes.cast(tell_type, ctypes.c_void_p).value
    methods[3] = methods[4] = ctypes.cast(tell_device, ctypes.c_void_p).value
    made = ctypes.c_void_p(ctypes.addressof(methods) + 16)
    table[_CUDA] = ctypes.addressof(made)
    try:
        yield
    finally:
        table[_CUDA] = None
