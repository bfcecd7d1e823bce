"""A turn and those who follow it: when it counts as followed, as left, and as given up."""

import asyncio
from contextlib import aclosing

from llavachat_server.chats.live import Ended, LiveTurn
from llavachat_server.values import Delta, FinishReason, Timings, Usage

END = Ended(FinishReason.EOS, None, Usage(0, 0, 0, 0, 0), Timings(0, 0, 0, 0, 0))


def test_a_turn_has_no_names_before_it_is_kept() -> None:
    """Whoever counts turns may ask for them earlier."""
    live = LiveTurn("body", lambda _: None)
    assert ("body", "", "") == (live.body_sha256, live.chat_id, live.turn_id)


async def test_without_grace_the_last_one_who_leaves_ends_it() -> None:
    """At once, and not while another one follows."""
    given_up: list[LiveTurn] = []
    live = LiveTurn("", given_up.append)
    live.publish(Delta("A", 0))
    assert not live.is_followed
    async with aclosing(live.follow()) as first:
        await anext(first)
        async with aclosing(live.follow()) as second:
            await anext(second)
        assert live.is_followed
        assert [] == given_up
    assert not live.is_followed
    assert [live] == given_up


async def test_who_comes_back_in_time_keeps_it() -> None:
    """The time that was left for it counts no longer, and begins anew after the next leave."""
    given_up: list[LiveTurn] = []
    live = LiveTurn("", given_up.append, grace_seconds=60.0)
    live.publish(Delta("A", 0))
    timers: list[asyncio.TimerHandle] = []
    for _ in range(2):
        async with aclosing(live.follow()) as events:
            await anext(events)
            assert not live.is_abandoned
            assert all(timer.cancelled() for timer in timers)
        assert live.is_abandoned
        assert live._grace is not None
        timers.append(live._grace)
    assert [True, False] == [timer.cancelled() for timer in timers]
    live.publish(END)
    assert not live.is_abandoned
    # The time may be over in the moment in which it ends.
    live._give_up()
    assert [] == given_up
    timers[-1].cancel()


async def test_what_a_follower_has_is_not_told_again() -> None:
    """Neither parts of the answer that lie before it, nor the beginning of one, nor empty ones."""
    live = LiveTurn("", lambda _: None)
    for event in (Delta("A ", 0), Delta("red ", 2), Delta("star", 6), END):
        live.publish(event)
    told = [[event async for event in live.follow(offset)] for offset in (0, 2, 4, 10)]
    assert [
        [Delta("A ", 0), Delta("red ", 2), Delta("star", 6), END],
        [Delta("red ", 2), Delta("star", 6), END],
        [Delta("d ", 4), Delta("star", 6), END],
        [END],
    ] == told
