"""Health: what checks are told, from the moment that a port opens.

Contract: grpc.health.v1, for the whole server and for the chat service alike. grpc's own servicer
is born as SERVING; here it is told otherwise before. It must not know what it is that serves.
"""

from grpc_health.v1 import health, health_pb2

CHAT_SERVICE = "llavachat.v1.ChatService"


class Health:
    """What health checks are told."""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()

    async def set_serving(self, is_serving: bool) -> None:
        """Say SERVING or NOT_SERVING from now on."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if is_serving else status.NOT_SERVING
        for service in ("", CHAT_SERVICE):
            await self.servicer.set(service, value)
