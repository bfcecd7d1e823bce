"""Health: what checks are told, from the moment that a port opens.

Contract: grpc.health.v1, for the whole server and for the chat service alike; whoever watches and
does not read holds up nobody. grpc's own servicer writes to a watch under the lock that it needs to
change a status. It must not know what it is that serves.
"""

import asyncio
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

CHAT_SERVICE = "llavachat.v1.ChatService"

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """What health checks are told: NOT_SERVING until something else is said."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self.set_serving(False)

    def set_serving(self, is_serving: bool) -> None:
        """Say SERVING or NOT_SERVING from now on."""
        status = _Response.SERVING if is_serving else _Response.NOT_SERVING
        self._statuses = dict.fromkeys(("", CHAT_SERVICE), status)
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802
        """See grpc.health.v1."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _Response(status=status)

    async def List(self, request: Any, context: Context) -> Any:  # noqa: N802
        """See grpc.health.v1."""
        statuses = {name: _Response(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802
        """See grpc.health.v1; who reads slowly gets the last status, not each."""
        told: int | None = None
        while True:
            # Taken first: what changes during the write is told after it.
            changed = self._changed
            status = self._statuses.get(request.service, _Response.SERVICE_UNKNOWN)
            if status != told:
                await context.write(_Response(status=status))
                told = status
            await changed.wait()
