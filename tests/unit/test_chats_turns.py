"""Turns in their chats, with the real store and intake and an engine that follows a script."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from chat_room import TENANT, Room, begun, collect, follow_in_background, text
from llavachat_server.chats.errors import (
    ChatError,
    NotFound,
    RequestReused,
    ShuttingDown,
    StoreFull,
    TurnRunning,
)
from llavachat_server.chats.live import Ended, LiveTurn, Trimmed, TurnEvent
from llavachat_server.chats.question import (
    ImageSource,
    NewChat,
    OverflowPolicy,
    Place,
    Question,
    SamplingWishes,
)
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.store import ChatQuery
from llavachat_server.chats.turns import Turns
from llavachat_server.engine.pictures import read_pixels
from llavachat_server.images.intake import ImageLimits, Intake
from llavachat_server.values import (
    ContextFull,
    Delta,
    EngineEvent,
    EngineFailed,
    EngineRequest,
    FinishReason,
    InvalidField,
    QueueFull,
    Sampling,
)
from pictures import draw_shape, encode, red_circle
from scripted_engine import Hold, ScriptedEngine, shapes_prompts


async def test_a_turn_goes_from_started_to_ended() -> None:
    """Started first, the answer in order, Ended last; and the record says the same."""
    room = Room("It is a red circle.")
    events = await room.ask(Question(NewChat(), "What is this?", (ImageSource(red_circle()),)))
    started, ended = begun(events), events[-1]
    assert isinstance(ended, Ended)
    assert "It is a red circle." == text(events)
    offsets = [event.char_offset for event in events if isinstance(event, Delta)]
    assert [0, 2, 5, 7, 11] == offsets
    (turn,) = await room.turns_of(started.chat_id)
    assert ("What is this?", "It is a red circle.") == (turn.prompt, turn.answer)
    assert (TurnState.FINISHED, FinishReason.EOS) == (turn.state, turn.finish_reason)
    assert started.images == turn.images
    assert ended.usage == turn.usage


async def test_the_question_is_recorded_while_the_engine_works() -> None:
    """It is in the store by the engine's first word: keeping it holds no first token up."""
    room = Room()
    was_kept = []

    class Working(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
            for _ in range(100):
                await asyncio.sleep(0)
            was_kept.append(len((await room.store.list_chats(TENANT, ChatQuery())).chats))
            async for event in super().generate(request):
                yield event

    room.turns = Turns(
        Working(),
        room.store,
        Intake(ImageLimits()),
        defaults=Sampling(max_tokens=16),
        max_turn_seconds=30.0,
    )
    await room.ask(Question(NewChat(), "What is this?"))
    assert [1] == was_kept


async def test_the_record_is_there_before_ended_is_told() -> None:
    """Whoever reads Ended finds the finished turn in the store."""
    room = Room()
    live = room.turns.ask(TENANT, Question(NewChat(), "Hello?"))
    states = []
    async for event in live.follow():
        if isinstance(event, Ended):
            states = [turn.state for turn in await room.turns_of(live.chat_id)]
    assert [TurnState.FINISHED] == states


async def test_the_next_question_may_follow_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat is free again when Ended is told: no reader can be too fast."""
    room = Room()
    chat_id = await room.start()
    live = room.turns.ask(TENANT, Question(Place(chat_id), "And?"))
    publish = live.publish
    running: list[list[LiveTurn]] = []

    def note(event: TurnEvent) -> None:
        # A reader's own task comes later, when whatever was forgotten has long been done.
        if isinstance(event, Ended):
            running.append(list(room.turns._running.values()))
        publish(event)

    monkeypatch.setattr(live, "publish", note)
    await collect(live, [])
    assert [[]] == running
    assert isinstance((await room.go_on(chat_id))[-1], Ended)


async def test_a_follow_up_sees_the_conversation_and_its_picture() -> None:
    """The engine gets the recorded ids of the turn before, and how to read the chat's picture."""
    room = Room("A red circle.")
    chat_id = await room.start()
    await room.go_on(chat_id, "What colour is it?")
    first, second = room.engine.requests
    answer = room.engine.prompts.encode_text("A red circle.")
    assert (*first.token_ids, *answer) == second.token_ids[: len(first.token_ids) + len(answer)]
    assert 1 == len(second.images)
    assert first.images[0].id == second.images[0].id
    assert callable(second.images[0].pixels)
    assert first.images[0].pixels == await read_pixels(second.images[0])


async def test_only_one_turn_runs_in_a_chat() -> None:
    """A second question meanwhile is refused and leaves no trace; afterwards it is welcome."""
    hold = Hold()
    room = Room("A circle.", hold)
    chat_id = await room.start()
    running = await follow_in_background(room.turns.ask(TENANT, Question(Place(chat_id), "And?")))
    await hold.said.wait()
    with pytest.raises(TurnRunning):
        await room.go_on(chat_id)
    hold.release.set()
    await running
    assert 2 == len(await room.turns_of(chat_id))
    await room.go_on(chat_id)


async def test_other_chats_run_side_by_side() -> None:
    """The one-turn rule holds within a chat, not between chats."""
    hold = Hold()
    room = Room(hold, "Another answer.")
    running = await follow_in_background(room.turns.ask(TENANT, Question(NewChat(), "One?")))
    await hold.said.wait()
    assert "Another answer." == text(await room.ask(Question(NewChat(), "Two?")))
    hold.release.set()
    assert "I think" == text(await running)


async def test_who_asks_as_the_server_stops_is_told() -> None:
    """Also where the turn is ended before its first step; and nothing is kept of its request."""
    room = Room("A red circle.")
    live = room.turns.ask(TENANT, Question(NewChat(), "What is this?", request_id="r"))
    await room.turns.stop(grace_seconds=0)

    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(collect(live, []), 10)
    assert ({}, {}) == (room.turns._tasks, room.turns._requests)


async def test_an_abandoned_turn_is_cancelled_and_never_context() -> None:
    """When its reader leaves, what came is recorded, and the next question does not see it."""
    hold = Hold("It might be")
    room = Room("A red circle.", hold, "Yes.")
    chat_id = await room.start()
    reader = await follow_in_background(room.turns.ask(TENANT, Question(Place(chat_id), "Sure?")))
    await hold.said.wait()
    reader.cancel()
    await asyncio.wait({reader})
    await room.turns.stop(grace_seconds=5)
    first, cut = await room.turns_of(chat_id)
    assert (TurnState.CANCELLED, "It might be") == (cut.state, cut.answer)
    assert FinishReason.CANCELLED is cut.finish_reason
    assert first.id == cut.parent_id


async def test_a_question_after_a_cancelled_turn_goes_on_from_the_finished_one() -> None:
    """The branch skips the cancelled turn."""
    hold = Hold("It might be")
    room = Room("A red circle.", hold, "Yes.")
    chat_id = await room.start()
    live = room.turns.ask(TENANT, Question(Place(chat_id), "Sure?"))
    reader = await follow_in_background(live)
    await hold.said.wait()
    room.engine.cancel(live.turn_id)
    assert FinishReason.CANCELLED is (await reader)[-1].finish_reason  # type: ignore[union-attr]
    events = await room.go_on(chat_id, "Really?")
    first, _, last = await room.turns_of(chat_id)
    assert first.id == last.parent_id == begun(events).parent_turn_id
    prompt = room.engine.prompts.render(room.engine.requests[-1].token_ids)
    assert "It might be" not in prompt
    assert "Sure?" not in prompt


async def test_a_chat_whose_first_turn_was_cut_keeps_its_picture() -> None:
    """Asking again after a cancelled first turn still asks about the picture."""
    hold = Hold()
    room = Room(hold, "A circle.")
    live = room.turns.ask(TENANT, Question(NewChat(), "What?", (ImageSource(red_circle()),)))
    reader = await follow_in_background(live)
    await hold.said.wait()
    room.engine.cancel(live.turn_id)
    await reader
    events = await room.go_on(live.chat_id, "What is it?")
    assert None is begun(events).parent_turn_id
    assert 1 == len(begun(events).images)
    assert 1 == len(room.engine.requests[-1].images)


async def test_branches_go_on_from_where_they_are_told() -> None:
    """An earlier parent opens a branch; "" asks the first question again, with its picture."""
    room = Room()
    chat_id = await room.start()
    (first,) = await room.turns_of(chat_id)
    await room.go_on(chat_id, "Second?")
    branch = await room.ask(Question(Place(chat_id, first.id), "Other second?"))
    again = await room.ask(Question(Place(chat_id, ""), "Another first?"))
    assert (first.id, None) == (begun(branch).parent_turn_id, begun(again).parent_turn_id)
    assert "Second?" not in room.engine.prompts.render(room.engine.requests[2].token_ids)
    assert 1 == len(room.engine.requests[3].images)
    assert begun(again).images == first.images


async def test_wrong_places_are_refused() -> None:
    """Unknown chats and turns are not found, and a cut turn can not be gone on from."""
    room = Room("A circle.", EngineFailed())
    chat_id = await room.start()
    with pytest.raises(NotFound, match="no such chat"):
        await room.go_on("0" * 32)
    with pytest.raises(NotFound, match="no such turn"):
        await room.ask(Question(Place(chat_id, "0" * 32), "And?"))
    with pytest.raises(NotFound, match="no such chat"):
        await room.ask(Question(Place(chat_id), "And?"), tenant="somebody else")


async def test_a_turn_that_is_not_finished_is_no_parent() -> None:
    """Naming a cut turn as the parent is refused, with the field's name."""
    hold = Hold()
    room = Room(hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    reader = await follow_in_background(live)
    await hold.said.wait()
    room.engine.cancel(live.turn_id)
    await reader
    with pytest.raises(InvalidField) as caught:
        await room.ask(Question(Place(live.chat_id, live.turn_id), "And?"))
    assert "parent_turn_id" == caught.value.field


@pytest.mark.parametrize("error", [QueueFull(1.0), ContextFull(5, 0, 4), EngineFailed()])
async def test_what_the_engine_refuses_leaves_no_trace(error: Exception) -> None:
    """A refused question is an error without an event, and no chat exists."""
    room = Room(error)
    events: list[TurnEvent] = []
    with pytest.raises(type(error)):
        await collect(room.turns.ask(TENANT, Question(NewChat(), "Hello?")), events)
    assert [] == events
    assert () == (await room.store.list_chats(TENANT, ChatQuery())).chats


async def test_a_failure_in_the_middle_is_recorded() -> None:
    """The engine fails while it answers: the reader is told, the turn is kept as failed."""

    class Failing(ScriptedEngine):
        async def generate(self, request):  # type: ignore[no-untyped-def, override]
            yield Delta("It is", 0)
            raise EngineFailed

    room = Room()
    room.engine = Failing()
    room.turns = Turns(
        room.engine,
        room.store,
        Intake(ImageLimits()),
        defaults=Sampling(max_tokens=16),
        max_turn_seconds=30.0,
    )
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    events: list[TurnEvent] = []
    with pytest.raises(EngineFailed):
        await collect(live, events)
    assert "It is" == text(events)
    (turn,) = await room.turns_of(live.chat_id)
    assert (TurnState.FAILED, FinishReason.ERROR) == (turn.state, turn.finish_reason)
    assert "It is" == turn.answer


async def test_a_bad_picture_is_named_by_its_place() -> None:
    """The error carries the path of the field and the intake's sentence; nothing was asked."""
    room = Room()
    sources = (ImageSource(data=red_circle()), ImageSource(data=b"%PDF-1.4"))
    with pytest.raises(InvalidField) as caught:
        await room.ask(Question(NewChat(), "What?", sources))
    assert "images[1].data" == caught.value.field
    assert "this is a PDF" in caught.value.expected
    assert [] == room.engine.requests


async def test_a_picture_is_known_by_its_id_to_its_tenant_alone() -> None:
    """A picture that was sent can be named; for another tenant it does not exist."""
    room = Room()
    chat_id = await room.start()
    (turn,) = await room.turns_of(chat_id)
    source = (ImageSource(image_id=turn.images[0].id),)
    events = await room.ask(Question(NewChat(), "Again?", source))
    assert turn.images == begun(events).images
    with pytest.raises(NotFound, match="no such image"):
        await room.ask(Question(NewChat(), "Again?", source), tenant="somebody else")


async def test_overflow_drops_oldest_turns_and_says_so() -> None:
    """With leave, the oldest turn is left out, the reader is told, the record can rebuild it."""
    long = "word " * 60
    # Room for the picture with one such question, whatever the tokenizer makes of it, not with two.
    num_tokens = 63 + len(shapes_prompts().build_first_turn(long, num_images=1))
    room = Room(long, "Short.", "Done.", context_tokens=num_tokens + 40)
    chat_id = await room.start(long)
    with pytest.raises(ContextFull) as caught:
        await room.go_on(chat_id, long)
    assert caught.value.history_tokens > 0
    drop = OverflowPolicy.DROP_OLDEST_TURNS
    question = Question(Place(chat_id), long, overflow=drop, request_id="r", body_sha256="b")
    events = await room.ask(question)
    first, last = await room.turns_of(chat_id)
    trimmed = events[1]
    assert isinstance(trimmed, Trimmed)
    assert ((first.id,), 1) == (trimmed.turn_ids, last.num_trimmed_turns)
    # Told from the record, to who asks again and to who comes back.
    assert trimmed == (await room.ask(question))[1]
    live = await room.turns.resume(TENANT, chat_id, last.id, 0)
    assert trimmed == [event async for event in live.follow()][1]
    assert trimmed.num_tokens_before > trimmed.num_tokens_after
    request = room.engine.requests[-1]
    wide = len(request.token_ids) + 63 * len(request.images)
    assert wide == trimmed.num_tokens_after
    assert 1 == len(request.images)
    chat = await room.store.get_chat(TENANT, chat_id)
    shown = room.engine.prompts.render(request.token_ids)
    assert shown == room.turns.raw_prompt(chat, last)


async def test_raw_prompts_are_what_the_model_saw() -> None:
    """Every turn's prompt can be shown from its record."""
    room = Room("A circle.", "Red.")
    chat_id = await room.start()
    await room.go_on(chat_id, "What colour?")
    chat = await room.store.get_chat(TENANT, chat_id)
    expected = [room.engine.prompts.render(r.token_ids) for r in room.engine.requests]
    assert expected == [room.turns.raw_prompt(chat, turn) for turn in chat.turns]


async def test_counting_agrees_with_what_asking_used() -> None:
    """CountTokens beforehand and the usage afterwards name the same prompt."""
    room = Room("A circle.")
    chat_id = await room.start()
    where = Place(chat_id)
    sources = (ImageSource(data=encode(draw_shape("star", "blue"))),)
    count = await room.turns.count(TENANT, Question(where, "And this one?", sources))
    ended = (await room.ask(Question(where, "And this one?", sources)))[-1]
    assert isinstance(ended, Ended)
    assert count.total == ended.usage.text_tokens + ended.usage.image_tokens


async def test_counting_refuses_what_asking_would_refuse() -> None:
    """A bad or unknown picture is refused by counting as well."""
    room = Room()
    with pytest.raises(InvalidField):
        await room.turns.count(TENANT, Question(NewChat(), "What?", (ImageSource(b"%PDF"),)))
    unknown = (ImageSource(image_id="0" * 64),)
    with pytest.raises(NotFound):
        await room.turns.count(TENANT, Question(NewChat(), "What?", unknown))


async def test_open_wishes_are_filled_from_the_profile() -> None:
    """What was not asked for is the profile's; what is echoed is what the engine got."""
    room = Room()
    wishes = SamplingWishes(temperature=0.5, stop=("END",))
    events = await room.ask(Question(NewChat(), "What?", wishes=wishes))
    sampling = begun(events).sampling
    assert room.engine.requests[0].sampling == sampling
    assert (16, 0.5, ("END",)) == (sampling.max_tokens, sampling.temperature, sampling.stop)


def test_random_answers_get_a_seed_of_their_own() -> None:
    """An open seed is drawn anew for each random answer, kept when given, 0 when greedy."""
    defaults = Sampling(max_tokens=8, temperature=0.2)
    drawn = {SamplingWishes().resolve(defaults).seed for _ in range(8)}
    assert len(drawn) > 1
    assert 7 == SamplingWishes(seed=7).resolve(defaults).seed
    assert 0 == SamplingWishes(temperature=0.0).resolve(defaults).seed


@pytest.mark.parametrize(
    "make", [lambda: NotFound("chat", "x"), TurnRunning, RequestReused, lambda: StoreFull(1.0)]
)
def test_errors_say_something(make: Callable[[], ChatError]) -> None:
    """Every error has a sentence for its caller."""
    assert str(make())
