"""`asyncio.shield` as Python 3.14 has it, for tests that an older one runs.

It tells the event loop of an error that comes after its caller was cancelled. Source:
`Lib/asyncio/tasks.py` of CPython 3.14.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any


def shield(work: Awaitable[Any]) -> "asyncio.Future[Any]":
    """Wait for work that is not cancelled with its caller."""
    inner = asyncio.ensure_future(work)
    if inner.done():
        return inner
    loop = asyncio.get_running_loop()
    outer: asyncio.Future[Any] = loop.create_future()

    def tell(inner: "asyncio.Future[Any]") -> None:
        if not inner.cancelled() and (error := inner.exception()) is not None:
            message = f"{type(error).__name__} exception in shielded future"
            loop.call_exception_handler({"message": message, "exception": error, "future": inner})

    def pass_on(inner: "asyncio.Future[Any]") -> None:
        if outer.cancelled():
            return
        if inner.cancelled():
            outer.cancel()
        elif (error := inner.exception()) is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())

    def leave(_: "asyncio.Future[Any]") -> None:
        if not inner.done():
            inner.remove_done_callback(pass_on)
            inner.add_done_callback(tell)

    inner.add_done_callback(pass_on)
    outer.add_done_callback(leave)
    return outer
