"""Health: told by us, never by default, and only after a real answer."""

import pytest
from grpc_health.v1 import health_pb2
from llavachat_server.images.intake import Intake
from llavachat_server.ops.health import CHAT_SERVICE, Health, WarmUpFailed, warm_up
from scripted_engine import ScriptedEngine

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


async def test_warming_up_asks_about_a_picture(intake: Intake) -> None:
    """The engine gets a picture by the way of all, and its answer's tokens are counted."""
    engine = ScriptedEngine("A red circle.")
    num_tokens = await warm_up(engine, intake)
    assert len(engine.prompts.encode_text("A red circle.")) == num_tokens
    (request,) = engine.requests
    assert 1 == len(request.images)
    assert (220, 30, 30) == request.images[0].pixels.getpixel((112, 112))


async def test_an_empty_answer_is_no_answer(intake: Intake) -> None:
    """A model that says nothing does not serve."""
    with pytest.raises(WarmUpFailed):
        await warm_up(ScriptedEngine(""), intake)
