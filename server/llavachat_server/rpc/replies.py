"""Large replies on their way out: who asks and does not read holds little of the server's memory.

Contract: of one tenant a few replies that may be large are put together and sent at a time,
pictures apart from the rest; the others wait in line, and are refused when their turn does not
come. What gRPC was given it keeps until the caller's machine takes it, or the connection ends: so
the place of an unread message is not free before, and only a picture, of which gRPC has one part at
a time, can be given up. Belongs to one event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from llavachat_server.chats.errors import TooManyAtOnce
from llavachat_server.rpc.limits import MAX_RUNNING_CALLS, MAX_TENANT_CALLS
from llavachat_server.turnstile import LineFull, Turnstile

PLACES_PER_TENANT = 4
"""Replies of up to 64 MiB, and pictures of up to 49 MiB."""

WAIT_SECONDS = 20.0
"""The longest that a call stands in line, as for a thread that reads."""

WRITE_SECONDS = 30.0
"""The longest that one part of a picture may stay unread: 256 KiB at 70 kbit/s."""

_RETRY_SECONDS = 2.0


class Replies:
    """Places for replies of a kind.

    Args:
        kind: what they are, in the words of a refusal.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._line = Turnstile(
            MAX_RUNNING_CALLS,
            places_per_tenant=PLACES_PER_TENANT,
            max_waiting=MAX_RUNNING_CALLS,
            max_waiting_per_tenant=MAX_TENANT_CALLS,
        )

    async def hold(self, tenant: str) -> None:
        """Take a place until the call has ended, its reply sent.

        Raises:
            TooManyAtOnce: none became free.
        """
        task = asyncio.current_task()
        assert task is not None
        await self._enter(tenant)
        # gRPC sends the reply, and its status, in the task that asks the method.
        task.add_done_callback(lambda _: self._line.leave(tenant))

    @asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator[None]:
        """A place for as long as the block lasts.

        Raises:
            TooManyAtOnce: none became free.
        """
        await self._enter(tenant)
        try:
            yield
        finally:
            self._line.leave(tenant)

    async def _enter(self, tenant: str) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._line.enter(tenant)
        except (LineFull, TimeoutError):
            raise TooManyAtOnce(
                "replies",
                f"{PLACES_PER_TENANT} {self._kind} are sent to a tenant at a time, and those "
                "before this one have not been read; read them, or cancel their calls",
                _RETRY_SECONDS,
            ) from None


async def write_all(write: Callable[[Any], Awaitable[None]], parts: Iterable[Any]) -> bool:
    """Send parts one after the other.

    Returns:
        Whether they were read; else nothing more is sent.
    """
    for part in parts:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await write(part)
        except TimeoutError:
            return False
    return True
