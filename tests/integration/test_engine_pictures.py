"""No order of chats, evictions and used-up ids ever shows a chat another chat's picture."""

import asyncio
import gc
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from engine_reference import (
    Reference,
    ask,
    build_request,
    draw_picture,
    make_engine,
)
from engine_reference import write_lively_checkpoint as write_checkpoint
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.values import (
    Delta,
    EngineImage,
    EngineRequest,
    EngineUnavailable,
    InvalidField,
)
from PIL import Image

NUM_CHATS = 100
NUM_PICTURES = 12
NUM_BANK_IMAGES = 4
NUM_AT_ONCE = 3
MAX_TOKENS = 6
TOKENS_PER_IMAGE = 64


@dataclass
class Chat:
    """A chat as the caller keeps it: the ids of its turns, its pictures, whose it is."""

    tenant: str
    images: list[Image.Image | EngineImage]
    turns: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)


def make_request(
    engine: BatchingEngine, rng: random.Random, chat: Chat, name: str
) -> tuple[EngineRequest, tuple[int, ...]]:
    """The chat's next question, now and then with one more picture; and that question's ids."""
    is_first = not chat.turns
    brings_picture = not is_first and len(chat.images) < 2 and rng.random() < 0.2
    images = list(chat.images)
    if brings_picture:
        images.append(draw_picture(rng.randrange(NUM_PICTURES)))
    question = rng.choice(("What is it?", "Where?", "Why so?", "And the other one?"))
    if is_first:
        asked = engine.prompts.build_first_turn(question, system_prompt="Be brief.")
    else:
        asked = engine.prompts.build_next_turn(question, num_images=int(brings_picture))
    ids = engine.prompts.join_turns(chat.turns, asked) if chat.turns else asked
    request = build_request(
        engine,
        name,
        question,
        images,
        token_ids=ids,
        tenant=chat.tenant,
        max_tokens=MAX_TOKENS,
    )
    return request, asked


async def test_pixels_are_read_only_where_their_features_are_missing(tmp_path: Path) -> None:
    """A follow-up reads none; once the picture has left the bank it is read again; what can not be
    read fails its own request alone."""
    engine = make_engine(write_checkpoint(tmp_path / "model"), num_bank_images=2)
    await engine.start()
    picture, other, third = (draw_picture(seed) for seed in (1, 2, 3))
    num_reads = 0
    error: Exception | None = None

    async def read() -> Image.Image:
        nonlocal num_reads
        num_reads += 1
        if error is not None:
            raise error
        return picture

    async def look() -> tuple[int, ...]:
        request = build_request(engine, "lazy", "What is it?", [EngineImage("kept", read)])
        return (await ask(engine, request))[1].token_ids

    at_hand = build_request(engine, "at hand", "What is it?", [picture])
    expected = (await ask(engine, at_hand))[1].token_ids
    assert [expected, expected] == [await look(), await look()]
    assert 1 == num_reads
    await ask(engine, build_request(engine, "both", "What are they?", [other, third]))
    error = EngineUnavailable(5)
    with pytest.raises(EngineUnavailable):
        await look()
    error = None
    assert expected == await look()
    assert 3 == num_reads
    grey = replace(at_hand, request_id="grey", images=(EngineImage("grey", picture.convert("L")),))
    with pytest.raises(InvalidField, match="RGB"):
        await ask(engine, grey)
    await engine.stop()


async def test_two_pictures_that_fail_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The request fails by the first; nothing is left that the event loop complains about."""
    engine = make_engine(write_checkpoint(tmp_path / "model"))
    await engine.start()

    async def read() -> Image.Image:
        raise EngineUnavailable(5)

    images = [EngineImage(name, read) for name in ("one", "other")]
    with pytest.raises(EngineUnavailable):
        await ask(engine, build_request(engine, "a", "What?", images))
    await engine.stop()
    gc.collect()

    assert [] == [record.message for record in caplog.records if record.name == "asyncio"]


async def start_and_leave(engine: BatchingEngine, request: EngineRequest) -> None:
    """Read one piece of an answer and go."""
    stream = engine.generate(request)
    async for event in stream:
        if isinstance(event, Delta):
            break
    await stream.aclose()


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_answer_is_about_its_own_picture(tmp_path: Path, seed: int) -> None:
    """100 chats about 12 pictures, a bank of four, a cache for three, ids that are used up
    again and again, readers who leave: every answer equals generate()'s."""
    folder = write_checkpoint(tmp_path / "model")
    engine = make_engine(
        folder, num_bank_images=NUM_BANK_IMAGES, max_running=NUM_AT_ONCE, kv_cache_tokens=768
    )
    await engine.start()
    bank = engine._pictures._bank
    bank._max_id = bank._first_id + 3 * NUM_BANK_IMAGES * TOKENS_PER_IMAGE - 1
    reference = Reference(folder, engine)
    rng = random.Random(seed)
    alive: list[Chat] = []
    num_begun = num_compared = num_cached = 0
    while num_begun < NUM_CHATS:
        chosen: list[Chat] = []
        for _ in range(NUM_AT_ONCE):
            old = [chat for chat in alive if chat not in chosen]
            if old and rng.random() < 0.4:
                chosen.append(rng.choice(old))
            else:
                picture = draw_picture(rng.randrange(NUM_PICTURES))
                chosen.append(Chat(rng.choice("ab"), [picture]))
                num_begun += 1
        made = [
            make_request(engine, rng, chat, f"{num_begun}.{i}") for i, chat in enumerate(chosen)
        ]
        leaver = rng.randrange(NUM_AT_ONCE) if rng.random() < 0.3 else None
        jobs = [
            start_and_leave(engine, request) if index == leaver else ask(engine, request)
            for index, (request, _) in enumerate(made)
        ]
        for chat, (request, asked), answer in zip(
            chosen, made, await asyncio.gather(*jobs), strict=True
        ):
            if answer is None:
                continue
            end = answer[1]
            expected = reference.generate(request.token_ids, request.images, MAX_TOKENS)
            assert expected == end.token_ids, (num_begun, chat.tenant)
            chat.turns.append((asked, end.token_ids))
            chat.images = list(request.images)
            num_compared += 1
            num_cached += end.usage.cached_tokens > 0
        new = [chat for chat in chosen if chat.turns and chat not in alive]
        alive = [chat for chat in (*alive, *new) if len(chat.turns) < 3][-8:]
    await engine.stop()

    assert num_compared > NUM_CHATS
    # Prefixes were reused, or nothing was tried.
    assert num_cached > NUM_CHATS / 8
