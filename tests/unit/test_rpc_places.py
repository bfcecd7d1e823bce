"""Places: a tenant's share, and who makes room when requests do not come."""

import asyncio
from typing import Any

from llavachat_server.rpc.access import Rule
from llavachat_server.rpc.auth import Key
from llavachat_server.rpc.call import Call
from llavachat_server.rpc.places import Places


def open_call(places: Places, tenant: str) -> tuple[Call, "asyncio.Task[Any]"]:
    """A call that is let in and whose request does not come."""
    task: asyncio.Task[Any] = asyncio.ensure_future(asyncio.Event().wait())
    key = Key(tenant, b"") if tenant else None
    call = Call(key, Rule(None), task, places.take_request)
    places.enter(call)
    return call, task


async def test_a_tenant_has_a_share() -> None:
    """What is over it is refused; the neighbour's is not."""
    places = Places(max_waiting=10, max_of_tenant=2)
    first, _ = open_call(places, "anna")
    open_call(places, "anna")
    refused = places.refuse("anna")
    assert refused is not None
    assert "at most 2 calls of one tenant run side by side" == refused.message
    assert places.refuse("ben") is None
    places.leave(first)
    assert places.refuse("anna") is None


async def test_the_oldest_of_the_largest_makes_room() -> None:
    """A flood of calls without requests ends itself, not the patient neighbour's upload."""
    places = Places(max_waiting=3, max_of_tenant=100)
    _, upload = open_call(places, "ben")
    flood = [open_call(places, "")[1] for _ in range(5)]
    await asyncio.sleep(0)
    assert [True, True, True, False, False] == [task.cancelled() for task in flood]
    assert not upload.cancelled()


async def test_a_request_that_came_is_safe() -> None:
    """Only who has not sent anything makes room."""
    places = Places(max_waiting=1, max_of_tenant=100)
    call, task = open_call(places, "anna")
    places.take_request(call)
    _, second = open_call(places, "anna")
    await asyncio.sleep(0)
    assert [False, False] == [task.cancelled(), second.cancelled()]
    assert 2 == len(places.list_calls())
    places.leave(call)
    assert 1 == len(places.list_calls())
