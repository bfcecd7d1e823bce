"""Work that goes on to its end, whether or not whoever began it stays."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def complete(work: Awaitable[T]) -> T:
    """Wait for work that is not cancelled with whoever waits; if it fails then, nobody is told.

    From Python 3.14 on `asyncio.shield` would tell the event loop, which writes a stack into the
    log. The work is held by what it waits for, as any task is.

    Returns:
        What the work does.

    Raises:
        Exception: the work's, to one who stays.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_forget)
    await asyncio.wait({task})
    try:
        return task.result()
    finally:
        # An error holds the frames that it comes through: they would hold it, too, in a ring.
        del work, task


def _forget(task: "asyncio.Future[Any]") -> None:
    # Else Python tells, once the task is let go of, that its error was not looked at.
    if not task.cancelled():
        task.exception()
