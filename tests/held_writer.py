"""A store's writer that does nothing for a while, so that works gather before it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llavachat_server.chats.sql.store import SqlStore


@asynccontextmanager
async def hold_writer(store: SqlStore) -> AsyncIterator[None]:
    """Inside, what is submitted waits."""
    holding, free = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        holding.set()
        free.wait()

    held = store._writer.submit(hold)
    await asyncio.to_thread(holding.wait)
    try:
        yield
    finally:
        free.set()
    await asyncio.wrap_future(held)
