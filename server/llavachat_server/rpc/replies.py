"""Large replies on their way out: who asks and does not read holds little of the server's memory.

Contract: of one tenant a few replies that may be large are put together and sent at a time,
pictures apart from the rest; the others wait in line. They are refused where nothing moves before
them any more: no reply is being put together, none ends, and of no picture a part is read. What
gRPC was given it keeps until the caller's machine takes it, or the connection ends: so the place of
an unread message is not free before, and only a picture, of which gRPC has one part at a time, can
be given up. Belongs to one event loop.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from llavachat_server.chats.errors import StoreUnavailable, TooManyAtOnce
from llavachat_server.rpc.limits import MAX_RUNNING_CALLS, MAX_TENANT_CALLS
from llavachat_server.turnstile import LineFull, Turnstile

PLACES_PER_TENANT = 4
"""Replies of up to 64 MiB, and pictures of up to 49 MiB."""

SMALL_REPLY_BYTES = 64 * 1024
"""What is no longer needs no place to be sent: as much of it as there may be calls takes 16 MiB."""

WAIT_SECONDS = 20.0
"""The longest that a call stands in line while nothing moves, as for a thread that reads."""

WRITE_SECONDS = 120.0
"""The longest that one part of a picture may stay unread: four of 256 KiB, one of each place, share
a line of 70 kbit/s."""

_RETRY_SECONDS = 2.0


@dataclass(eq=False)
class _Wait:
    """A call that stands in line. Why it ends before its turn, where that is known."""

    timer: asyncio.Timeout
    error: StoreUnavailable | None = None

    @property
    def is_over(self) -> bool:
        """It ends, and nothing that moves now changes that."""
        return self.error is not None or self.timer.expired()


class Place:
    """Of one reply, from before it is put together.

    Args:
        note_progress: called where what stands in line has reason to wait on. Gets whether the
            reply is put together now.
    """

    def __init__(self, note_progress: Callable[[bool], None]) -> None:
        self._note_progress = note_progress
        self.is_made = False
        """Nothing of it is to be read or put together any more."""
        self.is_kept = False
        """It lasts until the call has ended, the reply sent."""

    def note_part(self) -> None:
        """The next part goes out: those before it were read, and the file is there."""
        is_first, self.is_made = not self.is_made, True
        self._note_progress(is_first)

    def keep(self, num_bytes: int) -> None:
        """The reply is put together and goes out as a whole."""
        self.is_kept = num_bytes > SMALL_REPLY_BYTES


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
        self._num_making: Counter[str] = Counter()
        self._waits: dict[str, set[_Wait]] = {}

    async def hold(self, tenant: str, num_bytes: int) -> None:
        """Take a place, for a reply that is put together, until the call has ended, the reply sent.

        Raises:
            TooManyAtOnce: none became free.
            StoreUnavailable: what stands before this one was told so.
        """
        if num_bytes > SMALL_REPLY_BYTES:
            await self._enter(tenant)
            self._leave_with_call(tenant)

    @asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator[Place]:
        """A place for as long as the block lasts, or as `Place` says.

        Raises:
            TooManyAtOnce, StoreUnavailable: see `hold`.
        """
        await self._enter(tenant)
        self._num_making[tenant] += 1
        place = Place(lambda is_made: self._note_progress(tenant, is_made=is_made))
        try:
            yield place
        except StoreUnavailable as error:
            # One after the other they would wait for the same answer.
            self._refuse_all(tenant, error)
            raise
        finally:
            if place.is_kept:
                self._leave_with_call(tenant)
            else:
                self._line.leave(tenant)
            self._note_progress(tenant, is_made=not place.is_made)

    def _leave_with_call(self, tenant: str) -> None:
        task = asyncio.current_task()
        assert task is not None

        def leave(_: object) -> None:
            self._line.leave(tenant)
            self._note_progress(tenant)

        # gRPC sends the reply, and its status, in the task that asks the method.
        task.add_done_callback(leave)

    async def _enter(self, tenant: str) -> None:
        waits = self._waits.setdefault(tenant, set())
        wait = _Wait(asyncio.timeout_at(self._find_end(tenant)))
        try:
            async with wait.timer:
                waits.add(wait)
                await self._line.enter(tenant)
        except (LineFull, TimeoutError):
            if wait.error is not None:
                raise replace(wait.error) from None
            raise TooManyAtOnce(
                "replies",
                f"{PLACES_PER_TENANT} {self._kind} are being put together or sent to this tenant, "
                "as many as may be at a time; read them, cancel their calls, or try again later",
                _RETRY_SECONDS,
            ) from None
        finally:
            waits.discard(wait)
            if not waits and self._waits.get(tenant) is waits:
                del self._waits[tenant]

    def _find_end(self, tenant: str) -> float | None:
        """When a wait ends if nothing moves; None while something is being put together."""
        if self._num_making[tenant]:
            return None
        return asyncio.get_running_loop().time() + WAIT_SECONDS

    def _note_progress(self, tenant: str, *, is_made: bool = False) -> None:
        if is_made:
            self._num_making -= Counter((tenant,))
        end = self._find_end(tenant)
        for wait in self._waits.get(tenant, ()):
            if not wait.is_over:
                wait.timer.reschedule(end)

    def _refuse_all(self, tenant: str, error: StoreUnavailable) -> None:
        for wait in self._waits.get(tenant, ()):
            if not wait.is_over:
                wait.error = error
                wait.timer.reschedule(asyncio.get_running_loop().time())


async def write_all(
    write: Callable[[Any], Awaitable[None]],
    parts: Iterable[Any],
    note_part: Callable[[], None],
) -> bool:
    """Send parts one after the other.

    Args:
        write: sends one.
        parts: all of them.
        note_part: called before each.

    Returns:
        Whether they were read; else nothing more is sent.
    """
    for part in parts:
        note_part()
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await write(part)
        except TimeoutError:
            return False
    return True
