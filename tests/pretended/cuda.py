"""A GPU that is not there: torch takes tensors for CUDA's, and a processor computes their numbers.

Tensors on "cuda" are plain ones whose memory is the host's, by DLPack, and a fallback for CUDA's
dispatch key computes each operation on a processor's alias of the same memory. What is held to
what CUDA does:

- Operands of two devices are refused, but for scalars and indices.
- Memory that nobody has written is NaN, or -1.
- What makes the host wait is noted with the line of ours that does it (`Gpu.waits`), and refused
  while a graph is captured, by any thread.
- A graph's replay writes the memory that its capture had, after all that the graphs of its pool
  had is overwritten; what a capture read of memory that is freed since is refused.
- A copy from pinned memory that nobody waits for happens as late as it may.
- FlashAttention's kernel and bitsandbytes' take what theirs for CUDA take.

Not shown by it: that a kernel is right or quick, that its sums round as a GPU's do, how much memory
is left, two streams at once, and anything of a kernel that only torch's build for CUDA has.
It takes torch's build for processors, on Linux.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._device import _device_constructors

from pretended import kernels  # noqa: F401
from pretended.device import CONTRACTS, Event, Gpu, Graph, Stream, _current
from pretended.memory import switch_devices

_BITSANDBYTES = (
    *(name.split("::")[1] for name in CONTRACTS if name.startswith("bits")),
    "dequantize_blockwise",
    "dequantize_4bit",
)


@contextmanager
def pretend_cuda(capability: tuple[int, int] = (8, 6), *, free_bytes: int = 2**34) -> Iterator[Gpu]:
    """Have torch find a GPU.

    Args:
        capability: major and minor.
        free_bytes: of its memory.
    """
    # Before there is one: it would look for its library for CUDA.
    from bitsandbytes.functional import name2qmap

    # It keeps which functions make tensors at its first use: ours in their place would stay, and
    # no `with torch.device(...)` reach torch's own any more, in this process's other tests.
    _device_constructors()

    device = Gpu(capability, free_bytes)
    properties = SimpleNamespace(
        major=capability[0],
        minor=capability[1],
        multi_processor_count=80,
        total_memory=free_bytes,
        name="pretended",
    )
    stream = Stream()
    faces = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "device": lambda *_: nullcontext(),
        "get_device_capability": lambda *_: capability,
        "get_device_name": lambda *_: properties.name,
        "get_device_properties": lambda *_: properties,
        "mem_get_info": lambda *_: (device.free_bytes, device.free_bytes),
        "memory_allocated": lambda *_: 0,
        "memory_reserved": lambda *_: 0,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: device.wait("device"),
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda *_: stream,
        "default_stream": lambda *_: stream,
        "stream": lambda *_: nullcontext(),
        "CUDAGraph": Graph,
        "graph": device.capture,
    }
    with ExitStack() as stack:
        stack.enter_context(switch_devices())
        for space, kernels in (
            ("aten", {"copy_": device.copy, "_local_scalar_dense": device.read_number}),
            ("bitsandbytes", {n: _bind(device, "bitsandbytes", n) for n in _BITSANDBYTES}),
        ):
            library = torch.library.Library(space, "IMPL", "CUDA")
            stack.callback(library._destroy)
            for name, kernel in kernels.items():
                library.impl(name, kernel)
        rest = torch.library.Library("_", "IMPL")
        stack.callback(rest._destroy)
        rest.fallback(device.compute, "CUDA")
        stack.enter_context(patch.multiple(torch.cuda, **faces))
        for name in ("zeros", "empty"):
            make = device.make_pinned(getattr(torch, name))
            stack.enter_context(patch.object(torch, name, make))
        _current.append(device)
        stack.callback(_current.remove, device)
        # Tables that it keeps for the next weights.
        stack.callback(name2qmap.clear)
        yield device


def _bind(device: Gpu, space: str, name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(getattr(torch.ops, space), packet), overload or "default")
    return functools.partial(device.compute, op)
