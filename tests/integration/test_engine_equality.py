"""The engine's greedy answers are model.generate()'s, token for token."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from engine_reference import (
    SHAPES_FOLDER,
    Reference,
    ask,
    build_request,
    draw_picture,
    make_engine,
    write_lively_checkpoint,
)
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.native.apart import Kernels
from token_text import decode_tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTIONS = [
    "What is this?",
    "How many shapes are there?",
    "Is there a circle?",
    "Describe the picture, please, as well as you can.",
    "What colour?",
    "Which is bigger, the left one or the right one?",
    "And?",
    "Tell me all you see; then tell me what you do not see.",
    "Hello",
]


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=["lively weights", "lively weights, compiled", "embedded model"],
)
async def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kernels: Kernels,
    kernels_folder: Path,
) -> AsyncIterator[tuple[BatchingEngine, Reference]]:
    """An engine and generate() on one checkpoint."""
    folder = SHAPES_FOLDER
    if request.param.startswith("lively weights"):
        folder = write_lively_checkpoint(tmp_path_factory.mktemp("model") / "lively")
    is_compiled = "compiled" in request.param
    engine = make_engine(
        Path(folder),
        compile_steps=is_compiled,
        compiled_folder=str(kernels_folder),
        num_threads=1 + is_compiled,
    )
    await engine.start()
    assert ("cpu, compiled" if is_compiled else "cpu") == engine.info.device
    yield engine, Reference(folder, engine)
    await engine.stop()


async def test_alone(pair: tuple[BatchingEngine, Reference]) -> None:
    """One question about one picture, 48 tokens."""
    engine, reference = pair
    request = build_request(engine, "alone", QUESTIONS[0], [draw_picture(1)], max_tokens=48)
    text, end = await ask(engine, request)

    assert reference.generate(request.token_ids, request.images, 48) == end.token_ids
    assert decode_tokens(engine._backend.table, end.token_ids) == text


async def test_with_eight_neighbours(pair: tuple[BatchingEngine, Reference]) -> None:
    """Nine chats at once about nine pictures: each answer is what it would be alone."""
    engine, reference = pair
    requests = [
        build_request(engine, f"n{i}", question, [draw_picture(10 + i)], max_tokens=32)
        for i, question in enumerate(QUESTIONS)
    ]
    answers = await asyncio.gather(*(ask(engine, request) for request in requests))
    expected = [reference.generate(r.token_ids, r.images, 32) for r in requests]

    assert expected == [end.token_ids for _, end in answers]


async def test_joining_while_others_run(pair: tuple[BatchingEngine, Reference]) -> None:
    """Prompts that enter between the tokens of others change nothing for either."""
    engine, reference = pair
    requests = [
        build_request(engine, f"j{i}", question, [draw_picture(30 + i)], max_tokens=32)
        for i, question in enumerate(QUESTIONS[:5])
    ]
    answers = []
    for request in requests:
        answers.append(asyncio.create_task(ask(engine, request)))
        # The next one comes when this one is under way.
        await asyncio.sleep(0.03)
    ends = [end for _, end in await asyncio.gather(*answers)]
    expected = [reference.generate(r.token_ids, r.images, 32) for r in requests]

    assert expected == [end.token_ids for end in ends]


async def test_turn_after_turn_from_the_cache(pair: tuple[BatchingEngine, Reference]) -> None:
    """Three turns: most of each prompt is cached, and the answers stay equal."""
    engine, reference = pair
    picture = draw_picture(50)
    turns: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for number, question in enumerate(QUESTIONS[:3]):
        turn = (
            engine.prompts.build_next_turn(question)
            if turns
            else engine.prompts.build_first_turn(question)
        )
        prompt = engine.prompts.join_turns(turns, turn)
        request = build_request(engine, f"t{number}", "", [picture], token_ids=prompt)
        _, end = await ask(engine, request)
        assert reference.generate(prompt, [picture], 24) == end.token_ids
        if turns:
            known = sum(len(ids) for pair in turns for ids in pair) + 63
            assert known - 32 <= end.usage.cached_tokens
        turns.append((turn, end.token_ids))


async def test_two_pictures_in_one_prompt(pair: tuple[BatchingEngine, Reference]) -> None:
    """In their order; exchanged they are another prompt."""
    engine, reference = pair
    one, two = draw_picture(60), draw_picture(61)
    answers = []
    for name, images in (("ab", [one, two]), ("ba", [two, one])):
        request = build_request(engine, name, "What is the difference?", images)
        _, end = await ask(engine, request)
        assert reference.generate(request.token_ids, images, 24) == end.token_ids
        answers.append(end)
    assert 0 < answers[0].usage.text_tokens == answers[1].usage.text_tokens
    assert 128 == answers[1].usage.image_tokens
    assert answers[1].usage.cached_tokens < 64


async def test_without_a_picture(pair: tuple[BatchingEngine, Reference]) -> None:
    """Plain text works too."""
    engine, reference = pair
    request = build_request(engine, "text", "Who are you?")
    _, end = await ask(engine, request)

    assert reference.generate(request.token_ids, [], 24) == end.token_ids
    assert 0 == end.usage.image_tokens


async def test_with_a_repetition_penalty(pair: tuple[BatchingEngine, Reference]) -> None:
    """The penalty is generate()'s, and a neighbour without one is not touched by it."""
    engine, reference = pair
    images = [draw_picture(70)]
    with_penalty = build_request(
        engine, "with", QUESTIONS[0], images, max_tokens=32, repetition_penalty=1.3
    )
    without = build_request(engine, "without", QUESTIONS[0], images, max_tokens=32)
    (_, penalised), (_, plain) = await asyncio.gather(
        ask(engine, with_penalty), ask(engine, without)
    )

    assert plain.token_ids == reference.generate(without.token_ids, images, 32)
    assert penalised.token_ids == reference.generate(
        without.token_ids, images, 32, repetition_penalty=1.3
    )


async def test_a_prompt_longer_than_a_step(pair: tuple[BatchingEngine, Reference]) -> None:
    """A prompt of over 256 tokens enters in parts, beside a running answer."""
    engine, reference = pair
    long = build_request(engine, "long", "What is this? " * 60, [draw_picture(80)])
    short = build_request(engine, "short", "What?", [draw_picture(81)], max_tokens=32)
    (_, long_end), (_, short_end) = await asyncio.gather(ask(engine, long), ask(engine, short))

    assert long_end.usage.text_tokens > 256
    assert reference.generate(long.token_ids, long.images, 24) == long_end.token_ids
    assert reference.generate(short.token_ids, short.images, 32) == short_end.token_ids


async def test_a_full_cache_makes_answers_wait_not_wrong(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Six chats in a cache for about two: all finish, all equal, and once more."""
    folder = write_lively_checkpoint(tmp_path_factory.mktemp("model") / "tight")
    engine = make_engine(folder, kv_cache_tokens=384)
    await engine.start()
    reference = Reference(folder, engine)
    requests = [
        build_request(engine, f"f{i}", question, [draw_picture(90 + i)], max_tokens=48)
        for i, question in enumerate(QUESTIONS[:6])
    ]
    expected = [reference.generate(r.token_ids, r.images, 48) for r in requests]
    for _ in range(2):
        answers = await asyncio.gather(*(ask(engine, request) for request in requests))
        assert expected == [end.token_ids for _, end in answers]
    await engine.stop()
