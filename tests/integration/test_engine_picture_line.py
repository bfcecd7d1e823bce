"""Waiting among the pictures: who comes first, what is given up, and who waits for none of it."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from engine_reference import (
    ask,
    build_request,
    draw_picture,
    hold,
    make_engine,
    settle,
)
from engine_reference import write_lively_checkpoint as write_checkpoint
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.values import (
    Delta,
    EngineEvent,
    EngineImage,
    EngineUnavailable,
    Finished,
    FinishReason,
)
from PIL import Image


class HeldEncoder:
    """Holds up the first picture until `release` is set, and counts how many are encoded."""

    def __init__(self, engine: BatchingEngine) -> None:
        self.begun = asyncio.Event()
        self.release = threading.Event()
        self.encoded: list[Image.Image] = []
        self._loop = asyncio.get_running_loop()
        self._fill = engine._backend.fill_slot

    def fill(self, slot: int, picture: Image.Image) -> None:
        """In the place of the backend's."""
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.release.wait(60)
        self._fill(slot, picture)
        self.encoded.append(picture)

    @property
    def num_encoded(self) -> int:
        """How many pictures are in their slots."""
        return len(self.encoded)


@asynccontextmanager
async def hold_encoder(engine: BatchingEngine) -> AsyncIterator[HeldEncoder]:
    """An encoder that waits until the end."""
    encoder = HeldEncoder(engine)
    engine._backend.fill_slot = encoder.fill  # type: ignore[method-assign]
    try:
        yield encoder
    finally:
        encoder.release.set()


async def test_who_needs_many_pictures_is_not_passed_by_for_ever(tmp_path: Path) -> None:
    """Among callers who always have a next picture, one who needs the whole bank has a turn."""
    engine = make_engine(write_checkpoint(tmp_path / "model"), num_bank_images=4, max_running=4)
    await engine.start()
    numbers = itertools.count(100)
    is_asked = asyncio.Event()
    answered: list[str] = []

    async def ask_on(num_tokens: int) -> None:
        for _ in range(15):
            name = f"{next(numbers)}"
            request = build_request(
                engine, name, "What?", [draw_picture(int(name))], max_tokens=num_tokens
            )
            async for event in engine.generate(request):
                if isinstance(event, Delta):
                    is_asked.set()
            answered.append(name)

    others = [asyncio.create_task(ask_on(num_tokens)) for num_tokens in (40, 50, 60)]
    await is_asked.wait()
    pictures = [draw_picture(seed) for seed in range(4)]
    await ask(engine, build_request(engine, "all", "What?", pictures, max_tokens=4))
    answered.append("all")
    await asyncio.gather(*others)
    await engine.stop()

    # Those who were there before it, one more of each at most, and no more.
    assert answered.index("all") <= 6


async def test_who_asks_about_known_pictures_does_not_pass_by_for_ever(tmp_path: Path) -> None:
    """As many pass one who needs the whole bank as the bank has places, and the next one waits."""
    engine = make_engine(write_checkpoint(tmp_path / "model"), num_bank_images=2, max_running=6)
    await engine.start()
    known, *pictures = (draw_picture(seed) for seed in (1, 2, 3))
    line = engine._pictures._line

    async def begin(name: str) -> AsyncGenerator[EngineEvent, None]:
        stream = engine.generate(build_request(engine, name, "What?", [known], max_tokens=1000))
        await anext(stream)
        return stream

    running = [await begin("before")]
    both = asyncio.create_task(
        ask(engine, build_request(engine, "both", "What?", pictures, max_tokens=2))
    )
    while not line:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0)
    running += [await begin("first"), await begin("second")]
    third = asyncio.create_task(begin("third"))
    while len(line) < 2 and not third.done():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    has_passed = third.done()
    for stream in running:
        await stream.aclose()
    _, end = await both
    await (await third).aclose()
    await engine.stop()

    assert not has_passed
    assert 2 == len(end.token_ids)


async def test_who_needs_no_new_place_does_not_wait_in_line(tmp_path: Path) -> None:
    """A question about a picture that is there passes one that waits for room."""
    engine = make_engine(write_checkpoint(tmp_path / "model"), num_bank_images=2, max_running=4)
    await engine.start()
    known, other, new = (draw_picture(seed) for seed in (1, 2, 3))
    holding = engine.generate(build_request(engine, "held", "What?", [known], max_tokens=600))
    await anext(aiter(holding))
    both = asyncio.create_task(
        ask(engine, build_request(engine, "both", "What?", [other, new], max_tokens=2))
    )
    while not engine._pictures._line:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0)
    _, end = await ask(engine, build_request(engine, "known", "What?", [known], max_tokens=2))
    was_waiting = not both.done()
    await holding.aclose()
    _, end_of_both = await both
    await engine.stop()

    assert was_waiting
    assert (2, 2) == (len(end.token_ids), len(end_of_both.token_ids))


async def test_a_neighbours_picture_does_not_stand_behind_all_of_anothers(tmp_path: Path) -> None:
    """It is the next one, though the other has brought as many as fit before it."""
    engine = make_engine(write_checkpoint(tmp_path / "model"))
    await engine.start()
    *pictures, own = (draw_picture(seed) for seed in range(9))
    line = engine._pictures._encoder._waiting

    async def wait_for_line(num_waiting: int) -> None:
        async with asyncio.timeout(20):
            while sum(map(len, line.values())) < num_waiting:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0)

    def ask_about(
        name: str, tenant: str, *images: Image.Image
    ) -> asyncio.Task[tuple[str, Finished]]:
        request = build_request(engine, name, "What?", images, tenant=tenant, max_tokens=2)
        return asyncio.create_task(ask(engine, request))

    async with hold_encoder(engine) as encoder:
        asked = [
            ask_about(name, "greedy", *pictures[at : at + 4]) for name, at in (("a", 0), ("b", 4))
        ]
        await encoder.begun.wait()
        await wait_for_line(7)
        asked.append(ask_about("c", "neighbour", own))
        await wait_for_line(8)
    await asyncio.gather(*asked)
    await engine.stop()

    assert [1] == [at for at, picture in enumerate(encoder.encoded) if picture is own]
    assert 9 == encoder.num_encoded


async def test_pictures_are_read_when_it_is_nearly_their_turn(tmp_path: Path) -> None:
    """Or all that wait would lie in memory: two of one tenant, and another tenant's besides."""
    engine = make_engine(write_checkpoint(tmp_path / "model"))
    await engine.start()
    num_read, are_read = 0, asyncio.Event()

    def keep(number: int) -> EngineImage:
        async def read() -> Image.Image:
            nonlocal num_read
            num_read += 1
            if num_read == 3:
                are_read.set()
            return draw_picture(number)

        return EngineImage(f"kept-{number}", read)

    def ask_about(name: str, tenant: str, numbers: range) -> asyncio.Task[tuple[str, Finished]]:
        request = build_request(
            engine, name, "What?", [draw_picture(number) for number in numbers], tenant=tenant
        )
        images = tuple(keep(number) for number in numbers)
        return asyncio.create_task(ask(engine, replace(request, images=images)))

    async with hold_encoder(engine) as encoder:
        asked = [ask_about("a", "greedy", range(4)), ask_about("b", "greedy", range(4, 8))]
        await encoder.begun.wait()
        asked.append(ask_about("c", "neighbour", range(8, 9)))
        async with asyncio.timeout(20):
            await are_read.wait()
        for _ in range(100):  # whoever else would read has begun by now
            await asyncio.sleep(0)
        num_read_then = num_read
    await asyncio.gather(*asked)
    await engine.stop()

    assert (3, 9, 9) == (num_read_then, num_read, encoder.num_encoded)


async def wait_until_shared(engine: BatchingEngine) -> None:
    """Until two requests wait for one picture."""
    fillings = engine._pictures._fillings
    while all(len(filling.runs) < 2 for filling in fillings.values()):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0)


async def test_what_nobody_waits_for_any_more_is_not_encoded(tmp_path: Path) -> None:
    """Of a request that was cancelled: what was begun, and what another asks about as well."""
    engine = make_engine(write_checkpoint(tmp_path / "model"))
    await engine.start()
    pictures = [draw_picture(seed) for seed in range(5)]
    async with hold_encoder(engine) as encoder:
        gone = asyncio.create_task(ask(engine, build_request(engine, "gone", "What?", pictures)))
        await encoder.begun.wait()
        there = asyncio.create_task(
            ask(engine, build_request(engine, "there", "What?", pictures[3:4], max_tokens=2))
        )
        await wait_until_shared(engine)
        engine.cancel("gone")
        await gone
    _, end = await there
    await settle(engine)
    fillings, num_unpinned = engine._pictures._fillings, len(engine._pictures._bank._unpinned)
    await engine.stop()

    assert (2, 2) == (len(end.token_ids), encoder.num_encoded)
    assert ({}, 12) == (fillings, num_unpinned)


async def test_who_is_gone_before_its_picture_is_begun_gives_its_place_back(tmp_path: Path) -> None:
    """In the batch and in the bank, to another picture, while the encoder is still at work."""
    engine = make_engine(write_checkpoint(tmp_path / "model"), num_bank_images=2, max_running=2)
    await engine.start()
    first, second, third, fourth, fifth = (draw_picture(seed) for seed in range(5))

    def ask_about(name: str, *images: Image.Image) -> asyncio.Task[tuple[str, Finished]]:
        return asyncio.create_task(ask(engine, build_request(engine, name, "What?", images)))

    _, expected = await ask_about("before", third)
    await ask_about("others", fourth, fifth)
    async with hold_encoder(engine) as encoder:
        held = ask_about("held", first)
        await encoder.begun.wait()
        gone = ask_about("gone", second)
        while engine.load.num_running < 2 or len(engine._pictures._fillings) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        following = ask_about("following", third)
        engine.cancel("gone")
        await gone
        async with asyncio.timeout(20):
            while len(engine._pictures._fillings) < 2:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0)
            is_inside = engine.load.num_queued == 0
    _, end = await following
    await held
    await engine.stop()

    assert is_inside
    assert expected.token_ids == end.token_ids
    assert 2 == encoder.num_encoded


async def test_stopping_does_not_wait_for_pictures(tmp_path: Path) -> None:
    """The loop ends while the encoder is at work, and what was not begun never is."""
    engine = make_engine(write_checkpoint(tmp_path / "model"))
    await engine.start()
    pictures = [draw_picture(seed) for seed in range(3)]
    thread = engine._keeper.loop.thread
    async with hold_encoder(engine) as encoder:
        asked = asyncio.create_task(ask(engine, build_request(engine, "r", "What?", pictures)))
        await encoder.begun.wait()
        stopping = asyncio.create_task(engine.stop())
        await asyncio.to_thread(thread.join, 20)
        is_alive = thread.is_alive()
    await stopping
    _, end = await asked

    assert not is_alive
    assert (1, FinishReason.SHUTDOWN) == (encoder.num_encoded, end.finish_reason)


async def test_a_picture_that_another_can_not_read_is_encoded_from_one_s_own(
    tmp_path: Path,
) -> None:
    """Who began hears of the error; who waited and has the pixels is answered."""
    engine = make_engine(write_checkpoint(tmp_path / "model"))
    await engine.start()
    own = hold(draw_picture(1))
    fails = asyncio.Event()

    async def read() -> Image.Image:
        await fails.wait()
        raise EngineUnavailable(5)

    begun, waiting = (
        asyncio.create_task(ask(engine, build_request(engine, name, "What?", [image])))
        for name, image in (("begun", EngineImage(own.id, read)), ("waiting", own))
    )
    await wait_until_shared(engine)
    fails.set()
    with pytest.raises(EngineUnavailable):
        await begun
    _, end = await waiting
    await engine.stop()

    assert 24 == len(end.token_ids)


async def test_a_repetition_penalty_does_not_wait_for_pictures(tmp_path: Path) -> None:
    """A question without pictures is answered while the encoder is at work on another's."""
    engine = make_engine(write_checkpoint(tmp_path / "model"))
    await engine.start()
    async with hold_encoder(engine) as encoder:
        looking = asyncio.create_task(
            ask(engine, build_request(engine, "looks", "What?", [draw_picture(1)], max_tokens=2))
        )
        await encoder.begun.wait()
        request = build_request(engine, "text", "What?", max_tokens=2, repetition_penalty=1.3)
        async with asyncio.timeout(20):
            _, end = await ask(engine, request)
    _, seen = await looking
    await engine.stop()

    assert (2, 2) == (len(end.token_ids), len(seen.token_ids))


async def test_waiting_for_room_in_the_bank_is_told_as_waiting(tmp_path: Path) -> None:
    """All time from the arrival to the last token is in one phase, and the same in the timings."""
    engine = make_engine(write_checkpoint(tmp_path / "model"), num_bank_images=1, max_running=4)
    await engine.start()
    holding = engine.generate(
        build_request(engine, "held", "What?", [draw_picture(1)], max_tokens=600)
    )
    await anext(aiter(holding))
    waiting = asyncio.create_task(
        ask(engine, build_request(engine, "waits", "What?", [draw_picture(2)], max_tokens=2))
    )
    while not engine._pictures._line:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0)
    waited_from = time.perf_counter()
    await anext(aiter(holding))
    waited_until = time.perf_counter()
    await holding.aclose()
    _, end = await waiting
    await engine.stop()

    phases, timings = end.phases, end.timings
    assert ["queue", "vision", "queue", "prefill", "decode"] == [phase.name for phase in phases]
    assert [p.ended_seconds for p in phases[:-1]] == [p.began_seconds for p in phases[1:]]
    assert phases[0].began_seconds < waited_from < waited_until < phases[0].ended_seconds
    assert timings.queue_seconds > waited_until - waited_from
    parts = timings.queue_seconds + timings.vision_seconds + timings.prefill_seconds
    assert parts == pytest.approx(timings.first_token_seconds)
