"""The imports that come in, and their places: who sends nothing does not keep the others out.

Contract: a few are taken in side by side, one of each tenant. An import whose parts do not come
ends in its time, or earlier where another one wants its place. Belongs to one event loop; it must
not know what comes.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from llavachat_server.chats.errors import ImportStalled, TooManyAtOnce

T = TypeVar("T")

MAX_RUNNING = 2
"""Imports that are taken in side by side, one of each tenant: each holds its pictures."""

PART_SECONDS = 420.0
"""The longest that one part may take to arrive: the largest picture at 1 Mbit/s, and patience. Who
sends nothing is ended earlier, where another wants its place."""

LATE_SECONDS = 90.0
"""Who is later than this makes room for another import. A part is not counted before it has come
whole, and one of 10 MiB, the most that a picture's file has unless set otherwise, takes 84 s at
1 Mbit/s."""

RETRY_SECONDS = 5.0

_BYTES_PER_SECOND = 1_000_000 // 8
"""Who sends faster than this is not late: else a tiny picture every now and then would keep a
place, or a slow line could bring no large chat."""


class Arrival:
    """One import on its way."""

    def __init__(self) -> None:
        self.num_bytes = 0
        """Of what has come."""
        self._waited_seconds = 0.0
        self._waits_since = 0.0
        self._waiting: asyncio.Timeout | None = None
        self._is_over = False

    async def receive(self, parts: AsyncIterator[T]) -> T | None:
        """The next part; None: there are no more.

        Raises:
            ImportStalled: it did not come in time, or another import has the place.
        """
        self._waits_since = monotonic()
        try:
            async with asyncio.timeout(PART_SECONDS) as self._waiting:
                part = await anext(parts, None)
        except TimeoutError:
            raise ImportStalled(RETRY_SECONDS) from None
        finally:
            self._waiting = None
            self._waited_seconds += monotonic() - self._waits_since
        # It may have come in the moment in which it was given up.
        if self._is_over:
            raise ImportStalled(RETRY_SECONDS)
        return part

    def count_late_seconds(self) -> float:
        """How much longer than its bytes need it has been waited for; 0 while it is not."""
        if self._waiting is None:
            return 0.0
        waited = self._waited_seconds + monotonic() - self._waits_since
        return max(0.0, waited - self.num_bytes / _BYTES_PER_SECOND)

    def give_up(self) -> None:
        """Have `receive` end."""
        self._is_over = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())


class Arrivals:
    """All imports on their way."""

    def __init__(self) -> None:
        self._running: dict[str, Arrival] = {}

    @contextmanager
    def enter(self, tenant: str) -> Iterator[Arrival]:
        """Take a place, which is free again at the end.

        Raises:
            TooManyAtOnce: others are being taken in and none of them is late, or another one of
                this tenant is.
        """
        if tenant in self._running:
            raise _too_many("one import of a tenant is taken in at a time", "it")
        if len(self._running) >= MAX_RUNNING:
            latest = max(self._running, key=lambda each: self._running[each].count_late_seconds())
            if self._running[latest].count_late_seconds() < LATE_SECONDS:
                raise _too_many(f"{MAX_RUNNING} imports are taken in at a time", "one")
            self._running.pop(latest).give_up()
        own = self._running[tenant] = Arrival()
        try:
            yield own
        finally:
            if self._running.get(tenant) is own:
                del self._running[tenant]


def _too_many(limit: str, which: str) -> TooManyAtOnce:
    return TooManyAtOnce("imports", f"{limit}; try again when {which} has ended", RETRY_SECONDS)
