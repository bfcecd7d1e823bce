"""Health: told by us, never by default."""

import asyncio

import pytest
from grpc_health.v1 import health_pb2
from llavachat_server.ops.health import CHAT_SERVICE, Health

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


async def status(health: Health, service: str) -> int:
    """What a check of a service is told."""
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health.Check(request, None)).status


@pytest.mark.parametrize("service", ["", CHAT_SERVICE])
async def test_health_says_what_it_is_told(service: str) -> None:
    """The whole server and the chat service go together."""
    health = Health()
    health.set_serving(False)
    assert NOT_SERVING == await status(health, service)
    health.set_serving(True)
    assert SERVING == await status(health, service)


async def test_health_lists_what_it_tells_of() -> None:
    """Both names, each with its status."""
    listed = (await Health().List(health_pb2.HealthListRequest(), None)).statuses
    assert {"": NOT_SERVING, CHAT_SERVICE: NOT_SERVING} == {
        name: listed[name].status for name in listed
    }


class Watcher:
    """Keeps what a watch is told, as slowly as it likes."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[int] = asyncio.Queue()
        self.may_read = asyncio.Event()

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        """As gRPC's, which waits until the message is on its way."""
        self.told.put_nowait(response.status)
        await self.may_read.wait()


async def test_a_slow_watch_is_told_the_last_status() -> None:
    """What changed while it did not read is told at once then, and once."""
    health, watcher = Health(), Watcher()
    request = health_pb2.HealthCheckRequest(service=CHAT_SERVICE)
    watching = asyncio.create_task(health.Watch(request, watcher))
    assert NOT_SERVING == await watcher.told.get()
    health.set_serving(True)
    health.set_serving(False)
    health.set_serving(True)
    watcher.may_read.set()
    assert SERVING == await watcher.told.get()
    health.set_serving(False)
    assert NOT_SERVING == await watcher.told.get()
    watching.cancel()
    await asyncio.wait({watching})
    assert watcher.told.empty()


async def test_a_watch_of_an_unknown_service_is_told_so() -> None:
    """As the protocol asks, where a check ends with NOT_FOUND."""
    watcher = Watcher()
    request = health_pb2.HealthCheckRequest(service="no.such")
    watching = asyncio.create_task(Health().Watch(request, watcher))
    assert health_pb2.HealthCheckResponse.SERVICE_UNKNOWN == await watcher.told.get()
    watching.cancel()
