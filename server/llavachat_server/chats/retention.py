"""Erases chats that nobody has used for long, a few at a time, quietly."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from llavachat_server.chats.errors import ChatError, NotFound

log = logging.getLogger("llavachat.retention")

FindIdle = Callable[[datetime, int], Awaitable[Sequence[tuple[str, str]]]]
"""Chats last used before a time, the longest ago first, so many at most: (tenant, chat id)."""

EraseChat = Callable[[str, str], Awaitable[None]]

PAUSE_SECONDS = 600.0
BATCH = 100


async def find_none(before: datetime, limit: int) -> Sequence[tuple[str, str]]:
    """For stores that forget by themselves."""
    return ()


async def retire(find_idle: FindIdle, erase: EraseChat, max_age: timedelta) -> int:
    """Erase what is older than `max_age` now; how many chats that were."""
    num_erased = 0
    while True:
        idle = await find_idle(datetime.now(UTC) - max_age, BATCH)
        for tenant, chat_id in idle:
            try:
                await erase(tenant, chat_id)
                num_erased += 1
            except NotFound:
                continue
        if len(idle) < BATCH:
            return num_erased


async def retire_for_ever(find_idle: FindIdle, erase: EraseChat, max_age: timedelta) -> None:
    """Erase what is older than `max_age`, now and every ten minutes."""
    while True:
        try:
            num_erased = await retire(find_idle, erase, max_age)
        except ChatError as error:
            log.warning("retention waits: %s", error)
        else:
            if num_erased:
                log.info("retention", extra={"fields": {"num_erased": num_erased}})
        await asyncio.sleep(PAUSE_SECONDS)
