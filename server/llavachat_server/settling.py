"""Python's and the C library's memory around a start: most of what is made there stays for good.

Process-wide, so only the command calls it, and never a test's or a caller's process.
"""

import ctypes
import gc
import os

# Source: glibc's malloc.h. Other libraries have no such call.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

LARGE_BYTES = 4 * 1024**2
"""What is as large has pages of its own, which are the system's again once it is free."""

FREE_BYTES = 2 * LARGE_BYTES
"""The most free memory at the end of an arena; in glibc's ratio to the former."""

_OF_OPERATOR = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def begin_start() -> None:
    """Collect no garbage while modules are imported and the model is loaded: there is little.

    And have long replies and large pictures leave nothing behind. By itself glibc raises both
    bounds, to 32 and 64 MiB, with the first large piece that is freed, as loading does: from then
    on each of its arenas, eight for each core, may keep as much.
    """
    gc.disable()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not any(name in os.environ for name in _OF_OPERATOR):
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, FREE_BYTES)


def end_start() -> None:
    """Take what is there for permanent, and give back what loading has left free.

    Collecting looked at 300,000 objects of imported modules each time, which held every answer
    for a fifth of a second.
    """
    gc.freeze()
    gc.enable()
    # glibc keeps freed pieces between those in use; other libraries have no such call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
