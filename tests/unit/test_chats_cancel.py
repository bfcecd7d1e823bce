"""Turns that are ended by name: at once, for whoever follows them, and kept as far as they came."""

import asyncio
from typing import Any

import pytest
from chat_room import make_turns
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.chats.errors import NotFound, ShuttingDown, StoreFull, StoreUnavailable
from llavachat_server.chats.live import Ended, LiveTurn, TurnEvent
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import ImageSource, NewChat, Place, Question
from llavachat_server.chats.record import Turn, TurnState
from llavachat_server.chats.store import IdleChat
from llavachat_server.images.intake import Picture
from llavachat_server.values import FinishReason
from scripted_engine import Hold, ScriptedEngine
from store_records import NOON, make_chat

TENANT = "a tenant"
QUESTION = Question(NewChat(), "What is this?", request_id="r-1", body_sha256="b")


class StuckStore(MemoryStore):
    """Keeps no end of a turn before it is let go; with an error where it has one."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()
        self.error: Exception | None = None

    def explain_debt(self) -> StoreFull | StoreUnavailable:
        """Tell it."""
        assert isinstance(self.error, StoreFull | StoreUnavailable)
        return self.error

    async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
        """Wait, then do it or fail."""
        await self.let_go.wait()
        if self.error is not None:
            raise self.error
        await super().finish_turn(tenant, chat_id, turn)


async def read(live: LiveTurn) -> list[TurnEvent]:
    """Follow to the end."""
    return [event async for event in live.follow()]


async def test_every_reader_is_told_that_the_turn_was_cancelled() -> None:
    """Two read, a third party cancels; what came is kept, and the chat is free at once."""
    hold = Hold("It might be")
    engine = ScriptedEngine(hold, "Yes.")
    turns = make_turns(engine)
    live = turns.ask(TENANT, QUESTION)
    readers = [asyncio.create_task(read(live)) for _ in range(2)]
    await hold.said.wait()
    turn = await turns.cancel_turn(TENANT, live.chat_id, live.turn_id)
    assert (TurnState.CANCELLED, FinishReason.CANCELLED) == (turn.state, turn.finish_reason)
    assert "It might be" == turn.answer
    assert {live.turn_id: FinishReason.CANCELLED} == engine.cancelled
    for events in await asyncio.gather(*readers):
        assert isinstance(events[-1], Ended)
        assert FinishReason.CANCELLED is events[-1].finish_reason
    events = await read(turns.ask(TENANT, Question(Place(live.chat_id), "Sure?")))
    assert isinstance(events[-1], Ended)
    assert FinishReason.EOS is events[-1].finish_reason


@settings(deadline=None, max_examples=60)
@given(num_steps=st.integers(0, 40), num_words=st.integers(1, 12), holds=st.booleans())
def test_whenever_it_is_cancelled_all_are_told_the_same(
    num_steps: int, num_words: int, holds: bool
) -> None:
    """The caller, the reader and the record agree how the turn ended, whoever was first."""

    async def run() -> None:
        words = " ".join(["word"] * num_words)
        turns = make_turns(ScriptedEngine(Hold(words) if holds else words))
        live = turns.ask(TENANT, QUESTION)
        events = live.follow()
        await anext(events)
        for _ in range(num_steps):
            await asyncio.sleep(0)
        turn = await turns.cancel_turn(TENANT, live.chat_id, live.turn_id)
        ended = [event async for event in events][-1]
        assert isinstance(ended, Ended)
        assert turn.finish_reason is ended.finish_reason
        assert turn == (await turns.get_chat(TENANT, live.chat_id)).turns[0]
        assert turn.answer == live.answer
        assert {} == turns._running

    asyncio.run(run())


async def test_a_turn_without_a_reader_does_not_wait_for_its_grace_period() -> None:
    """Who left on purpose says so, and is believed."""
    hold = Hold()
    turns = make_turns(ScriptedEngine(hold))
    live = turns.ask(TENANT, QUESTION)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    reader.cancel()
    await asyncio.wait({reader})
    turn = await turns.cancel_turn(TENANT, live.chat_id, live.turn_id)
    assert TurnState.CANCELLED is turn.state
    assert {} == turns._tasks


async def test_an_ended_turn_stays_as_it_is() -> None:
    """It is told as it had ended, as often as one asks."""
    store = MemoryStore()
    turns = make_turns(ScriptedEngine("A circle."), store)
    live = turns.ask(TENANT, QUESTION)
    await read(live)
    kept = (await store.get_chat(TENANT, live.chat_id)).turns[0]
    for _ in range(2):
        assert kept == await turns.cancel_turn(TENANT, live.chat_id, live.turn_id)
    assert (TurnState.FINISHED, "A circle.") == (kept.state, kept.answer)


async def test_an_erased_chat_is_forgotten_by_the_engine() -> None:
    """By its name, after its turn was ended; a chat that is not there is nobody's to forget."""
    hold = Hold()
    engine = ScriptedEngine(hold)
    turns = make_turns(engine)
    live = turns.ask(TENANT, QUESTION)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    assert live.chat_id == engine.requests[0].owner
    with pytest.raises(NotFound):
        await turns.delete_chat("another", live.chat_id)
    assert [] == engine.forgotten
    await turns.delete_chat(TENANT, live.chat_id)
    await reader
    assert [live.turn_id] == list(engine.cancelled)
    assert [(TENANT, live.chat_id)] == engine.forgotten


async def test_a_chat_that_is_erased_under_a_new_question_is_forgotten_once_more() -> None:
    """What the question brought into the caches before it was refused goes as well."""

    class Erasing(MemoryStore):
        async def begin_turn(self, tenant: str, chat_id: str, *more: Any) -> None:
            await self.delete_chat(tenant, chat_id)
            await super().begin_turn(tenant, chat_id, *more)

    engine = ScriptedEngine()
    turns = make_turns(engine, Erasing())
    live = turns.ask(TENANT, QUESTION)
    await read(live)
    with pytest.raises(NotFound):
        await read(turns.ask(TENANT, Question(Place(live.chat_id), "And?")))
    assert [(TENANT, live.chat_id)] == engine.forgotten


async def test_a_replay_of_a_chat_that_is_erased_is_ended() -> None:
    """There is nothing to compare with any more."""
    hold = Hold("A circle.")
    engine = ScriptedEngine("A circle.", hold)
    turns = make_turns(engine)
    live = turns.ask(TENANT, QUESTION)
    await read(live)

    async def replay() -> None:
        async for _ in turns.replay(TENANT, live.chat_id, live.turn_id):
            pass

    task = asyncio.create_task(replay())
    await hold.said.wait()
    assert live.chat_id == engine.requests[1].owner
    # As the real engine does when it forgets an owner.
    engine.cancel(engine.requests[1].request_id)
    with pytest.raises(NotFound, match="no such chat"):
        await task


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_who_waits_in_a_chat_that_is_erased_is_told_so(is_stopped: bool) -> None:
    """Before the engine knows of a turn: its chat is not found, and the server is not stopping."""

    class SlowStore(MemoryStore):
        """Reads pictures for ever."""

        def __init__(self) -> None:
            super().__init__()
            self.is_asked = asyncio.Event()

        async def get_picture(self, tenant: str, image_id: str) -> Picture:
            """Never come back."""
            self.is_asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    store = SlowStore()
    turns = make_turns(ScriptedEngine(), store)
    chat = make_chat(TENANT)
    await store.add_chat(chat, ())
    image = ImageSource(image_id="0" * 64)
    reader = asyncio.create_task(
        read(turns.ask(TENANT, Question(Place(chat.id), "And this?", (image,))))
    )
    await store.is_asked.wait()
    if is_stopped:
        await turns.stop(grace_seconds=0)
        with pytest.raises(ShuttingDown):
            await reader
        return
    await turns.delete_chat(TENANT, chat.id)
    with pytest.raises(NotFound) as missing:
        await reader
    assert NotFound("chat", chat.id) == missing.value


async def test_a_running_chat_is_not_retired() -> None:
    """Retention leaves it for another time; and what it leaves, the engine need not forget."""
    hold = Hold()
    engine = ScriptedEngine(hold)
    turns = make_turns(engine)
    live = turns.ask(TENANT, QUESTION)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    assert not await turns.retire_chat(IdleChat(TENANT, live.chat_id, NOON, 1))
    hold.release.set()
    await reader
    chat = await turns.get_chat(TENANT, live.chat_id)
    assert not await turns.retire_chat(IdleChat(TENANT, chat.id, NOON, 1))
    assert [] == engine.forgotten
    assert await turns.retire_chat(IdleChat(TENANT, chat.id, chat.updated_at, 1))
    assert [(TENANT, chat.id)] == engine.forgotten
    with pytest.raises(NotFound):
        await turns.get_chat(TENANT, live.chat_id)


async def test_what_is_not_there_is_not_found() -> None:
    """Another tenant's running turn, an unknown chat, an unknown turn; and it runs on."""
    hold = Hold()
    turns = make_turns(ScriptedEngine(hold))
    live = turns.ask(TENANT, QUESTION)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    for tenant, chat_id, turn_id, kind in (
        ("another", live.chat_id, live.turn_id, "chat"),
        (TENANT, "0" * 32, live.turn_id, "chat"),
        (TENANT, live.chat_id, "0" * 32, "turn"),
    ):
        with pytest.raises(NotFound, match=f"no such {kind}"):
            await turns.cancel_turn(tenant, chat_id, turn_id)
    hold.release.set()
    ended = (await reader)[-1]
    assert isinstance(ended, Ended)
    assert FinishReason.EOS is ended.finish_reason


@pytest.mark.parametrize("refusal", [StoreFull(1.0), StoreUnavailable(1.0)])
async def test_an_end_that_is_not_kept_yet_is_not_told(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is stuck, and where it is full or away: the caller is asked to try again."""
    monkeypatch.setattr("llavachat_server.chats.turns._CANCEL_SECONDS", 0.01)
    hold, store = Hold(), StuckStore()
    turns = make_turns(ScriptedEngine(hold), store)
    live = turns.ask(TENANT, QUESTION)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    with pytest.raises(StoreUnavailable):
        await turns.cancel_turn(TENANT, live.chat_id, live.turn_id)
    store.error = refusal
    store.let_go.set()
    with pytest.raises(type(refusal)):
        await reader
    for call in (
        turns.cancel_turn(TENANT, live.chat_id, live.turn_id),
        turns.resume(TENANT, live.chat_id, live.turn_id, 0),
        read(turns.ask(TENANT, QUESTION)),
    ):
        with pytest.raises(type(refusal)):
            await call
