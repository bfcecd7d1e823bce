"""Work on a chat's turns, aside of the event loop where it would hold others up."""

import asyncio
import sys
from collections.abc import Callable
from time import sleep
from typing import TypeVar

from llavachat_server.completion import complete
from llavachat_server.turnstile import Turnstile

T = TypeVar("T")

_GIVE_WAY_TURNS = 16
_GIVE_WAY_SECONDS = 0.0001
"""Python's lock is given up so often and so long while turns are read: whoever else wants it, an
answer's event loop first of all, would wait 5 ms each time that it does, Python's switch interval,
and here waits for 16 turns, about 1 ms. To read 9,000 turns of a database takes 0.5 s
with it and 0.34 without, medians of five on two cores."""


class Aside:
    """A place for one work at a time, tenants in turn: those who ask need the other cores.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        # Each that waits is a call, of which there may be so many and no more.
        self._line = Turnstile(
            1, places_per_tenant=1, max_waiting=sys.maxsize, max_waiting_per_tenant=sys.maxsize
        )

    async def do(self, tenant: str, work: Callable[[], T], *, is_long: bool) -> T:
        """Do it in a thread, once it is its turn, or at once where that is quicker than to wait."""
        if not is_long:
            return work()
        await self._line.enter(tenant)
        working = asyncio.ensure_future(asyncio.to_thread(work))
        # Not when the caller goes: the thread works on.
        working.add_done_callback(lambda _: self._line.leave(tenant))
        return await complete(working)


def give_way(num_turns: int) -> None:
    """Let others go on, in a thread that has read so many of a chat's turns; call it after each."""
    if num_turns % _GIVE_WAY_TURNS == 0:
        sleep(_GIVE_WAY_SECONDS)
