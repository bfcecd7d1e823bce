"""Places for large replies: how long one is kept, and how long one is waited for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from llavachat_server.rpc.replies import (
    PLACES_PER_TENANT,
    SMALL_REPLY_BYTES,
    Place,
    Replies,
)

TENANT = "anna"


@asynccontextmanager
async def full(replies: Replies) -> AsyncIterator[tuple[AsyncExitStack, list[Place]]]:
    """All places of a tenant are taken, and one more call waits."""

    async def wait() -> None:
        async with replies.place(TENANT):
            pass

    async with AsyncExitStack() as stack:
        places = [
            await stack.enter_async_context(replies.place(TENANT)) for _ in range(PLACES_PER_TENANT)
        ]
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        yield stack, places
    await waiting


def read_end(replies: Replies) -> float | None:
    """When the call that waits is refused."""
    (wait,) = replies._waits[TENANT]
    return wait.timer.when()


async def test_nobody_is_refused_while_a_reply_is_put_together() -> None:
    """The time begins once all of them depend on their callers, and anew at each part."""
    replies = Replies("pictures")
    async with full(replies) as (_, places):
        for place in places:
            assert read_end(replies) is None
            place.note_part()
        ends = [read_end(replies)]
        for _ in range(3):
            await asyncio.sleep(0)
            places[0].note_part()
            ends.append(read_end(replies))
    assert sorted(set(ends)) == ends
    assert not replies._num_making


@pytest.mark.parametrize(
    ("num_bytes", "num_kept"), [(SMALL_REPLY_BYTES, 0), (SMALL_REPLY_BYTES + 1, 2)]
)
async def test_a_reply_keeps_its_place_until_it_is_sent_unless_it_is_small(
    num_bytes: int, num_kept: int
) -> None:
    """One that was put together in its place, and one that came to it whole."""
    replies, is_sent = Replies("chats"), asyncio.Event()

    async def put_together() -> None:
        async with replies.place(TENANT) as place:
            place.keep(num_bytes)
        await is_sent.wait()

    async def bring() -> None:
        await replies.hold(TENANT, num_bytes)
        await is_sent.wait()

    calls = [asyncio.create_task(call()) for call in (put_together, bring)]
    await asyncio.sleep(0)
    assert num_kept == replies._line._inside[TENANT]
    is_sent.set()
    await asyncio.gather(*calls)
    await asyncio.sleep(0)
    assert 0 == replies._line._inside[TENANT]
