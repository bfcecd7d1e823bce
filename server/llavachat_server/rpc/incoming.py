"""The requests of one call as they come, each read within its method's limits.

Contract: a request that is too long, would take too much memory or can not be read is refused in
our words before anything is made of it; gRPC's own words would hold an exception's text. None is
kept here once it is handed over: whoever asks for it holds it alone.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc.aio

from llavachat_server.completion import complete
from llavachat_server.rpc.access import SMALL_REQUEST_BYTES, Rule
from llavachat_server.rpc.auth import TENANT
from llavachat_server.rpc.limits import MAX_RUNNING_CALLS
from llavachat_server.rpc.unpacked import Overfull, walk
from llavachat_server.turnstile import Turnstile
from llavachat_server.values import InvalidField

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_PAUSE_SECONDS = 0.001
"""After each part of a walk, which takes as long. Without a time the event loop takes Python's lock
back before a thread that waits for it has woken, the engine's for one, and each wait takes 5 ms,
Python's switch interval: beside long messages without an end an answer of three tokens took 2 s."""

_EXPECTED = "one message of the contract, in protobuf's encoding"


def make_walks() -> Turnstile:
    """The line before the one place where long messages are walked, tenants in turn.

    A walk lets others have their turn after each millisecond; sixty side by side would take sixty.
    """
    return Turnstile(
        1,
        places_per_tenant=1,
        max_waiting=MAX_RUNNING_CALLS,
        max_waiting_per_tenant=MAX_RUNNING_CALLS,
    )


class Requests:
    """See the module.

    Args:
        context: of the call.
        read: makes a message of bytes; raises what it likes for those that are none.
        rule: the method's.
        walks: see `make_walks`.
    """

    def __init__(
        self, context: Context, read: Callable[[bytes], Any], rule: Rule, walks: Turnstile
    ) -> None:
        self._context = context
        self._read = read
        self._rule = rule
        self._walks = walks
        self._put_back: list[Any] = []

    def __aiter__(self) -> "Requests":
        """All of them."""
        return self

    async def __anext__(self) -> Any:
        """See `take`."""
        if self._put_back:
            return self._put_back.pop()
        if (request := await self.take()) is None:
            raise StopAsyncIteration
        return request

    async def take(self) -> Any:
        """Wait for the next one; None where none comes any more.

        Raises:
            InvalidField: it is none that this method takes.
        """
        # Whoever is called off leaves it to gRPC, which ends it with the call. One that is
        # cancelled keeps a kilobyte for good (grpcio 1.85, github.com/grpc/grpc/issues/43360), and
        # strangers could have it do so: to begin a call and reset it takes no key.
        data = await complete(self._context.read())
        return None if data is grpc.aio.EOF else await self._unpack(data)

    def put_back(self, request: Any) -> None:
        """Have the one that was taken come first once more."""
        self._put_back.append(request)

    async def _unpack(self, data: bytes) -> Any:
        most, unpacked = self._rule.max_request_bytes, self._rule.unpacked
        if most is not None and len(data) > most:
            raise InvalidField("request", f"has {len(data):,} bytes; at most {most:,} here")
        try:
            if unpacked is not None and len(data) > SMALL_REQUEST_BYTES:
                await self._walk(walk(data, unpacked.kind, unpacked.max_bytes))
            return self._read(data)
        except Overfull:
            raise InvalidField("request", "has far more fields than any that is taken") from None
        except Exception:  # whatever the library raises, and none of it is for the caller
            raise InvalidField("request", _EXPECTED) from None

    async def _walk(self, parts: Iterator[None]) -> None:
        # Nearly every message has one part, which is no longer than a turn in line would be.
        if next(parts, self) is self:
            return
        tenant = TENANT.get()
        await self._walks.enter(tenant)
        try:
            for _ in parts:
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._walks.leave(tenant)
