"""A request that is sent again is answered once: request ids, readers that leave and come."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from chat_room import TENANT, Room, begun, collect, follow_in_background, make_turns, text
from llavachat_server.chats.errors import RequestReused, StoreFull, StoreUnavailable
from llavachat_server.chats.live import TurnEvent
from llavachat_server.chats.question import NewChat, Question
from llavachat_server.chats.record import Turn, TurnState
from llavachat_server.values import (
    Delta,
    EngineEvent,
    EngineRequest,
    EngineUnavailable,
    FinishReason,
    QueueFull,
)
from scripted_engine import Hold, ScriptedEngine


async def test_a_repeated_request_is_executed_once() -> None:
    """Two calls at once and one later get one answer, generated once."""
    hold = Hold("Only once")
    room = Room(hold)
    question = Question(NewChat(), "What?", request_id="r1", body_sha256="b")
    first = await follow_in_background(room.turns.ask(TENANT, question))
    await hold.said.wait()
    second = await follow_in_background(room.turns.ask(TENANT, question))
    hold.release.set()
    assert await first == await second
    third = await room.ask(question)
    assert (begun(await first), "Only once") == (begun(third), text(third))
    assert (await first)[-1] == third[-1]
    assert 1 == len(room.engine.requests)


async def test_one_reader_of_two_may_leave() -> None:
    """A turn runs on while anybody follows it."""
    hold = Hold("Only once")
    room = Room(hold)
    question = Question(NewChat(), "What?", request_id="r1", body_sha256="b")
    first = await follow_in_background(room.turns.ask(TENANT, question))
    await hold.said.wait()
    second = await follow_in_background(room.turns.ask(TENANT, question))
    first.cancel()
    await asyncio.wait({first})
    assert {} == room.engine.cancelled
    hold.release.set()
    assert "Only once" == text(await second)


async def test_a_request_id_with_another_body_is_refused() -> None:
    """While the first runs and after it, the same id can not mean something else."""
    hold = Hold()
    room = Room(hold)
    question = Question(NewChat(), "What?", request_id="r1", body_sha256="b")
    other = Question(NewChat(), "Who?", request_id="r1", body_sha256="c")
    running = await follow_in_background(room.turns.ask(TENANT, question))
    await hold.said.wait()
    with pytest.raises(RequestReused):
        room.turns.ask(TENANT, other)
    hold.release.set()
    await running
    with pytest.raises(RequestReused):
        await room.ask(other)


async def test_request_ids_belong_to_tenants() -> None:
    """Two tenants may use one id for different things."""
    room = Room("For one.", "For the other.")
    mine = Question(NewChat(), "What?", request_id="r1", body_sha256="b")
    theirs = Question(NewChat(), "Who?", request_id="r1", body_sha256="c")
    assert "For one." == text(await room.ask(mine))
    assert "For the other." == text(await room.ask(theirs, tenant="somebody else"))


async def test_a_refused_request_may_be_repeated() -> None:
    """A refusal leaves no turn, so that the repeat is executed."""
    room = Room(QueueFull(1.0), "Now.")
    question = Question(NewChat(), "What?", request_id="r1", body_sha256="b")
    with pytest.raises(QueueFull):
        await room.ask(question)
    assert "Now." == text(await room.ask(question))


@pytest.mark.parametrize("error", [EngineUnavailable(1.0), StoreUnavailable(1.0)])
async def test_what_was_told_to_try_again_is_answered_anew(error: Exception) -> None:
    """The turn had begun; its repeat is not told for ever that it failed."""

    class Failing(ScriptedEngine):
        """Fails once, after the first word."""

        async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
            """See `Engine.generate`."""
            async for event in super().generate(request):
                yield event
                if len(self.requests) == 1:
                    raise error

    turns = make_turns(Failing("One two.", "Three four."))
    question = Question(NewChat(), "What?", request_id="r1", body_sha256="b")
    events: list[TurnEvent] = []
    with pytest.raises(type(error)):
        await collect(turns.ask(TENANT, question), events)
    assert "One" == text(events)
    again: list[TurnEvent] = []
    await collect(turns.ask(TENANT, question), again)
    assert "Three four." == text(again)
    kept = (await turns.get_chat(TENANT, begun(events).chat_id)).turns
    ends = [(turn.state, turn.finish_reason) for turn in kept]
    cut, whole = (
        (TurnState.CANCELLED, FinishReason.SHUTDOWN),
        (TurnState.FINISHED, FinishReason.EOS),
    )
    assert [cut, whole] == ends
    assert ["One", "Three four."] == [turn.answer for turn in kept]


async def test_a_repeat_waits_for_an_end_that_found_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told to come back, as the first try was, and gets the answer once that is kept."""
    room = Room("A cat.")
    question = Question(NewChat(), "What?", request_id="r1", body_sha256="b")
    ends: list[Turn] = []

    async def refuse(tenant: str, chat_id: str, turn: Turn) -> None:
        ends.append(turn)
        raise StoreFull(1.0)

    with monkeypatch.context() as patch:
        patch.setattr(room.store, "finish_turn", refuse)
        patch.setattr(room.store, "explain_debt", lambda: StoreFull(1.0))
        for _ in range(2):
            with pytest.raises(StoreFull):
                await room.ask(question)
    assert 1 == len(ends)
    claim = await room.store.find_claim(TENANT, "r1")
    assert claim is not None
    await room.store.finish_turn(TENANT, claim.chat_id, ends[0])
    told = [event for event in await room.ask(question) if isinstance(event, Delta)]
    assert ["A cat."] == [delta.text for delta in told]
