"""Erases chats that nobody has used for long, and the oldest where they take too much; quietly.

Contract: a chat that is being answered stays, and so does one that was used since it was found to
be due; what is erased was used longer ago than what stays of all that are not being answered. It
knows when chats were used and what they take, and must not know what is in them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from llavachat_server.chats.errors import ChatError, NotFound
from llavachat_server.chats.store import IdleChat

log = logging.getLogger("llavachat.retention")

EraseChat = Callable[[IdleChat], Awaitable[bool]]
"""Erases a chat; False: not now, it is being answered or was used since it was found."""

AGE_PAUSE_SECONDS = 600.0
SIZE_PAUSE_SECONDS = 10.0
"""Bounds by how much the chats may outgrow their limit in the meantime."""

BATCH = 100

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


class KeptChats(Protocol):
    """What a store tells about all tenants' chats."""

    async def find_idle(self, before: datetime, limit: int) -> Sequence[IdleChat]:
        """Chats without a running turn that were last used before a time, so many at most.

        Returns:
            The one that was used longest ago first.
        """
        ...

    async def count_bytes(self) -> int:
        """About what all chats take."""
        ...

    async def count_own_bytes(self, tenant: str, chat_id: str) -> int:
        """About what the erasure of a chat would free; 0 where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How long chats stay.

    Args:
        chats: of which store.
        erase: erases one.
        max_age: since its last use. None: any.
        max_bytes: of all of them together. None: any.
    """

    chats: KeptChats
    erase: EraseChat
    max_age: timedelta | None = None
    max_bytes: int | None = None

    async def run(self) -> None:
        """Erase what is due, now and for ever; what fails is told, and tried again."""
        while True:
            try:
                num_erased = await self.retire()
            except ChatError as error:
                log.warning("retention waits: %s", error)
            except Exception:
                # Whatever it is: who is not told would find the disk full some day.
                log.exception("retention failed")
            else:
                if num_erased:
                    log.info("retention", extra={"fields": {"num_erased": num_erased}})
            await asyncio.sleep(AGE_PAUSE_SECONDS if self.max_bytes is None else SIZE_PAUSE_SECONDS)

    async def retire(self) -> int:
        """Erase what is due now; how many chats that were.

        Raises:
            StoreFull, StoreUnavailable: what was erased until then stays erased.
        """
        num_erased = 0
        if self.max_age is not None:
            num_erased += await self._retire_old(datetime.now(UTC) - self.max_age)
        if self.max_bytes is not None:
            num_erased += await self._retire_surplus(self.max_bytes)
        return num_erased

    async def _retire_old(self, before: datetime) -> int:
        num_erased = 0
        while True:
            idle = await self.chats.find_idle(before, BATCH)
            erased = [chat for chat in idle if await self._erase(chat)]
            num_erased += len(erased)
            if len(idle) < BATCH or not erased:
                return num_erased

    async def _retire_surplus(self, max_bytes: int) -> int:
        num_erased = 0
        while (surplus := await self.chats.count_bytes() - max_bytes) > 0:
            num_before = num_erased
            for chat in await self.chats.find_idle(_END_OF_TIME, BATCH):
                if surplus <= 0:
                    break
                own_bytes = await self.chats.count_own_bytes(chat.tenant, chat.id)
                if await self._erase(chat):
                    surplus -= own_bytes
                    num_erased += 1
            if num_erased == num_before:
                break
        return num_erased

    async def _erase(self, chat: IdleChat) -> bool:
        try:
            return await self.erase(chat)
        except NotFound:
            return False
