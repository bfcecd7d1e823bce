"""Requests as they come: reads that nobody waits for any more, and long messages one by one."""

import asyncio

import grpc.aio
import pytest
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.rpc.access import IMPORT_CHAT, RULES
from llavachat_server.rpc.auth import TENANT
from llavachat_server.rpc.incoming import Requests, make_walks

RULE = next(iter(RULES.values()))


class Context:
    """A call whose request comes when it may."""

    def __init__(self) -> None:
        self.is_asked, self.may_end, self.has_ended = (asyncio.Event() for _ in range(3))

    async def read(self) -> object:
        """See gRPC."""
        self.is_asked.set()
        await self.may_end.wait()
        self.has_ended.set()
        return grpc.aio.EOF


async def test_who_is_called_off_leaves_the_read_to_grpc() -> None:
    """One that is cancelled itself keeps memory for good."""
    context = Context()
    taking = asyncio.create_task(Requests(context, bytes, RULE, make_walks()).take())
    await context.is_asked.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    context.may_end.set()
    async with asyncio.timeout(20):
        await context.has_ended.wait()


class Sent:
    """A call whose request is there."""

    def __init__(self, request: pb.ImportChatRequest) -> None:
        self._data = request.SerializeToString()

    async def read(self) -> bytes:
        """See gRPC."""
        return self._data


async def test_long_messages_are_walked_one_by_one() -> None:
    """Many side by side would hold the event loop; a picture, which has few fields, waits not."""
    walks = make_walks()
    chat = pb.ImportChatRequest(chat=pb.Chat(turns=[pb.Turn(prompt="x" * 100)] * 2000))
    picture = pb.ImportChatRequest(image=bytes(100_000))

    async def take(tenant: str, request: pb.ImportChatRequest) -> pb.ImportChatRequest:
        TENANT.set(tenant)
        read = pb.ImportChatRequest.FromString
        return await Requests(Sent(request), read, RULES[IMPORT_CHAT], walks).take()

    await walks.enter("anna")
    waiting = [asyncio.create_task(take(tenant, chat)) for tenant in ("anna", "ben")]
    assert picture == await asyncio.create_task(take("anna", picture))
    for _ in range(100):  # four parts of each would be walked by now
        await asyncio.sleep(0)
    assert [False, False] == [task.done() for task in waiting]
    walks.leave("anna")
    assert [chat, chat] == await asyncio.gather(*waiting)
