"""Replays that end before the answer does: the server stops, or their time is over."""

import asyncio
from dataclasses import replace

import pytest
from chat_room import TENANT, make_turns
from llavachat_server.chats.errors import ReplayCut, ReplayOverLimit, ShuttingDown
from llavachat_server.chats.live import LiveTurn
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import NewChat, Question, SamplingWishes
from llavachat_server.chats.record import Chat, TurnState
from llavachat_server.chats.replay import Change, Verdict, _fit_sampling, find_changes
from llavachat_server.chats.turns import Turns
from llavachat_server.values import Delta, FinishReason, Sampling
from scripted_engine import Hold, ScriptedEngine
from store_records import end, make_turn


async def answered(turns: Turns) -> LiveTurn:
    """A turn that has been answered."""
    live = turns.ask(TENANT, Question(NewChat(), "What is this?"))
    async for _ in live.follow():
        pass
    return live


async def replay(turns: Turns, live: LiveTurn) -> list[Delta | Verdict]:
    """Replay it to the end."""
    return [event async for event in turns.replay(TENANT, live.chat_id, live.turn_id)]


async def test_stopping_lets_a_replay_end_within_its_grace() -> None:
    """It comes to its verdict, and nothing is waited for after it; another is not begun."""
    hold = Hold("A circle.")
    turns = make_turns(ScriptedEngine("A circle.", hold))
    live = await answered(turns)
    replaying = asyncio.create_task(replay(turns, live))
    await hold.said.wait()
    stopping = asyncio.create_task(turns.stop(grace_seconds=3600))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        await replay(turns, live)
    assert not stopping.done()
    hold.release.set()
    await stopping
    assert Verdict(None, ()) == (await replaying)[-1]


async def test_stopping_ends_a_replay_after_its_grace() -> None:
    """Who reads it is told that the server stops, and when to come back."""
    hold = Hold("A circle.")
    engine = ScriptedEngine("A circle.", hold)
    turns = make_turns(engine)
    replaying = asyncio.create_task(replay(turns, await answered(turns)))
    await hold.said.wait()
    await turns.stop(grace_seconds=0)
    assert {engine.requests[1].request_id: FinishReason.SHUTDOWN} == engine.cancelled
    assert replaying.done()
    with pytest.raises(ShuttingDown):
        await replaying


async def test_a_replay_that_is_ended_as_it_begins_ends() -> None:
    """Even while its chat is read, before the engine knows of it."""

    class SlowStore(MemoryStore):
        """Reads a branch once it may."""

        def __init__(self) -> None:
            super().__init__()
            self.is_asked, self.may_read = asyncio.Event(), asyncio.Event()

        async def get_branch(self, tenant: str, chat_id: str, turn_id: str | None) -> Chat:
            """Wait, and do it."""
            self.is_asked.set()
            await self.may_read.wait()
            return await super().get_branch(tenant, chat_id, turn_id)

    engine, store = ScriptedEngine("A circle.", Hold()), SlowStore()
    turns = make_turns(engine, store)
    replaying = asyncio.create_task(replay(turns, await answered(turns)))
    await store.is_asked.wait()
    stopping = asyncio.create_task(turns.stop(grace_seconds=0))
    await asyncio.sleep(0)
    store.may_read.set()
    await stopping
    with pytest.raises(ShuttingDown):
        await replaying
    assert 1 == len(engine.requests)


async def replay_until_time_is_over(recorded: str, now: str) -> Verdict:
    """Replay an answer that has come to `now` when it reaches the time limit."""
    hold = Hold(now)
    engine = ScriptedEngine(recorded, hold)
    turns = make_turns(engine)
    replaying = asyncio.create_task(replay(turns, await answered(turns)))
    await hold.said.wait()
    engine.cancel(engine.requests[1].request_id, FinishReason.TIME_LIMIT)
    verdict = (await replaying)[-1]
    assert isinstance(verdict, Verdict)
    return verdict


async def test_a_replay_that_is_cut_by_its_time_is_no_other_answer() -> None:
    """What it came to is the beginning of the record: nothing is known of the rest."""
    with pytest.raises(ReplayCut):
        await replay_until_time_is_over("A circle.", "A")


async def test_a_difference_before_the_cut_is_told() -> None:
    """And so is an answer that had come whole, or beyond its record."""
    assert Verdict(1, ()) == await replay_until_time_is_over("A circle.", "A square")
    assert Verdict(None, ()) == await replay_until_time_is_over("A circle.", "A circle.")
    assert Verdict(1, ()) == await replay_until_time_is_over("A", "A circle.")


def test_a_tokenizer_that_was_not_noted_is_named() -> None:
    """It may have changed, for all that the record tells; one that was noted is compared."""
    info = ScriptedEngine().info
    told = [
        [change for change in find_changes(turn, info, "d" * 64) if "tokenizer_" in change.name]
        for turn in (make_turn(), make_turn(tokenizer_sha256=""))
    ]
    assert [[], [Change("tokenizer_sha256", "", "d" * 64)]] == told


@pytest.mark.parametrize(
    ("reason", "state", "asked", "limit", "expected"),
    [
        (FinishReason.EOS, TurnState.FINISHED, 64, 64, 64),
        (FinishReason.EOS, TurnState.FINISHED, 64, 4, 4),
        (FinishReason.EOS, TurnState.FINISHED, 64, 3, None),
        (FinishReason.MAX_TOKENS, TurnState.FINISHED, 3, 3, 3),
        (FinishReason.MAX_TOKENS, TurnState.FINISHED, 3, 2, None),
        # "###" takes three tokens more, and one that begins it.
        (FinishReason.STOP_SEQUENCE, TurnState.FINISHED, 64, 7, 7),
        (FinishReason.STOP_SEQUENCE, TurnState.FINISHED, 64, 6, None),
        (FinishReason.CANCELLED, TurnState.CANCELLED, 64, 3, 3),
        (FinishReason.CANCELLED, TurnState.CANCELLED, 64, 2, None),
    ],
)
def test_a_replay_is_as_long_as_its_record(
    reason: FinishReason, state: TurnState, asked: int, limit: int, expected: int | None
) -> None:
    """Three tokens and what told their end are within today's limit, or it is refused by name."""
    turn = replace(end(make_turn(), reason=reason), sampling=Sampling(asked, top_k=2000))
    assert (state, 3) == (turn.state, len(turn.answer_ids))
    info = replace(ScriptedEngine().info, max_tokens=limit)
    if expected is None:
        with pytest.raises(ReplayOverLimit, match=f"this server's limit is {limit}"):
            _fit_sampling(turn, info)
        return
    assert Sampling(expected, top_k=info.vocab_size) == _fit_sampling(turn, info)


async def test_a_prompt_that_has_outgrown_the_context_is_not_replayed() -> None:
    """A server with less room says so, and not that the question should be shorter."""
    engine = ScriptedEngine("A circle.")
    live = await answered(make_turns(engine, store := MemoryStore()))
    narrow = make_turns(ScriptedEngine(context_tokens=20), store)
    with pytest.raises(ReplayOverLimit, match="its prompt takes"):
        await replay(narrow, live)


async def test_a_replay_is_not_refused_for_what_was_asked_then() -> None:
    """The record's limit is over today's, its answer is not."""
    store = MemoryStore()
    question = Question(NewChat(), "What?", wishes=SamplingWishes(max_tokens=500))
    live = make_turns(ScriptedEngine("A circle."), store).ask(TENANT, question)
    async for _ in live.follow():
        pass
    engine = ScriptedEngine("A circle.")
    engine.info = replace(engine.info, max_tokens=32)
    verdict = (await replay(make_turns(engine, store), live))[-1]
    assert Verdict(None, ()) == verdict
    assert engine.requests[0].sampling.max_tokens <= 32
