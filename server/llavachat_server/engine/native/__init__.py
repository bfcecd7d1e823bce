"""LLaVA in float32 on a CPU: kernels of our own, NumPy around them, and no torch.

`kernels` is what numba compiles, in processes of its own (`apart`), which leave machine code behind
(`code`). `weights` packs a checkpoint, `steps` computes the decoder and `tower` the pictures, on
threads of their own (`threads`), `cache` and `embedding` are the memory between them, `sampling`
draws, and `backend` is what the engine sees. It knows no asyncio and no requests.
"""

import ctypes
import importlib.util
import mmap
from pathlib import Path

from llavachat_server.engine.native.code import make_executable

_NEEDED = ("avx2", "fma")


def is_installed() -> bool:
    """Whether what compiles is there; it is not imported."""
    return importlib.util.find_spec("numba") is not None


def find_obstacle() -> str | None:
    """Why the kernels would not run well in this process; None when they do."""
    if not is_installed():
        return "numba is not installed"
    if not _can_make_executable():
        return "this process may not make memory executable (MemoryDenyWriteExecute)"
    features = _read_features()
    missing = [name for name in _NEEDED if name not in features]
    return f"the processor has no {' and no '.join(missing)}" if missing else None


def _read_features() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def _can_make_executable() -> bool:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    start = ctypes.c_char.from_buffer(page)
    try:
        make_executable(ctypes.addressof(start), mmap.PAGESIZE)
    except OSError:
        return False
    finally:
        del start
        page.close()
    return True
