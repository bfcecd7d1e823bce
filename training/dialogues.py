"""Chats about pictures, as token ids with labels on the answers only.

Prompts are built by the server's own `PromptBuilder`, so that training and serving can never
tokenise differently.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from llavachat_server.engine.prompt import PromptBuilder, SpecialTokens
from numpy.typing import NDArray
from PIL import Image

from training import answers
from training.drafts import Draft
from training.follow_up_questions import FOLLOW_UP
from training.network import (
    BOS_TOKEN_ID,
    EOS_TOKEN_ID,
    IMAGE_TOKEN_ID,
    MAX_POSITIONS,
    NUM_IMAGE_TOKENS,
)
from training.phrasing import phrase, phrase_talk
from training.rendering import draw_scene
from training.scenes import Item, Scene, sample_scene
from training.single_questions import SINGLE
from training.wordings.talk import SYSTEM_PROMPTS

SPECIAL_TOKENS = SpecialTokens(bos=BOS_TOKEN_ID, eos=EOS_TOKEN_ID, image=IMAGE_TOKEN_ID)
IGNORED_LABEL = -100

_TALK_ANSWERS = {
    "greeting": (2.0, answers.GREETING),
    "thanks": (2.0, answers.THANKS),
    "goodbye": (0.7, answers.GOODBYE),
    "who": (2.0, answers.WHO),
    "off_topic": (6.0, answers.OFF_TOPIC),
    "how_do_you_know": (1.0, answers.HOW_DO_YOU_KNOW),
}

_NUM_ITEMS = ((0, 1, 2, 3), (4, 22, 38, 36))
"""How many items a picture shows, and how often: more than elsewhere, since each one more to tell
apart is more to learn from."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    Attributes:
        kind: the type of the question.
        question: as the user types it.
        answer: the truth.
        num_images: how many pictures come with the question.
        scene_index: which of the chat's scenes it is about; None for none.
        focus: what 'it' means afterwards.
        listed: see `Draft`.
    """

    kind: str
    question: str
    answer: str
    num_images: int = 0
    scene_index: int | None = None
    focus: Item | None = None
    listed: tuple[Item, ...] = ()


@dataclass(slots=True)
class Chat:
    """Turns and the pictures they came with, in order."""

    system_prompt: str | None = None
    draw: bool = True
    turns: list[Turn] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """A chat as the model sees it.

    Attributes:
        token_ids: (tokens,); every picture widened to its placeholders.
        labels: (tokens,); the id to be written *at* this place, or `IGNORED_LABEL`.
        turn_starts: where each later turn's question begins.
        answer_starts: where each turn's answer begins.
    """

    token_ids: list[int]
    labels: list[int]
    turn_starts: list[int]
    answer_starts: list[int]


def load_prompt_builder(folder: Path) -> PromptBuilder:
    """The server's prompt builder on the checkpoint's tokenizer."""
    return PromptBuilder.from_folder(folder, SPECIAL_TOKENS)


def sample_chat(rng: random.Random, num_turns: int = 9, *, draw: bool = True) -> Chat:
    """Make up a chat; most are about one picture, some about none or two.

    Args:
        rng: the only source of chance.
        num_turns: questions, each with its answer.
        draw: False leaves the pictures out, for those who want only the text.
    """
    chat = Chat(draw=draw)
    if rng.random() < 0.10:
        chat.system_prompt = rng.choice(SYSTEM_PROMPTS)
    kind = rng.random()
    # No picture at all, one that comes late, two at once, a second one later, or just one.
    first_picture_at = 0
    second_picture_at = None
    if kind < 0.04:
        first_picture_at = num_turns
    elif kind < 0.12:
        first_picture_at = rng.randint(1, 3)
    elif kind < 0.15:
        _ask_about_two(rng, chat)
        first_picture_at = -1
    elif kind < 0.23:
        second_picture_at = rng.randint(1, 4)
    focus: Item | None = None
    scene: Scene | None = chat.scenes[-1] if chat.scenes else None
    while len(chat.turns) < num_turns:
        index = len(chat.turns)
        num_images = 0
        if index in (first_picture_at, second_picture_at):
            scene, focus, num_images = _add_picture(rng, chat), None, 1
        is_fresh = num_images > 0 or index == 0
        turn, focus = _next_turn(rng, chat, scene, focus, num_images, is_fresh)
        chat.turns.append(turn)
    return chat


def ask_single(rng: random.Random, kind: str, scene: Scene, plain: bool = False) -> Draft | None:
    """A draft of a single question, or None where the scene does not allow it."""
    return SINGLE[kind][1](rng, scene, None, plain)


def ask_follow_up(
    rng: random.Random, kind: str, scene: Scene, focus: Item | None, plain: bool = False
) -> Draft | None:
    """A draft of a follow-up about ``focus``, or None where it cannot be asked."""
    return FOLLOW_UP[kind][1](rng, scene, focus, plain)


def encode_chat(
    builder: PromptBuilder,
    chat: Chat,
    max_tokens: int = MAX_POSITIONS,
    split: Callable[[Sequence[int]], Sequence[int]] | None = None,
) -> EncodedChat:
    """Token ids and labels; only what the assistant says is learnt.

    Args:
        builder: the server's prompt builder.
        chat: what to encode.
        max_tokens: turns that would pass it are left out, whole, and all that follow them.
        split: takes the ids of a question and gives others of the same text; see
            `training.splitting`.
    """
    ids: list[int] = []
    labels: list[int] = []
    starts = []
    answer_starts = []
    for index, turn in enumerate(chat.turns):
        if index == 0:
            prompt = builder.build_first_turn(
                turn.question, num_images=turn.num_images, system_prompt=chat.system_prompt
            )
        else:
            prompt = builder.build_next_turn(turn.question, num_images=turn.num_images)
        if split is not None:
            prompt = _split_question(prompt, split, is_first=index == 0)
        wide = widen_images(prompt)
        answer = [*builder.build_answer(turn.answer), EOS_TOKEN_ID]
        if len(ids) + len(wide) + len(answer) > max_tokens:
            break
        if index:
            starts.append(len(ids))
        answer_starts.append(len(ids) + len(wide))
        ids += [*wide, *answer]
        labels += [*([IGNORED_LABEL] * len(wide)), *answer]
    return EncodedChat(ids, labels, starts, answer_starts)


def widen_images(token_ids: Sequence[int]) -> list[int]:
    """Each picture's one placeholder becomes as many as it has features."""
    wide = []
    for token in token_ids:
        wide += [token] * (NUM_IMAGE_TOKENS if token == IMAGE_TOKEN_ID else 1)
    return wide


def sample_positions(rng: random.Random, encoded: EncodedChat, num_tokens: int) -> NDArray[Any]:
    """Positions of a chat's tokens; in some chats they jump between turns.

    A small model trained on short chats fails on long ones, where positions are that it has never
    seen. Jumps show it all of them at the price of short chats.
    """
    positions = np.arange(num_tokens)
    starts = [start for start in encoded.turn_starts if start < num_tokens]
    if starts and rng.random() < 0.4:
        for start in rng.sample(starts, rng.randint(1, min(4, len(starts)))):
            positions[start:] += round(10 * 90 ** rng.random())
        excess = int(positions[-1]) - (MAX_POSITIONS - 1)
        if excess > 0:
            positions = np.minimum(positions, MAX_POSITIONS - 1)
    return positions


def sample_talk(rng: random.Random, held_out: bool = False) -> Turn:
    """A turn that needs no picture."""
    kinds = list(_TALK_ANSWERS)
    kind = rng.choices(kinds, [_TALK_ANSWERS[kind][0] for kind in kinds])[0]
    return Turn(kind, phrase_talk(rng, kind, held_out=held_out), _TALK_ANSWERS[kind][1])


def _split_question(
    prompt: tuple[int, ...], split: Callable[[Sequence[int]], Sequence[int]], *, is_first: bool
) -> tuple[int, ...]:
    # What stands before a picture is always typed by the server: the system prompt, 'USER:'.
    if IMAGE_TOKEN_ID in prompt:
        begin = len(prompt) - prompt[::-1].index(IMAGE_TOKEN_ID)
    else:
        begin = len(prompt) if is_first else 0
    return (*prompt[:begin], *split(prompt[begin:]))


def _add_picture(rng: random.Random, chat: Chat) -> Scene:
    scene = sample_scene(rng, rng.choices(*_NUM_ITEMS)[0])
    chat.scenes.append(scene)
    if chat.draw:
        chat.pictures.append(draw_scene(scene, rng))
    return scene


def _ask_about_two(rng: random.Random, chat: Chat) -> None:
    scenes = [_add_picture(rng, chat), _add_picture(rng, chat)]
    first = True
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(2)
        draft = _draw_draft(rng, SINGLE, scenes[index], None)
        which = (
            ("first", "1st", "left", "first", "earlier")
            if index == 0
            else ("second", "2nd", "last")
        )
        noun = rng.choice(("picture", "image", "photo", "one"))
        text = phrase(rng, draft)
        where = f"in the {rng.choice(which[:2] if noun == 'one' else which)} {noun}"
        stem = text.rstrip("?.! ")
        question = f"{stem} {where}?" if rng.random() < 0.6 else f"{where.capitalize()}, {text}"
        num_images = 2 if first else 0
        chat.turns.append(
            Turn(draft.frames, question, draft.answer, num_images, index, draft.focus, draft.listed)
        )
        first = False


def _next_turn(
    rng: random.Random,
    chat: Chat,
    scene: Scene | None,
    focus: Item | None,
    num_images: int,
    is_fresh: bool,
) -> tuple[Turn, Item | None]:
    if rng.random() < (0.18 if scene is None else 0.07):
        talk = sample_talk(rng)
        if talk.kind == "how_do_you_know" and (scene is None or is_fresh):
            talk = Turn("greeting", phrase_talk(rng, "greeting"), answers.GREETING)
        return Turn(talk.kind, talk.question, talk.answer, num_images), focus
    if scene is None:
        draft = _draw_draft(rng, SINGLE, sample_scene(rng), None)
        return Turn("no_picture", phrase(rng, draft), answers.NO_PICTURE), None
    asks = SINGLE
    if (is_fresh and len(scene.items) == 1 and rng.random() < 0.2) or (
        not is_fresh and rng.random() < (0.15 if focus is None else 0.6)
    ):
        asks = FOLLOW_UP
    draft = _draw_draft(rng, asks, scene, focus, is_fresh=is_fresh)
    question = phrase(rng, draft)
    index = len(chat.scenes) - 1
    turn = Turn(draft.frames, question, draft.answer, num_images, index, draft.focus, draft.listed)
    return turn, draft.focus


# 'What shape is it?' asks for everything at first, and for the shape alone later on.
_NEEDS_HISTORY = frozenset({"are_you_sure", "other_one", "count_total", "shape_of_it"})


def _draw_draft(
    rng: random.Random,
    asks: Mapping[str, tuple[float, object]],
    scene: Scene,
    focus: Item | None,
    *,
    is_fresh: bool = True,
) -> Draft:
    kinds = list(asks)
    weights = [asks[kind][0] for kind in kinds]
    while True:
        kind = rng.choices(kinds, weights)[0]
        if is_fresh and kind in _NEEDS_HISTORY:
            continue
        # 'What is it?' in the middle of a chat means the thing last talked about: a follow-up.
        if kind == "what" and not is_fresh:
            continue
        if asks is FOLLOW_UP:
            draft = ask_follow_up(rng, kind, scene, focus)
        else:
            draft = ask_single(rng, kind, scene)
        if draft is not None:
            return draft
