"""How the server calls a kernel: all that it is told as 64-bit words in one array.

A size is a word, an array is two: where it lies, and how many elements it has. The order is that
in which `kernels.entries` reads them, a thread's own part last.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.int64]


def find_address(array: NDArray[Any]) -> int:
    """Where an array's elements begin."""
    address: int = array.__array_interface__["data"][0]
    return address


def point_to(arrays: Iterable[NDArray[Any]]) -> list[int]:
    """The words of some arrays, which must live for as long as a kernel knows them.

    Args:
        arrays: contiguous, of one dimension.
    """
    return [word for array in arrays for word in (find_address(array), len(array))]


def write_words(common: list[int], scratch: NDArray[np.float32], *, is_helper: bool) -> Words:
    """What one thread is told.

    Args:
        common: the words of all threads.
        scratch: of this thread alone.
        is_helper: another thread began what is computed.
    """
    return np.array([*common, *point_to((scratch,)), int(is_helper)], np.int64)
