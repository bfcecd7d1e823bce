"""The engine's own life: starting, stopping, failing and coming back."""

import asyncio
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from engine_reference import (
    Reference,
    ask,
    build_request,
    draw_picture,
    make_engine,
    write_lively_checkpoint,
)
from llavachat_server.engine.batching.budget import MAX_STEP_SECONDS
from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.keeper import EngineState
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.cache import make_cache
from llavachat_server.values import (
    EngineFailed,
    EngineUnavailable,
    Finished,
    FinishReason,
)
from processes import PATIENCE_SECONDS, count_sleeps, wait_until_asleep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of lively weights."""
    return write_lively_checkpoint(tmp_path_factory.mktemp("model") / "lively")


async def test_steps_that_give_nobody_a_token_are_in_the_load(folder: Path) -> None:
    """A prompt in parts: whoever watches hears of each, by the way that tokens take."""
    engine = make_engine(folder, exact=True, max_batch_tokens=16)
    await engine.start()
    began = time.monotonic()
    before = engine.load.silent_step_at_seconds
    await ask(engine, build_request(engine, "a", "What is this? " * 20, max_tokens=1))
    after = engine.load.silent_step_at_seconds
    await engine.stop()

    assert before == 0
    assert began < after


async def test_pictures_are_in_the_load(folder: Path) -> None:
    """Where every place waits for one there is no step, and whoever watches hears of them."""
    engine = make_engine(folder)
    await engine.start()
    await ask(engine, build_request(engine, "a", "What?", max_tokens=1))
    began = time.monotonic()
    before = engine.load.silent_step_at_seconds
    encoded: list[float] = []
    submit = engine._keeper.loop.submit

    def note(job: Any) -> bool:
        encoded.append(engine.load.silent_step_at_seconds)
        return submit(job)

    engine._keeper.loop.submit = note  # type: ignore[method-assign]
    await ask(engine, build_request(engine, "b", "What?", [draw_picture(1)], max_tokens=1))
    await engine.stop()

    assert before < began < encoded[0]


def break_loop(engine: BatchingEngine) -> None:
    """Have the loop's thread trip over nonsense."""
    engine._keeper.loop._inbox.put("nonsense")  # type: ignore[arg-type]


async def test_an_engine_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    """Whoever stops need not know how far it came; one that failed to start is the same."""
    await BatchingEngine(EngineSettings(model=str(tmp_path))).stop()
    engine = BatchingEngine(EngineSettings(model=str(tmp_path)))
    with pytest.raises(LoadingError):
        await engine.start()
    await engine.stop()


@pytest.mark.parametrize("stage", ["weights", "cache"])
async def test_an_engine_that_is_stopped_while_it_starts_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """And no thread of it stays behind."""
    engine = make_engine(folder)
    event_loop, stopped = asyncio.get_running_loop(), threading.Event()
    made: list[Any] = []
    tell, make_loop = engine._tell, engine._keeper._make_loop

    async def stop() -> None:
        await engine.stop()
        stopped.set()

    def tell_and_stop(name: str, seconds: float | None) -> None:
        # On the worker, which goes on when the engine has been stopped.
        tell(name, seconds)
        if name == stage and seconds is None:
            asyncio.run_coroutine_threadsafe(stop(), event_loop)
            stopped.wait(20)

    async def note(*words: Any) -> Any:
        made.append(await make_loop(*words))
        return made[-1]

    monkeypatch.setattr(engine, "_tell", tell_and_stop)
    monkeypatch.setattr(engine._keeper, "_make_loop", note)
    with pytest.raises(EngineUnavailable):
        await engine.start()
    for loop in made:
        await asyncio.to_thread(loop.thread.join, 10)

    assert stopped.is_set()
    assert [False] * (stage == "cache") == [loop.thread.is_alive() for loop in made]


async def test_before_start_and_after_stop_nothing_is_taken(folder: Path) -> None:
    """EngineUnavailable, with a time to come back."""
    engine = make_engine(folder)
    started = make_engine(folder)
    await started.start()
    request = build_request(started, "r", "What?")
    with pytest.raises(EngineUnavailable):
        await ask(engine, request)
    await started.stop()
    with pytest.raises(EngineUnavailable) as refusal:
        await ask(started, request)

    assert refusal.value.retry_after_seconds > 0


async def test_stop_ends_running_and_waiting_requests_as_shutdown(folder: Path) -> None:
    """With what came; and the loop's thread is gone."""
    engine = make_engine(folder, max_running=1)
    await engine.start()
    streams = [
        engine.generate(build_request(engine, f"s{i}", "What?", max_tokens=1000)) for i in range(2)
    ]
    for stream in streams:
        await anext(stream)
    thread = engine._keeper.loop.thread
    await engine.stop()
    ends = [[event async for event in stream][-1] for stream in streams]

    assert all(isinstance(end, Finished) for end in ends)
    assert [FinishReason.SHUTDOWN] * 2 == [e.finish_reason for e in ends if isinstance(e, Finished)]
    assert not thread.is_alive()


async def test_a_dead_loop_fails_its_requests_and_comes_back_once(folder: Path) -> None:
    """Running: EngineFailed at once. Meanwhile: unavailable. Then as before. Then fatal."""
    engine = make_engine(folder, max_running=2)
    await engine.start()
    request = build_request(engine, "before", "Same?", [draw_picture(1)])
    _, before = await ask(engine, request)

    streams = [
        engine.generate(build_request(engine, f"run{i}", "What?", max_tokens=1000))
        for i in range(2)
    ]
    for stream in streams:
        await anext(stream)
    waiting = asyncio.create_task(ask(engine, build_request(engine, "wait", "What?")))
    await asyncio.sleep(0)
    break_loop(engine)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for stream in streams:
            with pytest.raises(EngineFailed) as failure:
                async for _ in stream:
                    pass
            assert "nonsense" not in str(failure.value)
    with pytest.raises(EngineUnavailable):
        await ask(engine, request)

    # Who waited for a place is served by the new loop.
    _, waited = await waiting
    assert 24 == len(waited.token_ids)
    assert EngineState.READY is engine.state
    assert engine.fatal is not None
    assert not engine.fatal.done()
    _, after = await ask(engine, build_request(engine, "after", "Same?", [draw_picture(1)]))
    assert before.token_ids == after.token_ids
    assert 0 == after.timings.vision_seconds

    break_loop(engine)
    async with asyncio.timeout(PATIENCE_SECONDS):
        reason = await engine.fatal
    assert reason
    assert EngineState.DEAD is engine.state
    with pytest.raises(EngineUnavailable):
        await ask(engine, build_request(engine, "dead", "What?"))
    await engine.stop()


async def test_a_loop_begun_anew_knows_what_steps_take(folder: Path) -> None:
    """Of a slow machine's first prompt one step is no longer than before: else it seems to hang."""
    engine = make_engine(folder, max_batch_tokens=64)
    await engine.start()
    old = engine._keeper.loop
    old.core._scheduler.budget.observe(1, 0, 0.01)
    old.core._scheduler.budget.observe(0, 64, 64 * MAX_STEP_SECONDS)
    break_loop(engine)
    async with asyncio.timeout(30):
        await asyncio.to_thread(old.thread.join)
        while engine.state is not EngineState.READY:
            await engine._keeper.wait()
    core = engine._keeper.loop.core
    request = build_request(engine, "a", "What is this? " * 20, max_tokens=1)
    await ask(engine, request)
    await engine.stop()

    assert engine._keeper.loop is not old
    num_fewest = -(-len(request.token_ids) // 64)
    assert num_fewest < 3 < core.num_steps


async def test_a_dead_loop_s_cache_is_gone_before_the_next_one_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two caches at once do not fit where the first one took what there was, as on a GPU."""
    engine = make_engine(folder)
    caches: list[weakref.ref[Any]] = []
    left: list[int] = []

    def make_and_note(*arguments: Any, **options: Any) -> Any:
        left.append(sum(cache() is not None for cache in caches))
        attention, pool = make_cache(*arguments, **options)
        caches.append(weakref.ref(attention))
        return attention, pool

    def fail(*_: Any) -> None:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr("llavachat_server.engine.tensors.backend.make_cache", make_and_note)
    await engine.start()
    engine._keeper.loop.core._runner.forward = fail  # type: ignore[assignment,method-assign]
    for number in range(2):
        with pytest.raises(EngineFailed):
            await ask(engine, build_request(engine, f"broken{number}", "What?"))
    await engine._keeper.wait()
    _, finished = await ask(engine, build_request(engine, "whole", "What?"))
    assert 24 == len(finished.token_ids)
    assert [0, 0] == left
    await engine.stop()
    assert [None, None] == [cache() for cache in caches]


async def test_a_failing_encoder_fails_only_its_request(folder: Path) -> None:
    """The neighbour goes on, and the same picture can be asked about again."""
    engine = make_engine(folder)
    await engine.start()
    fill = engine._backend.fill_slot

    def fail(slot: int, pixels: object) -> None:
        raise RuntimeError("out of memory at /secret/path")

    neighbour = asyncio.create_task(
        ask(engine, build_request(engine, "n", "What?", max_tokens=100))
    )
    engine._backend.fill_slot = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(EngineFailed) as failure:
        await ask(engine, build_request(engine, "bad", "What?", [draw_picture(1)]))
    engine._backend.fill_slot = fill  # type: ignore[method-assign]
    _, again = await ask(engine, build_request(engine, "good", "What?", [draw_picture(1)]))

    assert "secret" not in str(failure.value)
    assert 24 == len(again.token_ids)
    assert 100 == len((await neighbour)[1].token_ids)
    await engine.stop()


async def test_used_up_picture_ids_begin_anew_without_stale_answers(folder: Path) -> None:
    """After the wrap the same ids mean other pictures; no cached prefix may survive it."""
    engine = make_engine(folder, num_bank_images=2, max_running=2)
    await engine.start()
    bank = engine._pictures._bank
    bank._max_id = bank._first_id + 2 * 2 * 64 - 1  # two generations of two slots
    requests = [build_request(engine, f"a{i}", "What?", [draw_picture(i)]) for i in range(9)]
    firsts = [(await ask(engine, request))[1] for request in requests]
    reference = Reference(folder, engine)
    expected = [reference.generate(r.token_ids, r.images, 24) for r in requests]

    assert expected == [end.token_ids for end in firsts]
    # Even the system sentence goes with a flush: at least one request found nothing.
    assert 0 in [end.usage.cached_tokens for end in firsts[1:]]
    await engine.stop()


async def test_an_idle_engine_uses_no_cpu(folder: Path) -> None:
    """Its thread sleeps until it is asked again: the kernel does not wake it once."""
    engine = make_engine(folder)
    await engine.start()
    await ask(engine, build_request(engine, "r", "What?", [draw_picture(1)]))
    thread_id = engine._keeper.loop.thread.native_id
    assert thread_id is not None
    await asyncio.to_thread(wait_until_asleep, thread_id)
    before = count_sleeps(thread_id)
    await asyncio.sleep(0.5)
    after = count_sleeps(thread_id)
    await engine.stop()

    assert before == after


async def test_a_loop_that_is_begun_while_the_engine_stops_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its thread nor its cache stay behind."""
    engine = make_engine(folder)
    await engine.start()
    make_loop, old, made = engine._keeper._make_loop, engine._keeper.loop, []
    event_loop, is_begun, is_old_stopped = (
        asyncio.get_running_loop(),
        asyncio.Event(),
        asyncio.Event(),
    )

    async def make_late(*words: Any) -> Any:
        loop = await make_loop(*words)
        made.append(loop)
        is_begun.set()
        await is_old_stopped.wait()
        return loop

    monkeypatch.setattr(engine._keeper, "_make_loop", make_late)
    monkeypatch.setattr(old, "stop", lambda _: event_loop.call_soon_threadsafe(is_old_stopped.set))
    break_loop(engine)
    async with asyncio.timeout(30):
        await is_begun.wait()
        await engine.stop()
    await asyncio.to_thread(made[0].thread.join, 10)

    assert [False] == [loop.thread.is_alive() for loop in made]
