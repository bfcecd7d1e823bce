"""Health: told by us, never by default."""

import pytest
from grpc_health.v1 import health_pb2
from llavachat_server.ops.health import CHAT_SERVICE, Health

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


async def status(health: Health, service: str) -> int:
    """What a check of a service is told."""
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health.servicer.Check(request, None)).status


@pytest.mark.parametrize("service", ["", CHAT_SERVICE])
async def test_health_says_what_it_is_told(service: str) -> None:
    """The whole server and the chat service go together."""
    health = Health()
    await health.set_serving(False)
    assert NOT_SERVING == await status(health, service)
    await health.set_serving(True)
    assert SERVING == await status(health, service)
