"""Requests side by side: how they stream, what they share, and what is told of them."""

import asyncio
import gc
import itertools
from dataclasses import replace

import pytest
from engine_reference import (
    ask,
    build_request,
    draw_picture,
    settle,
)
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.run import Run
from llavachat_server.values import (
    ContextFull,
    Delta,
    FinishReason,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_answers_stream_side_by_side(engine: BatchingEngine) -> None:
    """Three chats: each one's deltas come between those of the others."""
    order: list[int] = []

    async def read(number: int) -> None:
        request = build_request(engine, f"s{number}", "What?", [draw_picture(number)])
        async for event in engine.generate(request):
            if isinstance(event, Delta):
                order.append(number)

    await asyncio.gather(*(read(number) for number in range(3)))
    switches = sum(a != b for a, b in itertools.pairwise(order))

    assert {0, 1, 2} == set(order)
    assert switches > 10


async def test_a_slow_reader_holds_nobody_up(engine: BatchingEngine) -> None:
    """One reads its first word and stops; the other finishes; the first misses nothing."""
    request = build_request(engine, "slow", "What?", [draw_picture(1)])
    expected, _ = await ask(engine, replace(request, request_id="before"))
    stream = engine.generate(request)
    first = await anext(stream)
    assert isinstance(first, Delta)
    await ask(engine, build_request(engine, "fast", "How many?", [draw_picture(2)]))
    await settle(engine)
    events = [event async for event in stream]

    # What was not read yet is one delta, not a heap of them.
    assert 2 == len(events)
    assert isinstance(events[0], Delta)
    assert expected == first.text + events[0].text
    assert len(first.text) == events[0].char_offset


async def test_a_request_ends_with_its_caller(engine: BatchingEngine) -> None:
    """No collector has to come, which counts objects and not their bytes: a request has pixels."""
    await settle(engine)
    gc.collect()
    gc.disable()
    try:
        await ask(engine, build_request(engine, "whole", "What?", [draw_picture(1)]))
        await settle(engine)
        assert [] == [each for each in gc.get_objects() if type(each) is Run]
    finally:
        gc.enable()


async def test_usage_and_timings(engine: BatchingEngine) -> None:
    """Counts add up; times are where they belong; the second turn finds its prefix."""
    request = build_request(engine, "u1", "Usage and timings?", [draw_picture(3)], max_tokens=20)
    _, first = await ask(engine, request)
    _, second = await ask(engine, replace(request, request_id="u2"))

    prompt = len(request.token_ids) + 63
    assert prompt == first.usage.text_tokens + first.usage.image_tokens
    assert 64 == first.usage.image_tokens
    assert len(first.token_ids) == first.usage.completion_tokens
    assert 4096 - prompt - 20 == first.usage.context_left_tokens
    assert 0 < first.timings.vision_seconds < first.timings.first_token_seconds
    assert 0 < first.timings.prefill_seconds < first.timings.first_token_seconds
    assert 0 < first.timings.decode_seconds
    parts = first.timings
    total = parts.queue_seconds + parts.vision_seconds + parts.prefill_seconds
    assert total == pytest.approx(parts.first_token_seconds)
    assert 0 == second.timings.vision_seconds
    assert prompt - 17 <= second.usage.cached_tokens < prompt
    assert first.token_ids == second.token_ids


async def test_a_stop_text_ends_the_answer(engine: BatchingEngine) -> None:
    """It is not part of the answer, its name is told, and the ids spell no more than was shown."""
    request = build_request(engine, "plain", "Stop?", [draw_picture(4)], max_tokens=40)
    text, plain = await ask(engine, request)
    word = text[len(text) // 2 : len(text) // 2 + 3]
    stopped = replace(
        request, request_id="stop", sampling=replace(request.sampling, stop=(word, "\0\0"))
    )
    shown, end = await ask(engine, stopped)

    assert text[: text.index(word)] == shown
    assert (FinishReason.STOP_SEQUENCE, word) == (end.finish_reason, end.matched_stop)
    assert plain.token_ids[: len(end.token_ids)] == end.token_ids
    assert len(end.token_ids) < 40
    await settle(engine)


async def test_max_tokens(engine: BatchingEngine) -> None:
    """Exactly as many as asked for."""
    _, end = await ask(engine, build_request(engine, "m", "What?", max_tokens=7))

    assert (7, FinishReason.MAX_TOKENS) == (len(end.token_ids), end.finish_reason)


async def test_one_token(engine: BatchingEngine) -> None:
    """The shortest answer."""
    _, end = await ask(engine, build_request(engine, "m1", "What?", max_tokens=1))

    assert (1, FinishReason.MAX_TOKENS) == (len(end.token_ids), end.finish_reason)


async def test_the_context_ends_the_answer(engine: BatchingEngine) -> None:
    """A prompt that leaves room for nine tokens gets nine; one longer by nine gets none."""
    filler = engine.prompts.build_first_turn("a", num_images=0)
    prompt = (*filler[:1], *[filler[5]] * (4096 - 9 - 1))
    request = build_request(engine, "c", "", token_ids=prompt, max_tokens=50)
    _, end = await ask(engine, request)

    assert (9, FinishReason.MAX_CONTEXT) == (len(end.token_ids), end.finish_reason)
    assert 0 == end.usage.context_left_tokens
    full = replace(request, token_ids=(*prompt, *prompt[1:10]))
    with pytest.raises(ContextFull) as refusal:
        await ask(engine, full)
    assert (4096, 0, 4096) == (
        refusal.value.text_tokens,
        refusal.value.image_tokens,
        refusal.value.context_tokens,
    )


async def test_a_seed_gives_the_same_answer_in_any_company(engine: BatchingEngine) -> None:
    """Alone, beside others, and from the cache; another seed gives another answer."""
    request = build_request(
        engine, "seed", "Seed?", [draw_picture(8)], temperature=1.0, top_p=0.95, seed=2**63 + 5
    )
    _, alone = await ask(engine, request)
    company = [
        build_request(engine, f"other{i}", "Other?", [draw_picture(i)], temperature=0.9, seed=i)
        for i in range(2)
    ]
    answers = await asyncio.gather(
        *(ask(engine, r) for r in (*company, replace(request, request_id="again")))
    )
    other_seed = replace(request, request_id="another", sampling=replace(request.sampling, seed=6))
    _, another = await ask(engine, other_seed)

    assert alone.token_ids == answers[-1][1].token_ids
    assert alone.token_ids != another.token_ids


async def test_tenants_share_no_prefix(engine: BatchingEngine) -> None:
    """Same prompt, same picture, other tenant: nothing is found in the cache, text neither."""
    request = build_request(engine, "t1", "Whose is it? " * 4, [draw_picture(9)], tenant="one")
    _, first = await ask(engine, request)
    _, own = await ask(engine, replace(request, request_id="t2"))
    _, other = await ask(engine, replace(request, request_id="t3", tenant="two"))
    text = replace(
        build_request(engine, "t4", "Only text, and a good deal of it, so that pages fill."),
        tenant="one",
    )
    _, text_first = await ask(engine, text)
    _, text_other = await ask(engine, replace(text, request_id="t5", tenant="three"))

    assert 0 == first.usage.cached_tokens
    assert own.usage.cached_tokens > 64
    assert 0 == other.usage.cached_tokens
    assert other.timings.vision_seconds > 0
    assert text_first.usage.cached_tokens > 0  # the system sentence, from the turns before
    assert 0 == text_other.usage.cached_tokens
    assert first.token_ids == other.token_ids == own.token_ids


async def test_an_evicted_picture_is_encoded_again(engine: BatchingEngine) -> None:
    """With new ids: more pictures than slots, and the first one's answer is still its own."""
    request = build_request(engine, "e", "Evicted?", [draw_picture(100)])
    _, before = await ask(engine, request)
    for number in range(13):
        await ask(
            engine,
            build_request(engine, f"e{number}", "?", [draw_picture(200 + number)], max_tokens=1),
        )
    _, after = await ask(engine, replace(request, request_id="e-again"))

    assert before.token_ids == after.token_ids
    assert after.timings.vision_seconds > 0
    assert after.usage.cached_tokens < 64


async def test_many_ask_about_one_new_picture_at_once(engine: BatchingEngine) -> None:
    """It is encoded once, and everybody gets the same answer."""
    calls: list[int] = []
    fill = engine._backend.fill_slot

    def count(slot: int, pixels: object) -> None:
        calls.append(slot)
        fill(slot, pixels)  # type: ignore[arg-type]

    engine._backend.fill_slot = count  # type: ignore[method-assign, assignment]
    requests = [build_request(engine, f"o{i}", "One?", [draw_picture(300)]) for i in range(3)]
    answers = await asyncio.gather(*(ask(engine, request) for request in requests))
    del engine._backend.fill_slot

    assert 1 == len(calls)
    assert 1 == len({end.token_ids for _, end in answers})
