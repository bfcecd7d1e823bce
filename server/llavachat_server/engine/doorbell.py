"""Wakes an event loop from a thread that goes on computing.

`call_soon_threadsafe` gives up Python's lock while it writes to the loop's socket. The loop's
thread, just woken by that, takes it, and the writer waits until the loop has nothing more to do.
Here the lock is kept, and the loop's thread begins when the writer gives it up for something that
takes longer.
"""

import asyncio
import ctypes
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

_MAX_RINGS = 4096
"""Read at once; more than can be waiting where calls are not posted by the thousand."""

# Unlike `CDLL`, this calls with the lock held. The pipe never blocks.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)


class Doorbell:
    """Calls functions on an event loop, one after another as they were posted.

    Args:
        loop: on whose thread this is made and closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
            # Not by `close`: another thread may just be about to write.
            weakref.finalize(self, os.close, end)
        loop.add_reader(self._reader, self._answer)

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have the event loop call a function soon, unless it is closed; from any thread."""
        self._calls.append((call, arguments))
        # A full pipe is as good: the loop has not looked yet, and will find all calls.
        _write(self._writer, b"\0", 1)

    def close(self) -> None:
        """Call nothing more."""
        self._loop.remove_reader(self._reader)
        self._calls.clear()

    def _answer(self) -> None:
        os.read(self._reader, _MAX_RINGS)
        # Not those that are posted meanwhile: they have rung again.
        for _ in range(len(self._calls)):
            call, arguments = self._calls.popleft()
            try:
                call(*arguments)
            except Exception as error:
                context = {"message": "a call from another thread failed", "exception": error}
                self._loop.call_exception_handler(context)
