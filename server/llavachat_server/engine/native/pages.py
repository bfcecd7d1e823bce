"""Weights that are mapped from files, copied into memory with pages of 2 MB where that is had.

A file's pages are 4 kB each, and a step reads all weights: on a virtual machine, where each page
is looked up in two tables, that was a tenth of a step. Mapping them first keeps the start short.
"""

import mmap
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BEGIN_SECONDS = 0.5
"""After a start, so that the first answers are not held up."""

SLICE_BYTES = 2 * 1024**2
"""Copied at once: most in 0.2 ms, where the machine has to get the memory first in up to 6."""

WAIT_SECONDS = 0.002
"""Between two looks whether others still compute."""

MOST_WAIT_SECONDS = 0.05
"""For others before a slice, so that a server that always computes has its large pages as well."""

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MEMORY = Path("/proc/meminfo")


def is_mapped(array: Floats) -> bool:
    """Whether an array is a file's content, as `packed.map_packed` has it."""
    return isinstance(array.base, memoryview) and isinstance(array.base.obj, mmap.mmap)


def find_obstacle(num_bytes: int, huge_pages: Path = _HUGE_PAGES, memory: Path = _MEMORY) -> str:
    """Why so much is better left mapped; empty where it is not.

    Args:
        num_bytes: of the weights.
        huge_pages, memory: files of the system.
    """
    try:
        has_huge_pages = "[never]" not in huge_pages.read_text()
        available = re.search(r"^MemAvailable:\s+(\d+) kB$", memory.read_text(), re.MULTILINE)
    except OSError:
        return "the system does not say what it has"
    if not has_huge_pages:
        return "the system gives no large pages"
    # A file's pages are the system's to take back; a copy's are not, and both are there meanwhile.
    if available is None or 2 * num_bytes > int(available.group(1)) * 1024:
        return "there is not memory enough"
    return ""


def copy(source: Floats, is_idle: Callable[[], bool], stopping: threading.Event) -> Floats | None:
    """Copy an array bit by bit, so that nobody waits for it. None: told to stop.

    Args:
        source: of one dimension.
        is_idle: whether nobody computes; asked before each slice.
        stopping: ends it soon.

    Raises:
        OSError, MemoryError: there is no memory.
    """
    memory = mmap.mmap(-1, source.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    target = np.frombuffer(memory, np.float32)
    step = SLICE_BYTES // source.itemsize
    for start in range(0, len(source), step):
        deadline = time.monotonic() + MOST_WAIT_SECONDS
        while not is_idle() and time.monotonic() < deadline:
            time.sleep(WAIT_SECONDS)
        if stopping.is_set():
            return None
        target[start : start + step] = source[start : start + step]
    return target
