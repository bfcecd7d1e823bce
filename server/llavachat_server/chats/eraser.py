"""Erases chats wholly: from the store, and from all that the engine has cached.

Contract: an erasure that has begun goes on to its end, whether or not its caller stays.
"""

import asyncio
from collections.abc import Coroutine

from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.store import ChatStore, IdleChat
from llavachat_server.completion import complete
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
        self._erasing: set[asyncio.Task[bool]] = set()

    async def erase(self, tenant: str, chat_id: str) -> None:
        """Erase a chat; who is cancelled in this leaves it to its end.

        Raises:
            NotFound: no such chat.
        """

        async def delete() -> bool:
            await self._store.delete_chat(tenant, chat_id)
            return True

        await self._see_through(tenant, chat_id, delete())

    async def retire(self, idle: IdleChat) -> bool:
        """Erase a chat that was not used since it was found; whether it was erased.

        Raises:
            NotFound: no such chat.
        """
        return await self._see_through(idle.tenant, idle.id, self._store.retire_chat(idle))

    async def wait(self, max_seconds: float) -> None:
        """Wait until what has begun is done, no longer than this."""
        if self._erasing:
            await asyncio.wait(set(self._erasing), timeout=max_seconds)

    async def _see_through(
        self, tenant: str, chat_id: str, erase: Coroutine[None, None, bool]
    ) -> bool:
        erasing = asyncio.create_task(self._erase(tenant, chat_id, erase))
        self._erasing.add(erasing)
        erasing.add_done_callback(self._erasing.discard)
        return await complete(erasing)

    async def _erase(self, tenant: str, chat_id: str, erase: Coroutine[None, None, bool]) -> bool:
        # Where it fails: a store that could not say what it did may have done it.
        may_be_gone = True
        try:
            may_be_gone = await erase
        except NotFound:
            may_be_gone = False
            raise
        finally:
            if may_be_gone:
                self._engine.forget(tenant, chat_id)
        return may_be_gone
