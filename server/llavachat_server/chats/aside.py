"""Work on a chat's turns, aside of the event loop where it would hold others up."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def do_aside(work: Callable[[], T], *, is_long: bool) -> T:
    """Do it in a thread, or at once where that is quicker than to begin one."""
    return await asyncio.to_thread(work) if is_long else work()
