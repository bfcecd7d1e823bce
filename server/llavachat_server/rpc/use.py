"""Notes that somebody calls, for whoever decides whether the machine is idle.

Contract: health checks are no use, and neither are calls that the gate refuses, so this stands
behind the gate. It must not know what a call does.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

_HEALTH = "/grpc.health.v1.Health/"


class UseNotes(grpc.aio.ServerInterceptor):
    """Tells of each call that was let in.

    Args:
        note: called when a call begins.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Note the call and let it pass."""
        if not handler_call_details.method.startswith(_HEALTH):
            self._note()
        return await continuation(handler_call_details)
