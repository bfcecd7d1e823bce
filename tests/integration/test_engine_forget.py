"""What is cached for an owner goes when the owner is forgotten; what others use stays."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from engine_reference import ask, build_request, draw_picture, make_engine
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.profiles import SHAPES_FOLDER
from llavachat_server.values import Delta, EngineEvent, EngineRequest, Finished, FinishReason

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURE_TOKENS = 64
QUESTION = "What is in the picture, and where is it?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[BatchingEngine]:
    """A small engine."""
    engine = make_engine(SHAPES_FOLDER)
    await engine.start()
    yield engine
    await engine.stop()


def request(
    engine: BatchingEngine, tenant: str, owner: str, seed: int, **more: int
) -> EngineRequest:
    """The question about a picture, in somebody's chat."""
    name = f"{tenant}-{owner}-{len(engine._runs)}"
    made = build_request(engine, name, QUESTION, [draw_picture(seed)], tenant=tenant, **more)
    return replace(made, owner=owner)


async def count_cached(engine: BatchingEngine, *arguments: str | int) -> int:
    """Tokens of the prompt that were found in the cache."""
    _, end = await ask(engine, request(engine, *arguments))  # type: ignore[arg-type]
    return end.usage.cached_tokens


async def test_a_forgotten_chat_leaves_nothing_to_be_found(engine: BatchingEngine) -> None:
    """The same question about the same picture begins from nothing, and is answered the same."""
    first, _ = await ask(engine, request(engine, "one", "chat-1", 1))
    assert PICTURE_TOKENS < await count_cached(engine, "one", "chat-1", 1)
    slots = engine._pictures._bank._slots
    num_pictures = sum(slot.key is not None for slot in slots)
    engine.forget("one", "chat-1")
    assert num_pictures - 1 == sum(slot.key is not None for slot in slots)
    assert 0 == await count_cached(engine, "one", "chat-1", 1)
    engine.forget("one", "chat-1")
    again, _ = await ask(engine, request(engine, "one", "chat-1", 1))
    assert first == again


async def test_another_chat_keeps_what_it_shares(engine: BatchingEngine) -> None:
    """The picture's prefix stays for the one, until that is forgotten too."""
    for owner in ("chat-1", "chat-2"):
        await count_cached(engine, "two", owner, 2)
    engine.forget("two", "chat-1")
    assert PICTURE_TOKENS < await count_cached(engine, "two", "chat-2", 2)
    engine.forget("two", "chat-2")
    assert 0 == await count_cached(engine, "two", "chat-3", 2)


async def test_another_tenants_chat_of_the_same_name_is_another(engine: BatchingEngine) -> None:
    """Nobody forgets for somebody else."""
    await count_cached(engine, "three", "chat-1", 3)
    engine.forget("four", "chat-1")
    assert PICTURE_TOKENS < await count_cached(engine, "three", "chat-1", 3)


async def test_what_runs_is_cancelled_and_forgotten(engine: BatchingEngine) -> None:
    """A request that is being answered ends, and leaves nothing behind either."""
    events: list[EngineEvent] = []
    async for event in engine.generate(request(engine, "five", "chat-1", 4, max_tokens=400)):
        if isinstance(event, Delta) and not events:
            engine.forget("five", "chat-1")
        events.append(event)
    assert isinstance(events[-1], Finished)
    assert FinishReason.CANCELLED is events[-1].finish_reason
    assert 0 == await count_cached(engine, "five", "chat-1", 4)


async def test_nobodys_caches_stay(engine: BatchingEngine) -> None:
    """Without an owner nothing is forgotten by name."""
    await count_cached(engine, "six", "", 5)
    engine.forget("six", "")
    assert PICTURE_TOKENS < await count_cached(engine, "six", "", 5)
