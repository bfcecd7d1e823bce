"""Requests as they come: what becomes of a read that nobody waits for any more."""

import asyncio

import grpc.aio
import pytest
from llavachat_server.rpc.access import RULES
from llavachat_server.rpc.incoming import Requests

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
    taking = asyncio.create_task(Requests(context, bytes, RULE).take())
    await context.is_asked.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    context.may_end.set()
    async with asyncio.timeout(20):
        await context.has_ended.wait()
