"""Erases chats wholly: from the store, and from all that the engine has cached.

Contract: an erasure that has begun goes on to its end, whether or not its caller stays.
"""

import asyncio

from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.store import ChatStore
from llavachat_server.interfaces import Engine


class Eraser:
    """Erases chats.

    Args:
        engine: may have cached what is in them.
        store: keeps them.
    """

    def __init__(self, engine: Engine, store: ChatStore) -> None:
        self._engine = engine
        self._store = store
        self._erasing: set[asyncio.Task[None]] = set()

    async def erase(self, tenant: str, chat_id: str) -> None:
        """Erase a chat; who is cancelled in this leaves it to its end.

        Raises:
            NotFound: no such chat.
        """
        erasing = asyncio.create_task(self._erase(tenant, chat_id))
        self._erasing.add(erasing)
        erasing.add_done_callback(self._erasing.discard)
        await asyncio.shield(erasing)

    async def wait(self, max_seconds: float) -> None:
        """Wait until what has begun is done, no longer than this."""
        if self._erasing:
            await asyncio.wait(set(self._erasing), timeout=max_seconds)

    async def _erase(self, tenant: str, chat_id: str) -> None:
        is_there = True
        try:
            await self._store.delete_chat(tenant, chat_id)
        except NotFound:
            is_there = False
            raise
        finally:
            # Also where it failed: a store that could not say what it did may have done it.
            if is_there:
                self._engine.forget(tenant, chat_id)
