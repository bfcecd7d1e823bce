"""What is read of a chat for a question, a turn or its repeat: as much as matters, and no more."""

import asyncio
from dataclasses import replace

import pytest
from chat_room import TENANT, Room, begun, collect, follow_in_background, make_turns, text
from llavachat_server.chats.errors import NotFound, TurnRunning
from llavachat_server.chats.live import TurnEvent
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import ImageSource, NewChat, Place, Question
from llavachat_server.chats.record import Chat, Turn, TurnState
from llavachat_server.images.intake import Picture
from llavachat_server.values import FinishReason
from pictures import red_circle
from scripted_engine import Hold, ScriptedEngine


class Spare(MemoryStore):
    """A store that tells no whole chat, and unpacks no picture."""

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """Never."""
        raise AssertionError("a whole chat is read")

    async def get_picture(self, tenant: str, image_id: str) -> Picture:
        """Never."""
        raise AssertionError("a picture is unpacked")


FIRST = Question(NewChat(), "What?", (ImageSource(data=red_circle()),), request_id="r-1")


async def test_no_turn_needs_its_whole_chat() -> None:
    """Asked, read, followed, cancelled, repeated or counted."""
    engine = ScriptedEngine("One.", "Two.", "Or.", "One again.", Hold())
    turns = make_turns(engine, Spare())
    events: list[TurnEvent] = []
    await collect(turns.ask(TENANT, FIRST), events)
    first = begun(events)
    chat_id = first.chat_id
    for where, parent_id, answer in (
        (Place(chat_id), first.turn_id, "Two."),
        (Place(chat_id, first.turn_id), first.turn_id, "Or."),
        (Place(chat_id, ""), None, "One again."),
    ):
        asked: list[TurnEvent] = []
        await collect(turns.ask(TENANT, Question(where, "And?")), asked)
        assert (parent_id, answer) == (begun(asked).parent_turn_id, text(asked))
    assert first.images == begun(asked).images
    turn = await turns.get_turn(TENANT, chat_id, first.turn_id)
    assert (first.turn_id, "One.") == (turn.id, turn.answer)
    assert (turn,) == (await turns.get_branch(TENANT, chat_id, first.turn_id)).turns
    assert turn == await turns.cancel_turn(TENANT, chat_id, first.turn_id)
    for live in (
        turns.ask(TENANT, FIRST),
        await turns.resume(TENANT, chat_id, first.turn_id, 0),
    ):
        told: list[TurnEvent] = []
        await collect(live, told)
        assert "One." == text(told)
    known = ImageSource(image_id=first.images[0].id)
    count = await turns.count(TENANT, Question(Place(chat_id, first.turn_id), "And?", (known,)))
    assert count.image_tokens > 0
    with pytest.raises(NotFound, match="no such image"):
        await turns.count(TENANT, Question(NewChat(), "?", (ImageSource(image_id="0" * 64),)))
    running = await follow_in_background(turns.ask(TENANT, Question(Place(chat_id), "Last?")))
    for question in (Question(Place(chat_id), "Me?"), Question(Place(chat_id, ""), "Me?")):
        with pytest.raises(TurnRunning):
            await collect(turns.ask(TENANT, question), [])
    await turns.stop(grace_seconds=0)
    await asyncio.wait({running})


async def test_a_running_turn_is_told_as_far_as_it_has_come() -> None:
    """By itself or with its branch; and with its end, where that came while it was read."""
    hold = Hold("So far")
    room = Room(hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    reader = await follow_in_background(live)
    await hold.said.wait()
    where = (TENANT, live.chat_id, live.turn_id)
    (turn,) = (await room.turns.get_branch(*where)).turns
    assert turn == await room.turns.get_turn(*where)
    assert (TurnState.RUNNING, "So far") == (turn.state, turn.answer)
    hold.release.set()
    await reader
    ended = await room.turns.get_turn(*where)
    assert FinishReason.EOS is ended.finish_reason
    as_before = replace(ended, state=TurnState.RUNNING, answer="")
    kept = iter((as_before, ended))

    async def tell_late(*_: object) -> Turn:
        return next(kept)

    room.store.get_turn = tell_late  # type: ignore[method-assign]
    assert ended == await room.turns.get_turn(*where)
