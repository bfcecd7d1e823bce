"""Answers tell the truth, wordings are split cleanly, and only answers are learnt."""

import random

import pytest
from tokenizers import Tokenizer

from training import answers, joint_stage
from training.cases import FOLLOW_UP_KINDS, SINGLE_KINDS, sample_follow_up, sample_single
from training.checkpoint import DEFAULT_FOLDER
from training.dialogues import (
    IGNORED_LABEL,
    Chat,
    ask_single,
    encode_chat,
    load_prompt_builder,
    sample_chat,
    sample_positions,
)
from training.grading import find_pairs, has_right_facts
from training.joint_stage import make_chat_batch
from training.network import EOS_TOKEN_ID, IMAGE_TOKEN_ID, MAX_POSITIONS, NUM_IMAGE_TOKENS
from training.phrasing import FRAMES
from training.scenes import Item, Scene, sample_scene
from training.splitting import WordSplitter
from training.team import Team

WHITE = (255, 255, 255)
RED_CIRCLE = Item("circle", "red", "big", 0, 0, 0.2, 0.2, 0.18, (255, 0, 0))
BLUE_STAR = Item("star", "blue", "small", 1, 2, 0.8, 0.5, 0.1, (0, 0, 255))
SCENE = Scene((RED_CIRCLE, BLUE_STAR), "white", WHITE, 1.0, 1.0)


def test_answers_state_the_facts() -> None:
    """Each wording of the truth, on a scene known by heart."""
    assert answers.describe(SCENE) == (
        "There is a big red circle at the top left and a small blue star on the right."
    )
    assert answers.compare_sizes(RED_CIRCLE, BLUE_STAR, True, yes_no=False) == (
        "The red circle is big and the blue star is small, so the red circle is bigger."
    )
    assert answers.compare_sizes(RED_CIRCLE, BLUE_STAR, False, yes_no=True) == (
        "Smaller? The red circle is big and the blue star is small, so it is bigger: no."
    )
    assert answers.compare_places(RED_CIRCLE, BLUE_STAR, "right_of") == (
        "Further right? The red circle is on the left and the blue star is on the right, "
        "so it is further left: no."
    )
    assert answers.compare_places(RED_CIRCLE, BLUE_STAR, "above") == (
        "Higher up? The red circle is at the top and the blue star is in the middle, "
        "so it is higher up: yes."
    )
    assert answers.compare_places(RED_CIRCLE, RED_CIRCLE, "below") == (
        "Lower down? The red circle is at the top and the red circle is at the top, "
        "so they are level: no."
    )
    assert answers.tell_others(RED_CIRCLE, [BLUE_STAR]) == (
        "Besides the red circle, there is a small blue star on the right."
    )
    assert answers.count(1, "cross", "crosses") == "There is one cross."
    assert answers.tell_colours("heart", []) == "There is no heart in the picture."


@pytest.mark.parametrize("kind", SINGLE_KINDS)
def test_single_answers_agree_with_the_scene(kind: str) -> None:
    """Whatever an answer names is in its scene, unless it denies it."""
    for index in range(30):
        rng = random.Random(f"{kind} {index}")
        scene = sample_scene(rng, 1 if kind == "what" else None)
        draft = ask_single(rng, kind, scene)
        if draft is None or " no " in draft.answer:
            continue
        there = {(item.colour, item.shape) for item in scene.items}
        assert find_pairs(draft.answer) <= there
        if kind == "describe":
            assert there == find_pairs(draft.answer)
        for item in scene.items:
            name = f"{item.colour} {item.shape}"
            if kind == "where" and name in draft.answer:
                assert answers.name_place(item) in draft.answer


@pytest.mark.parametrize("kind", FOLLOW_UP_KINDS)
def test_follow_ups_can_be_asked(kind: str) -> None:
    """Every follow-up has a first question, a wording and a graded answer."""
    case = sample_follow_up(random.Random(kind), kind)
    assert case.first_question
    assert "{" not in case.chat.question
    assert has_right_facts(kind, case.expected, case.expected)
    assert not has_right_facts(kind, case.expected, "I can only talk about simple shapes.")


def test_held_out_frames_are_never_trained_on() -> None:
    """The two sets of frames are disjoint and neither is empty."""
    for name, (trained, held_out) in FRAMES.items():
        assert trained, name
        assert held_out, name
        assert set(trained).isdisjoint(held_out)


def test_evaluation_is_repeatable() -> None:
    """The same seed asks the same question of the same picture."""
    one, two = (sample_single(random.Random(5), "where") for _ in range(2))
    assert one.chat.question == two.chat.question
    assert one.chat.pictures[0].tobytes() == two.chat.pictures[0].tobytes()


def test_only_answers_are_labelled() -> None:
    """Labels are the answers' ids and one end-of-sequence each; all else is ignored."""
    builder = load_prompt_builder(DEFAULT_FOLDER)
    for index in range(10):
        chat = sample_chat(random.Random(index), 4)
        encoded = encode_chat(builder, chat)
        expected: list[int] = []
        for turn in chat.turns:
            expected += [*builder.build_answer(turn.answer), EOS_TOKEN_ID]
        assert expected == [label for label in encoded.labels if label != IGNORED_LABEL]
        num_places = encoded.token_ids.count(IMAGE_TOKEN_ID)
        assert len(chat.pictures) * NUM_IMAGE_TOKENS == num_places


def test_encoding_matches_the_server() -> None:
    """A chat's ids are what the server would build from the same turns."""
    builder = load_prompt_builder(DEFAULT_FOLDER)
    chat = sample_chat(random.Random(21), 2, draw=False)
    first, second = chat.turns
    prompt = builder.join_turns(
        [
            (
                builder.build_first_turn(
                    first.question,
                    num_images=first.num_images,
                    system_prompt=chat.system_prompt,
                ),
                builder.build_answer(first.answer),
            )
        ],
        builder.build_next_turn(second.question, num_images=second.num_images),
    )
    narrow = []
    for token in encode_chat(builder, chat).token_ids:
        if token != IMAGE_TOKEN_ID or narrow[-1:] != [IMAGE_TOKEN_ID]:
            narrow.append(token)
    assert list(prompt) == narrow[: len(prompt)]


def test_long_chats_drop_whole_turns() -> None:
    """A chat that does not fit ends with a whole answer."""
    builder = load_prompt_builder(DEFAULT_FOLDER)
    encoded = encode_chat(builder, sample_chat(random.Random(2), 20, draw=False), 288)
    assert len(encoded.token_ids) <= 288
    assert encoded.token_ids[-1] == EOS_TOKEN_ID


def test_positions_only_ever_grow() -> None:
    """Jumps leave positions in order and below the model's limit."""
    builder = load_prompt_builder(DEFAULT_FOLDER)
    for index in range(20):
        rng = random.Random(index)
        encoded = encode_chat(builder, sample_chat(rng, 6, draw=False))
        positions = sample_positions(rng, encoded, len(encoded.token_ids))
        assert (positions[1:] >= positions[:-1]).all()
        assert positions[-1] < MAX_POSITIONS


def test_a_share_without_pictures_still_shows_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few long chats may all be about no picture; the vision tower gets one of its own."""

    def sample_without(rng: random.Random, max_turns: int) -> Chat:
        while (chat := sample_chat(rng, max_turns)).pictures:
            pass
        return chat

    monkeypatch.setattr(joint_stage, "sample_chat", sample_without)
    builder = load_prompt_builder(DEFAULT_FOLDER)
    splitter = WordSplitter(Tokenizer.from_file(str(DEFAULT_FOLDER / "tokenizer.json")), 0.08)
    batch = make_chat_batch(20, builder, splitter, 15, Team(1, 2))
    assert IMAGE_TOKEN_ID not in batch.token_ids
    assert (1, 3, 96, 96) == batch.pixels.shape
