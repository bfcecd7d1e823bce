"""Prompts from recorded turns: prefixes, counts, and what is left out when room runs out."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.chats.context import LEAST_ROOM_TOKENS, ContextBuilder
from llavachat_server.chats.record import Turn, TurnState
from llavachat_server.images.intake import ImageInfo
from llavachat_server.values import ContextFull, ModelInfo, Quantization, Sampling
from scripted_engine import IMAGE_TOKEN_ID, NUM_IMAGE_TOKENS, shapes_prompts

MODEL = ModelInfo("shapes", "shapes", "", Quantization.NONE, "")
PROMPTS = shapes_prompts()


def builder(context_tokens: int = 4096) -> ContextBuilder:
    """A builder for a context of any size."""
    return ContextBuilder(PROMPTS, context_tokens, NUM_IMAGE_TOKENS, MODEL)


def image(number: int) -> ImageInfo:
    """A picture's record."""
    return ImageInfo(f"{number:064x}", 10, 10, "image/png")


def ask(history: list[Turn], prompt: str, answer: str, *images: ImageInfo) -> Turn:
    """A finished turn after a history."""
    context = builder(10**6).build(history, prompt, images)
    return Turn(
        id=f"turn-{len(history)}",
        parent_id=history[-1].id if history else None,
        prompt=prompt,
        images=images,
        question_ids=context.question_ids,
        num_trimmed_turns=0,
        num_untrimmed_tokens=context.count.total,
        sampling=Sampling(max_tokens=8),
        model=MODEL,
        created_at=datetime.now(UTC),
        state=TurnState.FINISHED,
        answer=answer,
        answer_ids=PROMPTS.encode_text(answer),
    )


def talk(num_turns: int) -> list[Turn]:
    """A history about two pictures, the second one in its second turn."""
    history: list[Turn] = []
    for index in range(num_turns):
        images = (image(index),) if index < 2 else ()
        history.append(ask(history, f"Question {index}?", f"Answer {index}.", *images))
    return history


def expected_text(history: list[Turn], question: str) -> str:
    """The template, written by hand."""
    from llavachat_server.engine.prompt import SYSTEM_PROMPT

    text = f"{SYSTEM_PROMPT} "
    for turn in history:
        pictures = "<image>\n" * len(turn.images)
        text += f"USER: {pictures}{turn.prompt} ASSISTANT: {turn.answer}</s>"
    return f"{text}USER: {question} ASSISTANT:"


def test_each_prompt_begins_with_the_one_before_it() -> None:
    """Turn n + 1's ids begin with turn n's prompt and answer, id for id."""
    history = talk(3)
    seen: tuple[int, ...] = ()
    for index, turn in enumerate(history):
        ids = builder().build(history[:index], turn.prompt, turn.images).token_ids
        assert seen == ids[: len(seen)]
        seen = (*ids, *turn.answer_ids)


def test_the_whole_prompt_is_the_template() -> None:
    """A conversation's prompt, shown as text, is the training template word for word."""
    history = talk(2)
    ids = builder().build(history, "And?", ()).token_ids
    plain = PROMPTS.render(ids).replace(" <image> \n", "<image>\n").replace("<s> ", "")
    plain = plain.replace("USER:<image>", "USER: <image>").replace("</s> ", "</s>")
    assert expected_text(history, "And?") == plain


def test_pictures_stand_in_their_order_one_placeholder_each() -> None:
    """Placeholders and pictures agree in number, and follow the turns."""
    history = talk(3)
    context = builder().build(history, "Both?", (image(7), image(8)))
    assert (image(0), image(1), image(7), image(8)) == context.images
    assert 4 == context.token_ids.count(IMAGE_TOKEN_ID)


def test_count_agrees_with_build() -> None:
    """Counting a question gives what asking it would use, with and without a history."""
    for history in ([], talk(1), talk(4)):
        images = (image(9),)
        built = builder().build(history, "How many are there?", images).count
        assert built == builder().count(history, "How many are there?", len(images))


def test_count_is_the_length_with_wide_pictures() -> None:
    """The total is the ids, with every placeholder as wide as a picture."""
    context = builder().build(talk(3), "And?", (image(5),))
    wide = len(context.token_ids) + 3 * (NUM_IMAGE_TOKENS - 1)
    assert wide == context.count.total
    assert NUM_IMAGE_TOKENS == context.count.image_tokens


def test_a_full_context_is_refused_with_counts() -> None:
    """Without leave to drop turns, the counts tell where the room went."""
    history = talk(3)
    total = builder().build(history, "And?", ()).count.total
    with pytest.raises(ContextFull) as caught:
        builder(total).build(history, "And?", ())
    error = caught.value
    assert (0, total) == (error.image_tokens, error.context_tokens)
    assert total == error.text_tokens + error.history_tokens
    assert error.history_tokens > 2 * NUM_IMAGE_TOKENS
    assert () == builder(total + 1).build(history, "And?", ()).trimmed_turn_ids


def test_dropping_keeps_the_system_prompt_and_the_pictures() -> None:
    """The oldest turns go; the sentence of the system and every picture stay, in order."""
    history = talk(4)
    full = builder().build(history, "And?", ())
    room = full.count.total + 8 - 1
    context = builder(room).build(history, "And?", (), drop_for_tokens=8)
    assert ("turn-0",) == context.trimmed_turn_ids
    assert full.count.total == context.num_tokens_before
    assert context.count.total + 8 <= room
    assert full.images == context.images
    text = PROMPTS.render(context.token_ids)
    assert text.startswith("<s> A chat between a curious human")
    assert "Question 0?" not in text
    assert "Question 1?" in text
    assert 2 == context.token_ids.count(IMAGE_TOKEN_ID)


def test_dropping_goes_no_further_than_it_must() -> None:
    """With one token more of room nothing is dropped."""
    history = talk(4)
    total = builder().build(history, "And?", ()).count.total
    assert () == builder(total + 8).build(history, "And?", (), drop_for_tokens=8).trimmed_turn_ids


def test_when_all_is_dropped_the_question_is_a_first_one() -> None:
    """In the narrowest room the question stands alone, with every picture before it."""
    history = talk(4)
    alone = builder().build((), "And?", (image(0), image(1)))
    context = builder(alone.count.total + 1).build(history, "And?", (), drop_for_tokens=8)
    assert alone.token_ids == context.token_ids
    assert 4 == len(context.trimmed_turn_ids)
    with pytest.raises(ContextFull):
        builder(alone.count.total).build(history, "And?", (), drop_for_tokens=8)


def test_a_trimmed_turn_still_records_its_natural_question() -> None:
    """What is recorded is the question as it stands untrimmed, so that later prompts are right."""
    history = talk(3)
    full = builder().build(history, "And?", ())
    narrow = builder(full.count.total).build(history, "And?", (), drop_for_tokens=8)
    assert narrow.trimmed_turn_ids
    assert full.question_ids == narrow.question_ids


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=5),
    context_tokens=st.integers(100, 600),
    room=st.integers(1, 64),
)
def test_what_is_built_fits_or_is_refused(
    turns: list[tuple[str, str]], context_tokens: int, room: int
) -> None:
    """Whatever was said, a prompt that is built leaves room, and its counts are its length."""
    history: list[Turn] = []
    for question, answer in turns:
        history.append(ask(history, question, answer, image(len(history))))
    try:
        context = builder(context_tokens).build(history, "So?", (), drop_for_tokens=room)
    except ContextFull:
        return
    num_images = len(context.images)
    assert len(history) == num_images
    wide = len(context.token_ids) + num_images * (NUM_IMAGE_TOKENS - 1)
    assert wide == context.count.total < context_tokens
    assert num_images == context.token_ids.count(IMAGE_TOKEN_ID)


def drop_one_by_one(
    history: list[Turn], prompt: str, images: tuple[ImageInfo, ...], context_tokens: int, room: int
) -> tuple[int, tuple[int, ...]]:
    """The plain way: build the whole prompt anew for each number of turns that is left out.

    Returns:
        How many turns go, and the prompt: the fewest that leave the answer its room, or else the
        least room, or else all of them.
    """
    prompts = [leave_out(history, num, prompt, images) for num in range(len(history) + 1)]
    for least in (room, min(room, LEAST_ROOM_TOKENS)):
        for num_dropped, ids in enumerate(prompts):
            if count_wide(ids) + least <= context_tokens:
                return num_dropped, ids
    return len(history), prompts[-1]


def leave_out(
    history: list[Turn], num_dropped: int, prompt: str, images: tuple[ImageInfo, ...]
) -> tuple[int, ...]:
    """The prompt without so many turns, whose pictures stay."""
    kept = history[num_dropped:]
    moved = [image for turn in history[:num_dropped] for image in turn.images]
    if not kept:
        return PROMPTS.build_first_turn(prompt, num_images=len(moved) + len(images))
    exchanges = [(turn.question_ids, turn.answer_ids) for turn in kept]
    if num_dropped:
        num_images = len(moved) + len(kept[0].images)
        opening = PROMPTS.build_first_turn(kept[0].prompt, num_images=num_images)
        exchanges[0] = (opening, kept[0].answer_ids)
    return PROMPTS.join_turns(exchanges, PROMPTS.build_next_turn(prompt, num_images=len(images)))


def count_wide(ids: tuple[int, ...]) -> int:
    """Tokens with pictures at full width."""
    return len(ids) + ids.count(IMAGE_TOKEN_ID) * (NUM_IMAGE_TOKENS - 1)


said = st.tuples(st.text(max_size=40), st.text(max_size=40), st.integers(0, 2), st.booleans())


@settings(max_examples=300, deadline=None)
@given(
    turns=st.lists(said, min_size=1, max_size=8),
    num_new=st.integers(0, 2),
    data=st.data(),
    room=st.integers(1, 64) | st.integers(LEAST_ROOM_TOKENS - 1, 600),
)
def test_dropping_leaves_out_what_the_plain_way_does(
    turns: list[tuple[str, str, int, bool]], num_new: int, data: st.DataObject, room: int
) -> None:
    """Whatever was said, with pictures anywhere: as many turns go, and the prompt is the same."""
    history: list[Turn] = []
    for question, answer, num_images, is_closed in turns:
        images = tuple(image(10 * len(history) + number) for number in range(num_images))
        turn = ask(history, question, answer, *images)
        if is_closed:
            turn = replace(turn, answer_ids=(*turn.answer_ids, PROMPTS.special.eos))
        history.append(turn)
    new = tuple(image(1000 + number) for number in range(num_new))
    total = builder(10**6).build(history, "So?", new).count.total
    context_tokens = data.draw(st.integers(total // 4, total + room + 1))
    num_dropped, ids = drop_one_by_one(history, "So?", new, context_tokens, room)
    num_tokens = count_wide(ids)
    if num_tokens >= context_tokens:
        with pytest.raises(ContextFull) as caught:
            builder(context_tokens).build(history, "So?", new, drop_for_tokens=room)
        error = caught.value
        assert num_tokens == error.text_tokens + error.image_tokens + error.history_tokens
        return
    context = builder(context_tokens).build(history, "So?", new, drop_for_tokens=room)
    assert ids == context.token_ids
    assert tuple(turn.id for turn in history[:num_dropped]) == context.trimmed_turn_ids
    assert total == context.num_tokens_before


class CountingPrompts:
    """The real prompts, and how many ids were joined."""

    def __init__(self) -> None:
        self.num_joined = 0

    def __getattr__(self, name: str) -> object:
        return getattr(PROMPTS, name)

    def join_turns(self, *parts: Any) -> tuple[int, ...]:
        """Count, and do it."""
        ids = PROMPTS.join_turns(*parts)
        self.num_joined += len(ids)
        return ids


def test_a_long_history_is_dropped_in_one_go() -> None:
    """However many turns are left out, nothing is put together but the prompt that is asked."""
    first = ask([], "What is it?", "A circle.")
    history = [first, *[ask([first], "And now?", "The same.")] * 400]
    prompts = CountingPrompts()
    contexts = ContextBuilder(prompts, 200, NUM_IMAGE_TOKENS, MODEL)
    context = contexts.build(history, "And?", (), drop_for_tokens=8)
    assert len(context.trimmed_turn_ids) > 300
    assert len(context.token_ids) == prompts.num_joined
    with pytest.raises(ContextFull):
        contexts.build(history, "And?", ())
    assert contexts.count(history, "And?", 0).total > 4000
    assert len(context.token_ids) == prompts.num_joined


def show(num_pictures: int, said: str = "What is this?") -> list[Turn]:
    """A chat that shows pictures and then is about something else."""
    pictures = tuple(image(number) for number in range(num_pictures))
    history = [ask([], "What are these?", "Shapes.", *pictures)]
    for _ in range(4):
        history.append(ask(history, said, "A circle. " * 10))
    return history


def test_turns_stay_that_need_not_go_for_an_answer_that_has_no_room_anyway() -> None:
    """Pictures leave less than was asked for: an answer has the least room, the words the rest."""
    history = show(6)
    alone = builder().build((), "And?", history[0].images).count.total
    room = LEAST_ROOM_TOKENS + 150
    asked = {"drop_for_tokens": room + 1}
    narrow = builder(alone + room).build(history, "And?", (), **asked)
    assert 0 < len(narrow.trimmed_turn_ids) < len(history)
    assert narrow.count.total <= alone + room - LEAST_ROOM_TOKENS
    wide = builder(alone + room + 1).build(history, "And?", (), **asked)
    assert len(history) == len(wide.trimmed_turn_ids)


@pytest.mark.parametrize("drop_for_tokens", [None, 8])
@settings(max_examples=40, deadline=None)
@given(
    num_pictures=st.integers(0, 4),
    question=st.text(max_size=60),
    said=st.text(max_size=30),
    more_tokens=st.integers(-200, 300),
)
def test_what_is_advised_would_help(
    drop_for_tokens: int | None, num_pictures: int, question: str, said: str, more_tokens: int
) -> None:
    """What is said to make room makes it; a chat that is said to be at its end takes nothing."""
    history = show(num_pictures, said)
    least = builder().build((), "", history[0].images).count.total
    contexts = builder(max(least + more_tokens, 1))
    error = find_refusal(contexts, history, question, drop_for_tokens)
    if error is None:
        return
    assert num_pictures * NUM_IMAGE_TOKENS == error.picture_tokens
    assert not (error.can_drop and drop_for_tokens is not None)
    if error.can_drop:
        assert None is find_refusal(contexts, history, question, 1)
    assert error.can_shorten is (find_refusal(contexts, history, "", 1) is None)
    assert error.can_keep_turns is (find_refusal(contexts, history, "", None) is None)
    least = question if error.can_shorten else ""
    fits_bare = find_refusal(contexts, [], least, None) is None
    assert error.can_leave_pictures is (num_pictures > 0 and fits_bare)


def find_refusal(
    contexts: ContextBuilder, history: list[Turn], question: str, drop_for_tokens: int | None
) -> ContextFull | None:
    """Why it does not fit."""
    try:
        contexts.build(history, question, (), drop_for_tokens=drop_for_tokens)
    except ContextFull as error:
        return error
    return None
