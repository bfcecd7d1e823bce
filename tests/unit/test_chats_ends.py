"""Turns read, deleted or stopped while they run, and a store without room for their end."""

import asyncio

import pytest
from app_in_process import PATIENCE_SECONDS
from chat_room import TENANT, Room, begun, collect, follow_in_background, make_turns
from llavachat_server.chats.errors import NotFound, ShuttingDown, StoreFull, StoreUnavailable
from llavachat_server.chats.live import TurnEvent
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import ImageSource, NewChat, Question
from llavachat_server.chats.record import Chat, Turn, TurnState
from llavachat_server.chats.store import ChatQuery
from llavachat_server.chats.turns import Turns
from llavachat_server.images.intake import ImageLimits, Intake
from llavachat_server.values import FinishReason, Sampling
from pictures import red_circle
from scripted_engine import Hold, ScriptedEngine
from unsure_store import UnsureStore


async def test_a_running_answer_can_be_read() -> None:
    """Reading a chat while it answers shows what has come."""
    hold = Hold("So far")
    room = Room(hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    reader = await follow_in_background(live)
    await hold.said.wait()
    (turn,) = (await room.turns.get_chat(TENANT, live.chat_id)).turns
    assert (TurnState.RUNNING, "So far") == (turn.state, turn.answer)
    hold.release.set()
    await reader


async def test_a_turn_that_ends_while_it_is_read_is_told_whole() -> None:
    """A chat as it was before the end is read again: the turn runs no more, and has its answer."""

    class SlowStore(MemoryStore):
        """Tells of what it has read once it may."""

        def __init__(self) -> None:
            super().__init__()
            self.has_read, self.may_tell = asyncio.Event(), asyncio.Event()

        async def get_chat(self, tenant: str, chat_id: str) -> Chat:
            """Do it, and wait."""
            chat = await super().get_chat(tenant, chat_id)
            self.has_read.set()
            await self.may_tell.wait()
            return chat

    hold, store = Hold("A circle."), SlowStore()
    turns = make_turns(ScriptedEngine(hold), store)
    live = turns.ask(TENANT, Question(NewChat(), "What?"))
    reader = await follow_in_background(live)
    await hold.said.wait()
    reading = asyncio.create_task(turns.get_chat(TENANT, live.chat_id))
    await store.has_read.wait()
    hold.release.set()
    await reader
    store.may_tell.set()
    (turn,) = (await reading).turns
    assert (TurnState.FINISHED, "A circle.") == (turn.state, turn.answer)


async def test_a_turn_whose_end_finds_no_room_is_told_all_the_same() -> None:
    """As it is kept: it is not read for ever until it has ended."""

    class FullStore(MemoryStore):
        """Keeps no ends."""

        async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
            """Find no room."""
            raise StoreFull(1.0)

    turns = make_turns(ScriptedEngine("A circle."), FullStore())
    live = turns.ask(TENANT, Question(NewChat(), "What?"))
    with pytest.raises(StoreFull):
        await collect(live, [])
    (turn,) = (await turns.get_chat(TENANT, live.chat_id)).turns
    assert TurnState.RUNNING is turn.state


async def test_deleting_ends_a_running_turn() -> None:
    """A chat that answers can be deleted: the turn is cancelled, nothing stays."""
    hold = Hold()
    room = Room(hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?", (ImageSource(red_circle()),)))
    reader = await follow_in_background(live)
    await hold.said.wait()
    await room.turns.delete_chat(TENANT, live.chat_id)
    events = await reader
    assert FinishReason.CANCELLED is events[-1].finish_reason  # type: ignore[union-attr]
    with pytest.raises(NotFound):
        await room.store.get_chat(TENANT, live.chat_id)
    with pytest.raises(NotFound):
        await room.store.get_picture(TENANT, begun(events).images[0].id)


async def test_stopping_lets_turns_end_within_their_grace() -> None:
    """New questions are refused at once; a turn that ends in time ends well."""
    hold = Hold()
    room = Room(hold)
    reader = await follow_in_background(room.turns.ask(TENANT, Question(NewChat(), "What?")))
    await hold.said.wait()
    stopping = asyncio.create_task(room.turns.stop(grace_seconds=30))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        room.turns.ask(TENANT, Question(NewChat(), "Too late?"))
    hold.release.set()
    await stopping
    assert FinishReason.EOS is (await reader)[-1].finish_reason  # type: ignore[union-attr]


async def test_stopping_ends_turns_after_their_grace() -> None:
    """A turn that runs past the grace period ends as SHUTDOWN, and its reader is told so."""
    hold = Hold("So far")
    room = Room(hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    reader = await follow_in_background(live)
    await hold.said.wait()
    await room.turns.stop(grace_seconds=0)
    with pytest.raises(ShuttingDown):
        await reader
    (turn,) = await room.turns_of(live.chat_id)
    assert (TurnState.CANCELLED, "So far") == (turn.state, turn.answer)
    assert FinishReason.SHUTDOWN is turn.finish_reason


async def test_a_turn_that_is_ended_as_it_begins_ends() -> None:
    """Even in the instant before the engine knows of a turn, it can be told to end."""
    room = Room(Hold())
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    reader = await follow_in_background(live)
    while not live.turn_id:  # noqa: ASYNC110 - the very instant is wanted, not a later one
        await asyncio.sleep(0)
    await room.turns.stop(grace_seconds=0)
    assert {live.turn_id: FinishReason.SHUTDOWN} == room.engine.cancelled
    with pytest.raises(ShuttingDown):
        await reader


async def test_a_turn_that_the_engine_does_not_end_is_ended_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stop leaves no turn running; what came of this one is kept as cut by the stop."""

    class DeafEngine(ScriptedEngine):
        """Goes on, whatever it is told."""

        def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
            """Take no notice."""

    monkeypatch.setattr("llavachat_server.chats.turns._CANCEL_SECONDS", 0.1)
    hold, store = Hold("So far"), MemoryStore()
    turns = make_turns(DeafEngine(hold), store)
    live = turns.ask(TENANT, Question(NewChat(), "What?"))
    reader = await follow_in_background(live)
    await hold.said.wait()
    await turns.stop(grace_seconds=0)
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(reader, PATIENCE_SECONDS)
    (turn,) = (await store.get_chat(TENANT, live.chat_id)).turns
    assert (TurnState.CANCELLED, "So far") == (turn.state, turn.answer)
    assert FinishReason.SHUTDOWN is turn.finish_reason


async def test_stopping_waits_for_what_is_being_erased() -> None:
    """Whoever was told to erase a chat has begun to: its store is not closed amid it."""

    class SlowStore(MemoryStore):
        """Erases once it may."""

        def __init__(self) -> None:
            super().__init__()
            self.is_asked, self.may_erase = asyncio.Event(), asyncio.Event()

        async def delete_chat(self, tenant: str, chat_id: str) -> None:
            """Wait, and do it."""
            self.is_asked.set()
            await self.may_erase.wait()
            await super().delete_chat(tenant, chat_id)

    engine, store = ScriptedEngine("A circle."), SlowStore()
    turns = make_turns(engine, store)
    live = turns.ask(TENANT, Question(NewChat(), "What?"))
    await collect(live, [])
    deleting = asyncio.create_task(turns.delete_chat(TENANT, live.chat_id))
    await store.is_asked.wait()
    stopping = asyncio.create_task(turns.stop(grace_seconds=0))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not stopping.done()
    store.may_erase.set()
    await stopping
    assert [(TENANT, live.chat_id)] == engine.forgotten
    await deleting


async def test_a_turn_that_may_have_begun_unseen_is_taken_back() -> None:
    """It would lock its chat: the database began it and could not say so, and nobody was told."""

    store = UnsureStore()
    turns = make_turns(ScriptedEngine("A circle."), store)
    events: list[TurnEvent] = []
    with pytest.raises(StoreUnavailable):
        await collect(turns.ask(TENANT, Question(NewChat(), "What?")), events)
    assert [] == events
    (found,) = (await store.list_chats(TENANT, ChatQuery())).chats
    (turn,) = (await store.get_chat(TENANT, found.id)).turns
    assert (TurnState.CANCELLED, FinishReason.SHUTDOWN) == (turn.state, turn.finish_reason)


def full_store() -> MemoryStore:
    """A store that takes nothing."""
    return MemoryStore(max_chats=0)


async def test_a_full_store_refuses_before_the_answer_is_told() -> None:
    """What can not be kept is not answered: the engine's work is ended as well."""
    room = Room(Hold())
    room.turns = Turns(
        room.engine,
        full_store(),
        Intake(ImageLimits()),
        defaults=Sampling(max_tokens=16),
        max_turn_seconds=30.0,
    )
    events: list[TurnEvent] = []
    with pytest.raises(StoreFull):
        await collect(room.turns.ask(TENANT, Question(NewChat(), "What?")), events)
    assert [] == events
