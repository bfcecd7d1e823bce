"""The gate before every method: is the server ready, and may this caller in?

Contract: everything is refused unless it is let through here; health checks always pass. A
refused call is ended before its body is read: it is answered as a stream of requests whose
first one is never asked for.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Any, TypeAlias

import grpc
import grpc.aio

from llavachat_server.rpc.auth import OPEN_TENANT, TENANT, KeyRing
from llavachat_server.rpc.status import Refusal, retry

_HEALTH = "/grpc.health.v1.Health/"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_START_RETRY_SECONDS = 2.0
_STOP_RETRY_SECONDS = 5.0
_QUIET_SECONDS = 0.1

UNAUTHENTICATED = Refusal(
    grpc.StatusCode.UNAUTHENTICATED, "send the header `authorization: Bearer KEY` with a valid key"
)


class GateState(Enum):
    """What the gate does with calls."""

    STARTING = "starting"
    OPEN = "open"
    STOPPING = "stopping"


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls in.

    Args:
        keys: who may call; None lets everybody in, as one tenant.
    """

    def __init__(self, keys: KeyRing | None) -> None:
        self.state = GateState.STARTING
        self._keys = keys
        self._calls: set[asyncio.Task[Any]] = set()
        self._num_arrived = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Let one call through, or put a refusal in its handler's place."""
        if handler_call_details.method.startswith(_HEALTH):
            return await continuation(handler_call_details)
        self._count_call()
        tenant = self._tenant(handler_call_details)
        if tenant is None:
            return _refuse(UNAUTHENTICATED)
        if self.state is GateState.STARTING:
            return _refuse(
                retry(grpc.StatusCode.UNAVAILABLE, "the server is starting", _START_RETRY_SECONDS)
            )
        if self.state is GateState.STOPPING:
            return _refuse(
                retry(grpc.StatusCode.UNAVAILABLE, "the server is stopping", _STOP_RETRY_SECONDS)
            )
        TENANT.set(tenant)
        return await continuation(handler_call_details)

    async def wait_until_idle(self, max_seconds: float) -> None:
        """Wait until every call has got its status and none has come for a moment.

        gRPC ends what it has not handed over, or not finished, when it closes as CANCELLED.

        Args:
            max_seconds: no longer than this.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(max_seconds):
                num_seen = -1
                while self._calls or num_seen != self._num_arrived:
                    num_seen = self._num_arrived
                    if self._calls:
                        await asyncio.wait(self._calls)
                    await asyncio.sleep(_QUIET_SECONDS)

    def _count_call(self) -> None:
        # gRPC answers each call, from here to its status, in one task.
        task = asyncio.current_task()
        if task is not None:
            self._num_arrived += 1
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    def _tenant(self, details: grpc.HandlerCallDetails) -> str | None:
        if self._keys is None:
            return OPEN_TENANT
        headers = [value for key, value in details.invocation_metadata if key == "authorization"]
        if len(headers) != 1 or not isinstance(headers[0], str):
            return None
        return self._keys.tenant(headers[0])


def _refuse(refusal: Refusal) -> Handler:
    async def end(_: AsyncIterator[Any], context: Any) -> None:
        await context.abort(refusal.code, refusal.message, refusal.trailing_metadata())

    return grpc.stream_stream_rpc_method_handler(end)
