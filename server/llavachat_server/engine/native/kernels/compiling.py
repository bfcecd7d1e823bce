"""How the kernels are compiled: without Python's lock, and without what lets Python call each.

Only `entries` are called from outside, and not by Python: to make the rest callable as well takes a
sixth of the time that compiling does.
"""

from typing import Any

from numba import njit

_OPTIONS: Any = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

kernel = njit(**_OPTIONS)
"""A function that other kernels call."""

inlined = njit(inline="always", **_OPTIONS)
"""One whose body takes the place of its call."""
