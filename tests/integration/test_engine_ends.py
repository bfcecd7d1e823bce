"""How requests end before their answer does: cancelled, out of time, refused."""

import asyncio
import gc
import weakref
from dataclasses import replace

import pytest
from engine_reference import (
    ask,
    build_request,
    draw_picture,
    settle,
)
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.values import (
    Delta,
    EngineImage,
    EngineRequest,
    Finished,
    FinishReason,
    InvalidField,
    Queued,
    QueueFull,
)
from PIL import Image

pytestmark = pytest.mark.asyncio(loop_scope="module")


LONG = 400
"""Tokens of an answer that is still running when a test looks again."""


def count_free_blocks(engine: BatchingEngine) -> int:
    """Cache blocks that no request holds."""
    return engine._keeper.loop.core._scheduler.pool.num_available


async def test_cancel_delivers_what_came(engine: BatchingEngine) -> None:
    """The stream ends with CANCELLED within two steps, and the cache is free again."""
    await settle(engine)
    free = count_free_blocks(engine)
    request = build_request(engine, "x", "Cancel?", [draw_picture(5)], max_tokens=LONG)
    text = ""
    end = None
    async for event in engine.generate(request):
        if isinstance(event, Delta):
            text += event.text
            if len(text) > 10:
                engine.cancel("x")
        elif isinstance(event, Finished):
            end = event

    assert end is not None
    assert FinishReason.CANCELLED == end.finish_reason
    assert 0 < len(end.token_ids) < LONG
    await settle(engine)
    assert free == count_free_blocks(engine)
    assert {} == engine._jobs
    assert {} == engine._runs


async def test_closing_the_stream_cancels(engine: BatchingEngine) -> None:
    """A reader that goes away leaves nothing behind."""
    stream = engine.generate(
        build_request(engine, "gone", "Gone?", [draw_picture(6)], max_tokens=LONG)
    )
    await anext(stream)
    await stream.aclose()
    await settle(engine)

    assert {} == engine._runs


async def test_cancelling_the_readers_task_cancels(engine: BatchingEngine) -> None:
    """So does a deadline of the caller's."""
    request = build_request(engine, "task", "Task?", [draw_picture(7)], max_tokens=LONG)

    async def read_until_its_deadline() -> None:
        async with asyncio.timeout(None) as deadline:
            async for event in engine.generate(request):
                if isinstance(event, Delta):
                    deadline.reschedule(0)

    with pytest.raises(TimeoutError):
        await read_until_its_deadline()
    await settle(engine)

    assert {} == engine._runs


async def test_cancelling_in_the_line(engine: BatchingEngine) -> None:
    """A request that waits can be cancelled, and the one behind it moves up."""
    runners = [
        asyncio.create_task(ask(engine, build_request(engine, f"run{i}", "What?", max_tokens=LONG)))
        for i in range(3)
    ]
    await asyncio.sleep(0)
    streams = [
        engine.generate(build_request(engine, f"wait{i}", "What?", max_tokens=2)) for i in range(2)
    ]
    assert [Queued(1), Queued(2)] == [await anext(stream) for stream in streams]
    engine.cancel("wait0", FinishReason.SHUTDOWN)
    end = await anext(streams[0])

    assert isinstance(end, Finished)
    assert (FinishReason.SHUTDOWN, ()) == (end.finish_reason, end.token_ids)
    assert Queued(1) == await anext(streams[1])
    for i in range(3):
        engine.cancel(f"run{i}")
    events = [event async for event in streams[1]]
    assert isinstance(events[-1], Finished)
    assert FinishReason.MAX_TOKENS == events[-1].finish_reason
    await asyncio.gather(*runners)


async def test_a_request_that_leaves_the_line_ends_with_its_caller(engine: BatchingEngine) -> None:
    """As one that was answered: its pixels wait for no collector, which would come late."""
    await settle(engine)
    runners = [
        asyncio.create_task(ask(engine, build_request(engine, f"r{i}", "What?", max_tokens=LONG)))
        for i in range(3)
    ]
    await asyncio.sleep(0)
    gc.disable()
    try:
        stream = engine.generate(build_request(engine, "left", "What?", [draw_picture(1)]))
        assert Queued(1) == await anext(stream)
        run = weakref.ref(engine._runs["left"])
        assert run() is not None
        engine.cancel("left")
        assert [FinishReason.CANCELLED] == [event.finish_reason async for event in stream]
        del stream
        assert run() is None
    finally:
        gc.enable()
        for i in range(3):
            engine.cancel(f"r{i}")
        await asyncio.gather(*runners)


async def test_the_excess_is_refused_at_once(engine: BatchingEngine) -> None:
    """Three run, four wait, the eighth hears so before anything else; then all are served."""
    await settle(engine)
    finished: list[int] = []

    async def run(number: int) -> None:
        await ask(engine, build_request(engine, f"q{number}", "What?", max_tokens=30))
        finished.append(number)

    tasks = [asyncio.create_task(run(number)) for number in range(7)]
    await asyncio.sleep(0)
    # In its first step: whoever asks need not wait for a word to know that there is no refusal.
    first = asyncio.ensure_future(anext(engine.generate(build_request(engine, "q7", "What?"))))
    await asyncio.wait({first}, timeout=0)
    assert first.done()
    with pytest.raises(QueueFull) as refusal:
        first.result()

    assert [] == finished
    assert refusal.value.retry_after_seconds >= 1
    await asyncio.gather(*tasks)
    assert [0, 1, 2] == sorted(finished[:3])


async def test_the_time_limit_keeps_what_came(engine: BatchingEngine) -> None:
    """A running answer ends with what it has; a waiting one with nothing."""
    # How fast the machine is decides which limit passes between the first token and the last.
    for trial in range(20):
        limit_seconds = 0.01 * 1.5**trial
        requests = [
            build_request(
                engine, f"{trial}-{i}", "What?", max_tokens=1000, time_limit_seconds=seconds
            )
            for i, seconds in enumerate((*[limit_seconds] * 3, limit_seconds / 2))
        ]
        ends = [end for _, end in await asyncio.gather(*(ask(engine, r) for r in requests))]
        assert ({FinishReason.TIME_LIMIT}, ()) == (
            {end.finish_reason for end in ends},
            ends[3].token_ids,
        )
        await settle(engine)
        if all(end.token_ids for end in ends[:3]):
            break
    assert all(0 < len(end.token_ids) < 1000 for end in ends[:3])


def spoil(engine: BatchingEngine, name: str) -> EngineRequest:
    """A request with one thing wrong."""
    good = build_request(engine, name, "What?", [draw_picture(1)])
    ids = good.token_ids
    bad_ids = {
        "empty": (),
        "bos only": ids[:1],
        "no bos": ids[1:],
        "negative": (*ids, -1),
        "above": (*ids, 1280),
        "padding": (*ids, 1270),
        "float": (*ids, 5.0),
        "bool": (*ids, True),
        "picture last": (*ids, 1216),
    }
    if name in bad_ids:
        return replace(good, token_ids=bad_ids[name])  # type: ignore[arg-type]
    changes: dict[str, dict[str, object]] = {
        "no picture": {"images": ()},
        "two pictures": {"images": (*good.images, *good.images)},
        "grey": {"images": (EngineImage("grey", Image.new("L", (9, 9))),)},
        "no time": {"time_limit_seconds": 0.0},
        "no name": {"request_id": ""},
        "too hot": {"sampling": replace(good.sampling, temperature=3.0)},
        "top_k": {"sampling": replace(good.sampling, top_k=5000)},
    }
    return replace(good, **changes[name])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("empty", "token_ids"),
        ("bos only", "token_ids"),
        ("no bos", "token_ids"),
        ("negative", "token_ids"),
        ("above", "token_ids"),
        ("padding", "token_ids"),
        ("float", "token_ids"),
        ("bool", "token_ids"),
        ("picture last", "token_ids"),
        ("no picture", "images"),
        ("two pictures", "images"),
        ("grey", "images"),
        ("no time", "time_limit_seconds"),
        ("no name", "request_id"),
        ("too hot", "params.temperature"),
        ("top_k", "params.top_k"),
    ],
)
async def test_what_would_kill_the_loop_is_refused(
    engine: BatchingEngine, name: str, field: str
) -> None:
    """By its name in the contract; the engine goes on."""
    first = asyncio.ensure_future(anext(engine.generate(spoil(engine, name))))
    await asyncio.wait({first}, timeout=0)
    # A picture that is none is seen when its pixels are read, all else in the first step.
    assert first.done() or name == "grey"
    with pytest.raises(InvalidField) as refusal:
        await first

    assert field == refusal.value.field
    _, end = await ask(engine, build_request(engine, "alive", "Alive?", max_tokens=1))
    assert 1 == len(end.token_ids)


async def test_two_requests_of_one_name(engine: BatchingEngine) -> None:
    """The second is refused while the first runs, and the first goes on."""
    first = asyncio.create_task(ask(engine, build_request(engine, "twin", "Twin?", max_tokens=60)))
    await asyncio.sleep(0)
    with pytest.raises(InvalidField) as refusal:
        await ask(engine, build_request(engine, "twin", "Twin?"))
    assert "request_id" == refusal.value.field
    _, end = await first
    assert 60 == len(end.token_ids)


async def test_five_hundred_cancels_leave_nothing(engine: BatchingEngine) -> None:
    """At every stage of a request's life: no run, job, pin, place, task or block is left."""
    await settle(engine)
    free = count_free_blocks(engine)

    async def hurry(number: int) -> None:
        images = [draw_picture(number % 20)] if number % 2 else []
        request = build_request(engine, f"h{number}", "Hurry?", images, max_tokens=50)
        try:
            async with asyncio.timeout(0.001 * (number % 40)):
                await ask(engine, request)
        except (TimeoutError, QueueFull):
            pass

    for start in range(0, 500, 5):
        await asyncio.gather(*(hurry(number) for number in range(start, start + 5)))
    await settle(engine)

    assert free == count_free_blocks(engine)
    assert {} == engine._runs
    assert {} == engine._jobs
    assert {} == engine._pictures._fillings
    assert 12 == len(engine._pictures._bank._unpinned)
    assert 0 == engine._admission.num_queued
    assert not engine._keeper.loop.core.has_work
