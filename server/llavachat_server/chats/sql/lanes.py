"""Threads that read, and who gets one.

Contract: what is short, as a turn or what became of a request, waits for nothing that is long; what
is long, as a chat of thousands of turns, is read by tenants in turn, and of one tenant one at a
time, whether or not its caller still waits for it. What something is, is looked up first, by the
short. Nothing here blocks the event loop, to which all of it belongs.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection, Engine

from llavachat_server.chats.errors import StoreUnavailable, TooManyAtOnce
from llavachat_server.chats.sql.database import NUM_READERS
from llavachat_server.turnstile import LineFull, Turnstile

T = TypeVar("T")

NUM_LONG = 2
"""Of the threads that read."""

GONE_RETRY_SECONDS = 2.0

READ_SECONDS = 20.0
"""The longest that a caller waits for what is read: a connection that is given up, and another."""

_MAX_WAITING = 1024
_MAX_WAITING_PER_TENANT = 256
"""As many as may call: a line is bounded by the time that one waits in it."""


class Lanes:
    """Reads in threads.

    Args:
        engine: begins a transaction that reads.
        translate: what an error means to a caller; what it does not know it gives back.
        note_answer: called after each read that the database has answered.
    """

    def __init__(
        self,
        engine: Engine,
        translate: Callable[[Exception], Exception],
        note_answer: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._translate = translate
        self._note_answer = note_answer
        self._short = ThreadPoolExecutor(NUM_READERS - NUM_LONG, "store-reader")
        self._long = ThreadPoolExecutor(NUM_LONG, "store-long-reader")
        self._line = Turnstile(
            NUM_LONG,
            places_per_tenant=1,
            max_waiting=_MAX_WAITING,
            max_waiting_per_tenant=_MAX_WAITING_PER_TENANT,
        )

    def close(self, *, waits: bool) -> None:
        """Read no more; what is being read is waited for or not."""
        for threads in (self._short, self._long):
            threads.shutdown(wait=waits, cancel_futures=not waits)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do what is short.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await asyncio.wrap_future(self._short.submit(self._run, work))
        except TimeoutError:
            raise StoreUnavailable(GONE_RETRY_SECONDS) from None

    async def read_by_size(
        self, tenant: str, is_short: Callable[[Connection], bool], work: Callable[[Connection], T]
    ) -> T:
        """Do what may be long.

        Args:
            tenant: for whom.
            is_short: looks how long `work` would be, and is short itself.
            work: reads.

        Raises:
            StoreUnavailable: the database does not answer.
            TooManyAtOnce: so much is being read for this tenant that its turn did not come.
        """

        def look(connection: Connection) -> tuple[T] | None:
            return (work(connection),) if is_short(connection) else None

        found = await self.read(look)
        if found is not None:
            return found[0]
        is_in_line = True
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._line.enter(tenant)
                is_in_line = False
                return await asyncio.wrap_future(self._submit_long(tenant, work))
        except LineFull:
            raise _too_many() from None
        except TimeoutError:
            raise (_too_many() if is_in_line else StoreUnavailable(GONE_RETRY_SECONDS)) from None

    def _submit_long(self, tenant: str, work: Callable[[Connection], T]) -> "Future[T]":
        """Begin what is long, for who was let in; the place is free once the thread is."""
        loop = asyncio.get_running_loop()

        def leave(_: object) -> None:
            with suppress(RuntimeError):  # the loop has ended before the thread
                loop.call_soon_threadsafe(self._line.leave, tenant)

        try:
            done = self._long.submit(self._run, work)
        except BaseException:
            self._line.leave(tenant)
            raise
        done.add_done_callback(leave)
        return done

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                found = work(connection)
            self._note_answer()
            return found
        except Exception as error:
            meaning = self._translate(error)
            if meaning is error:
                raise
            raise meaning from error


def _too_many() -> TooManyAtOnce:
    return TooManyAtOnce(
        "reads",
        "as many long chats and large pictures are being read for this tenant as fit into "
        f"{READ_SECONDS:g} s; ask for fewer at a time",
        GONE_RETRY_SECONDS,
    )
