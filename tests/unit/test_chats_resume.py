"""Turns that are followed again: after a dropped stream, after a crash, by their request_id."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.chats.errors import NotFound, StoreUnavailable, TurnRunning
from llavachat_server.chats.live import Ended, LiveTurn, Started, TurnEvent
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import (
    ImageSource,
    NewChat,
    Place,
    Question,
    SamplingWishes,
)
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.replay import Change, Verdict
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatStore
from llavachat_server.chats.turns import Turns
from llavachat_server.engine.pictures import read_pixels
from llavachat_server.images.intake import ImageLimits, Intake
from llavachat_server.values import (
    Delta,
    EngineFailed,
    FinishReason,
    InvalidField,
    ModelInfo,
    Quantization,
    Queued,
    Sampling,
    Timings,
    Usage,
)
from pictures import red_circle
from scripted_engine import Hold, ScriptedEngine

TENANT = "a tenant"
FIRST = Question(NewChat(), "What is this?", (ImageSource(red_circle()),), request_id="r-1")

END = Ended(FinishReason.EOS, None, Usage(0, 0, 0, 0, 0), Timings(0, 0, 0, 0, 0))


def make_turns(
    engine: ScriptedEngine, store: ChatStore, abandon_grace_seconds: float = 0.0
) -> Turns:
    """Turns on this engine and store."""
    return Turns(
        engine,
        store,
        Intake(ImageLimits()),
        defaults=Sampling(max_tokens=16),
        max_turn_seconds=30.0,
        abandon_grace_seconds=abandon_grace_seconds,
    )


async def read(live: LiveTurn, char_offset: int = 0) -> list[TurnEvent]:
    """Follow to the end."""
    return [event async for event in live.follow(char_offset)]


def text(events: list[TurnEvent]) -> str:
    """The text that came."""
    return "".join(event.text for event in events if isinstance(event, Delta))


async def begin_and_drop(turns: Turns, question: Question, hold: Hold) -> LiveTurn:
    """Ask, read until the engine holds, and leave."""
    live = turns.ask(TENANT, question)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    reader.cancel()
    await asyncio.wait({reader})
    return live


WORDS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6)


@settings(deadline=None)
@given(pieces=WORDS, data=st.data())
def test_following_from_anywhere_has_no_gap_and_no_repeat(
    pieces: list[str], data: st.DataObject
) -> None:
    """What one had, and what comes from there on, is the answer; and offsets say so."""

    async def follow() -> None:
        live, offset = LiveTurn("", lambda _: None), 0
        for piece in pieces:
            live.publish(Delta(piece, offset))
            offset += len(piece)
        live.publish(END)
        known = data.draw(st.integers(0, offset))
        events = await read(live, known)
        answer = "".join(pieces)
        assert answer == answer[:known] + text(events)
        expected = known
        for event in events[:-1]:
            assert isinstance(event, Delta)
            assert expected == event.char_offset
            expected += len(event.text)
        assert isinstance(events[-1], Ended)

    asyncio.run(follow())


async def test_a_waiting_reader_is_told_its_place_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a proxy would take its stream for dead; the turn itself keeps one event."""
    monkeypatch.setattr("llavachat_server.chats.live.QUEUED_AGAIN_SECONDS", 0.01)
    live = LiveTurn("", lambda _: None)
    for place in (3, 2):
        live.publish(Queued(place))
    events = live.follow()
    async with asyncio.timeout(20):
        told = [await anext(events) for _ in range(5)]
    assert [Queued(3), *[Queued(2)] * 4] == told
    assert [] == live._waiting
    live.publish(Delta("A", 0))
    assert Delta("A", 0) == await anext(events)
    live.publish(END)
    assert [END] == [event async for event in events]
    assert [Queued(3), Queued(2), Delta("A", 0), END] == await read(live)


async def test_a_reader_who_waits_for_no_place_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long prompt is read, or a picture waits for room, while nothing else passes."""
    monkeypatch.setattr("llavachat_server.chats.live.QUEUED_AGAIN_SECONDS", 0.01)
    live = LiveTurn("", lambda _: None)
    model = ModelInfo("", "", "", Quantization.NONE, "")
    started = Started("chat", "turn", None, model, Sampling(1), ())
    live.publish(started)
    events = live.follow()
    async with asyncio.timeout(20):
        told = [await anext(events) for _ in range(3)]
    assert [started, Queued(1), Queued(1)] == told
    live.publish(Delta("A", 0))
    live.publish(END)
    assert [Delta("A", 0), END] == [event async for event in events]
    assert [started, Delta("A", 0), END] == await read(live)


async def test_who_leaves_before_an_error_is_told_leaves_no_frames() -> None:
    """They hold the question, and the turn holds the error: a ring with all its pictures."""
    live, error = LiveTurn("", lambda _: None), ValueError("no model")
    live.publish(Delta("A", 0))
    events = live.follow()
    await anext(events)
    try:
        raise error
    except ValueError:
        live.fail(error)
    assert error.__traceback__ is not None
    await events.aclose()
    assert error.__traceback__ is None


async def test_a_dropped_reader_may_come_back_within_the_grace_period() -> None:
    """The turn goes on meanwhile, and the rest comes from where the reader was."""
    hold = Hold("A red circle")
    engine = ScriptedEngine(hold)
    turns = make_turns(engine, MemoryStore(), abandon_grace_seconds=60.0)
    live = await begin_and_drop(turns, FIRST, hold)
    assert live.is_abandoned
    again = await turns.resume(TENANT, live.chat_id, live.turn_id, 2)
    reader = asyncio.create_task(read(again, 2))
    await asyncio.sleep(0)
    hold.release.set()
    events = await reader
    assert isinstance(events[0], Started)
    assert "red circle" == text(events)
    assert FinishReason.EOS is events[-1].finish_reason
    assert {} == engine.cancelled


async def test_a_reader_who_is_gone_for_good_ends_the_turn() -> None:
    """After the grace period the turn is cancelled, and never context."""
    hold = Hold()
    engine, store = ScriptedEngine(hold), MemoryStore()
    turns = make_turns(engine, store, abandon_grace_seconds=0.01)
    live = await begin_and_drop(turns, FIRST, hold)
    await asyncio.wait(set(turns._tasks.values()))
    (turn,) = (await store.get_chat(TENANT, live.chat_id)).turns
    assert (TurnState.CANCELLED, "I think") == (turn.state, turn.answer)


async def test_a_reader_who_is_gone_while_the_server_stops_is_answered_anew() -> None:
    """There may be no way back to a server that stops: the turn has ended with it, and no more."""
    hold = Hold()
    store = MemoryStore()
    turns = make_turns(ScriptedEngine(hold), store, abandon_grace_seconds=0.01)
    reader = asyncio.create_task(read(live := turns.ask(TENANT, FIRST)))
    await hold.said.wait()
    stopping = asyncio.create_task(turns.stop(grace_seconds=3600))
    await asyncio.sleep(0)
    reader.cancel()
    await stopping
    (turn,) = (await store.get_chat(TENANT, live.chat_id)).turns
    assert (FinishReason.SHUTDOWN, "I think") == (turn.finish_reason, turn.answer)
    again = make_turns(ScriptedEngine("It is a circle."), store)
    assert "It is a circle." == text(await read(again.ask(TENANT, FIRST)))


async def test_a_new_question_does_not_wait_for_an_abandoned_turn() -> None:
    """Who stops an answer and asks something else is answered at once."""
    hold = Hold()
    engine, store = ScriptedEngine(hold, "Yes."), MemoryStore()
    turns = make_turns(engine, store, abandon_grace_seconds=60.0)
    live = await begin_and_drop(turns, FIRST, hold)
    events = await read(turns.ask(TENANT, Question(Place(live.chat_id), "Is it red?")))
    assert "Yes." == text(events)
    states = [turn.state for turn in (await store.get_chat(TENANT, live.chat_id)).turns]
    assert [TurnState.CANCELLED, TurnState.FINISHED] == states


async def test_a_new_question_is_refused_while_somebody_reads() -> None:
    """One turn at a time, as before."""
    hold = Hold()
    turns = make_turns(ScriptedEngine(hold), MemoryStore(), abandon_grace_seconds=60.0)
    live = turns.ask(TENANT, FIRST)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    with pytest.raises(TurnRunning):
        await read(turns.ask(TENANT, Question(Place(live.chat_id), "And?")))
    hold.release.set()
    await reader


async def test_an_ended_turn_is_told_from_an_offset() -> None:
    """The record serves as well as the running turn; started and ended come along."""
    turns = make_turns(ScriptedEngine("A red circle."), MemoryStore())
    first = await read(turns.ask(TENANT, FIRST))
    started = first[0]
    assert isinstance(started, Started)
    live = await turns.resume(TENANT, started.chat_id, started.turn_id, 6)
    events = await read(live, 6)
    assert [started, Delta("circle.", 6), first[-1]] == events


async def test_wrong_places_are_refused() -> None:
    """Another tenant's turn, an unknown one, and an offset beyond the answer."""
    turns = make_turns(ScriptedEngine("Red."), MemoryStore())
    started = (await read(turns.ask(TENANT, FIRST)))[0]
    assert isinstance(started, Started)
    with pytest.raises(NotFound):
        await turns.resume("another", started.chat_id, started.turn_id, 0)
    with pytest.raises(NotFound):
        await turns.resume(TENANT, started.chat_id, "0" * 32, 0)
    with pytest.raises(InvalidField, match="has 4 characters"):
        await turns.resume(TENANT, started.chat_id, started.turn_id, 5)


async def test_a_failed_turn_is_told_as_it_failed() -> None:
    """What came, and then the error once more."""
    turns = make_turns(ScriptedEngine(), MemoryStore())
    started = (await read(turns.ask(TENANT, FIRST)))[0]
    assert isinstance(started, Started)
    store = turns._store
    turn = (await store.get_chat(TENANT, started.chat_id)).turns[0]
    failed = replace(turn, state=TurnState.FAILED, finish_reason=FinishReason.ERROR)
    await store.finish_turn(TENANT, started.chat_id, failed)
    live = await turns.resume(TENANT, started.chat_id, started.turn_id, 0)
    with pytest.raises(EngineFailed):
        await read(live)
    assert turn.answer == live.answer


async def test_a_turn_whose_end_is_not_kept_is_not_told_as_running() -> None:
    """It is neither running nor kept: try later."""
    hold = Hold()
    turns = make_turns(ScriptedEngine(hold), MemoryStore())
    live = turns.ask(TENANT, FIRST)
    reader = asyncio.create_task(read(live))
    await hold.said.wait()
    stranger = make_turns(ScriptedEngine(), turns._store)
    with pytest.raises(StoreUnavailable):
        await stranger.resume(TENANT, live.chat_id, live.turn_id, 0)
    hold.release.set()
    await reader


class TestCrash:
    """The process dies in the middle of an answer; another one opens what it left."""

    async def test_a_first_question_is_answered_by_its_repeat(self, url: str) -> None:
        """In the same chat, about the same picture, with the same parameters, once."""
        wishes = SamplingWishes(temperature=1.0)
        question = replace(FIRST, wishes=wishes)
        hold = Hold()
        store = SqlStore(url)
        live = make_turns(ScriptedEngine(hold), store).ask(TENANT, question)
        started = await anext(live.follow())
        assert isinstance(started, Started)
        store.close()
        store = SqlStore(url)
        try:
            engine = ScriptedEngine("A red circle.")
            turns = make_turns(engine, store)
            events = await read(turns.ask(TENANT, question))
            again = events[0]
            assert isinstance(again, Started)
            assert "A red circle." == text(events)
            assert (started.chat_id, started.images) == (again.chat_id, again.images)
            assert started.sampling == again.sampling
            assert 1 == len(engine.requests[0].images)
            once_more = await read(turns.ask(TENANT, question))
            assert "A red circle." == text(once_more)
            assert 1 == len(engine.requests)
            states = [turn.state for turn in (await store.get_chat(TENANT, again.chat_id)).turns]
            assert [TurnState.CANCELLED, TurnState.FINISHED] == states
        finally:
            store.close()

    async def test_the_chat_goes_on_from_what_was_acknowledged(self, url: str) -> None:
        """The prompt after the crash begins with the very ids of the prompt before it."""
        engine, hold = ScriptedEngine("A circle."), Hold()
        store = SqlStore(url)
        events = await read(make_turns(engine, store).ask(TENANT, FIRST))
        started = events[0]
        assert isinstance(started, Started)
        question = Question(Place(started.chat_id), "What colour?", request_id="r-2")
        live = make_turns(ScriptedEngine(hold), store).ask(TENANT, question)
        cut = await anext(live.follow())
        assert isinstance(cut, Started)
        store.close()
        store = SqlStore(url)
        try:
            later = ScriptedEngine("Red.", "Yes.")
            turns = make_turns(later, store)
            assert "Red." == text(await read(turns.ask(TENANT, question)))
            follow_up = Question(Place(started.chat_id), "Sure?")
            assert "Yes." == text(await read(turns.ask(TENANT, follow_up)))
            before = (*engine.requests[0].token_ids, *later.prompts.encode_text("A circle."))
            for request in later.requests:
                assert before == request.token_ids[: len(before)]
                pixels = engine.requests[0].images[0].pixels
                assert [pixels] == [await read_pixels(image) for image in request.images]
            # Seven characters were read, and none of them was kept.
            resumed = await read(await turns.resume(TENANT, cut.chat_id, cut.turn_id, 7))
            assert FinishReason.SHUTDOWN is resumed[-1].finish_reason
        finally:
            store.close()


async def replay(turns: Turns, started: Started) -> tuple[str, Verdict]:
    """Replay a turn: the text, and the verdict."""
    parts, verdict = [], None
    async for event in turns.replay(TENANT, started.chat_id, started.turn_id):
        if isinstance(event, Delta):
            parts.append(event.text)
        else:
            verdict = event
    assert verdict is not None
    return "".join(parts), verdict


async def test_a_replay_asks_the_same_and_finds_the_same() -> None:
    """The engine gets the recorded request once more, and the chat is left as it is."""
    engine, store = ScriptedEngine("Round.", "Red.", "Red."), MemoryStore()
    turns = make_turns(engine, store)
    first = (await read(turns.ask(TENANT, FIRST)))[0]
    assert isinstance(first, Started)
    wishes = SamplingWishes(temperature=0.7, seed=5)
    question = Question(Place(first.chat_id), "What colour?", wishes=wishes)
    second = (await read(turns.ask(TENANT, question)))[0]
    assert isinstance(second, Started)
    chat = await store.get_chat(TENANT, first.chat_id)
    assert ("Red.", Verdict(None, ())) == await replay(turns, second)
    recorded, again = engine.requests[1:]
    assert replace(again, request_id=recorded.request_id) == recorded
    assert chat == await store.get_chat(TENANT, first.chat_id)


async def test_a_replay_tells_the_first_difference_and_what_changed() -> None:
    """The first other token, and what is not as it was."""
    store = MemoryStore()
    turns = make_turns(ScriptedEngine("It is a red circle."), store)
    started = (await read(turns.ask(TENANT, FIRST)))[0]
    assert isinstance(started, Started)
    engine = ScriptedEngine("It is a blue circle.")
    model = replace(engine.info.model, quantization=Quantization.INT8)
    engine.info = replace(engine.info, model=model, device="other", library_versions={"torch": "1"})
    _, verdict = await replay(make_turns(engine, store), started)
    then, now = (
        engine.prompts.encode_text(words)
        for words in ("It is a red circle.", "It is a blue circle.")
    )
    expected = next(i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b)
    assert expected == verdict.first_difference_token
    assert (
        Change("quantization", "none", "int8"),
        Change("device", "cpu", "other"),
        Change("torch", "0", "1"),
    ) == verdict.changes


async def test_a_replay_that_ends_early_differs_where_it_ends() -> None:
    """A prefix of the record is not the record."""
    store = MemoryStore()
    turns = make_turns(ScriptedEngine("Red circle", "Red"), store)
    started = (await read(turns.ask(TENANT, FIRST)))[0]
    assert isinstance(started, Started)
    _, verdict = await replay(turns, started)
    assert len(turns._engine.prompts.encode_text("Red")) == verdict.first_difference_token
