"""Work that goes on when whoever waits for it is gone: to its end, and without a word."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import later_shield
import pytest
from chat_room import make_turns
from llavachat_server.chats.eraser import Eraser
from llavachat_server.chats.errors import StoreUnavailable
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import NewChat, Question
from llavachat_server.completion import complete
from llavachat_server.values import FinishReason
from scripted_engine import Hold, ScriptedEngine


class FailingStore(MemoryStore):
    """Fails to end a turn and to erase a chat, once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_fail, self.has_failed = (asyncio.Event() for _ in range(3))

    async def fail(self, *_: Any) -> None:
        """Wait, then fail."""
        self.is_asked.set()
        await self.may_fail.wait()
        self.has_failed.set()
        raise StoreUnavailable(1.0)

    delete_chat = finish_turn = fail


class DeafEngine(ScriptedEngine):
    """Cancels nothing."""

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Go on."""


@pytest.fixture
async def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the event loop is told of, which it logs, by this Python and by 3.14."""
    monkeypatch.setattr(asyncio, "shield", later_shield.shield)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def fail(store: FailingStore) -> None:
    """Have the work fail, and let Python see what became of it."""
    store.may_fail.set()
    await store.has_failed.wait()
    await asyncio.sleep(0)
    gc.collect()


async def test_who_stays_has_its_result_or_its_error() -> None:
    """Work that is waited for is as any other."""
    assert 7 == await complete(asyncio.sleep(0, 7))
    store = FailingStore()
    store.may_fail.set()
    with pytest.raises(StoreUnavailable):
        await complete(store.fail())


async def test_an_error_ends_with_who_has_it() -> None:
    """With all that its frames hold, as a question's pictures."""

    class Failure(Exception):
        """Of this test alone."""

    async def fail() -> None:
        raise Failure

    gc.disable()
    try:
        with suppress(Failure):
            await complete(fail())
        assert [] == [each for each in gc.get_objects() if type(each) is Failure]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "wait",
    [
        lambda store: complete(store.fail()),
        lambda store: Eraser(ScriptedEngine(), store).erase("ada", "a chat"),
    ],
    ids=["work", "an erasure"],
)
async def test_what_fails_when_its_caller_is_gone_fills_no_log(
    wait: Callable[[FailingStore], Awaitable[None]], told: list[dict[str, Any]]
) -> None:
    """It goes on, and each caller who leaves would else have a stack written."""
    store = FailingStore()
    caller = asyncio.ensure_future(wait(store))
    await store.is_asked.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not store.has_failed.is_set()
    await fail(store)
    assert [] == told


async def test_an_end_that_a_stop_does_not_wait_for_fills_no_log(
    monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> None:
    """The turn is called off twice: once by its engine's silence, once by the store's."""
    monkeypatch.setattr("llavachat_server.chats.turns._CANCEL_SECONDS", 0.0)
    hold, store = Hold(), FailingStore()
    turns = make_turns(DeafEngine(hold), store)
    turns.ask("ada", Question(NewChat(), "What is this?"))
    await hold.said.wait()
    await turns.stop(0.0)
    await store.is_asked.wait()
    await turns.stop(0.0)
    await fail(store)
    assert [] == told
