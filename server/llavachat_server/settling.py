"""Python's and the C library's memory around a start: most of what is made there stays for good.

Process-wide, so only the command calls it, and never a test's or a caller's process.
"""

import ctypes
import gc


def begin_start() -> None:
    """Collect no garbage while modules are imported and the model is loaded: there is little."""
    gc.disable()


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
