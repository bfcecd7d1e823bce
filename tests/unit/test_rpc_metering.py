"""Tokens are charged to the key that asked, as many as were made, whoever stays to read them."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import cast

import pytest
from llavachat_server.rpc.auth import CALLER, Key, hash_secret
from llavachat_server.rpc.metering import MeteredEngine
from llavachat_server.rpc.quota import Quotas
from llavachat_server.values import (
    EngineEvent,
    EngineFailed,
    EngineRequest,
    QueueFull,
    Sampling,
)
from scripted_engine import Hold, ScriptedEngine

PROMPT_IDS = (1, 2, 3)
WORDS = "one two three four five"


class NotedQuotas(Quotas):
    """Notes what is charged."""

    def __init__(self) -> None:
        super().__init__()
        self.charged: list[int] = []

    def charge(self, key: Key, num_tokens: int) -> None:
        """Note it."""
        self.charged.append(num_tokens)


@pytest.fixture
def quotas() -> Iterator[NotedQuotas]:
    """Nothing is charged yet, and a key asks."""
    before = CALLER.set(Key("anna", hash_secret("1")))
    yield NotedQuotas()
    CALLER.reset(before)


def ask(engine: ScriptedEngine, quotas: Quotas) -> AsyncGenerator[EngineEvent, None]:
    """An answer, metered."""
    request = EngineRequest("r", PROMPT_IDS, (), Sampling(max_tokens=64), 60.0)
    stream = MeteredEngine(engine, quotas).generate(request)
    return cast("AsyncGenerator[EngineEvent, None]", stream)


def count(engine: ScriptedEngine, text: str) -> int:
    """Tokens of an answer."""
    return len(engine.prompts.build_answer(text))


async def test_a_whole_answer_is_charged_once(quotas: NotedQuotas) -> None:
    """The prompt with the first event, the answer with its end."""
    engine = ScriptedEngine(WORDS)
    [event async for event in ask(engine, quotas)]
    assert [len(PROMPT_IDS), count(engine, WORDS)] == quotas.charged


async def test_who_reads_slowly_and_leaves_pays_for_what_was_made(quotas: NotedQuotas) -> None:
    """One event was read of an answer of which all is made; the engine is told to end."""
    engine = ScriptedEngine(Hold(WORDS))
    events = ask(engine, quotas)
    await anext(events)
    await events.aclose()
    assert [len(PROMPT_IDS), count(engine, WORDS)] == quotas.charged
    assert ["r"] == list(engine.cancelled)


async def test_who_is_cancelled_while_it_waits_pays_for_what_it_has_read(
    quotas: NotedQuotas,
) -> None:
    """Which is all that there was."""
    hold = Hold(WORDS)
    engine = ScriptedEngine(hold)

    async def read() -> None:
        [event async for event in ask(engine, quotas)]

    reading = asyncio.create_task(read())
    await hold.said.wait()
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()
    assert [len(PROMPT_IDS), count(engine, WORDS)] == quotas.charged


async def test_an_answer_that_fails_is_charged_as_far_as_it_came(quotas: NotedQuotas) -> None:
    """And a refused one is not."""

    class Failing(ScriptedEngine):
        """Fails after the words."""

        async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
            """See `Engine.generate`."""
            async for event in super().generate(request):
                yield event
                break
            raise EngineFailed

    engine = Failing(WORDS, QueueFull(1.0))
    with pytest.raises(EngineFailed):
        [event async for event in ask(engine, quotas)]
    assert [len(PROMPT_IDS), count(engine, "one")] == quotas.charged
    with pytest.raises(QueueFull):
        [event async for event in ask(engine, quotas)]
    assert 2 == len(quotas.charged)
