"""What an evaluation asks: fresh scenes, held-out wordings, and the truth beside them."""

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from training import answers
from training.answering import OpenChat
from training.dialogues import ask_follow_up, ask_single, sample_talk
from training.drafts import Draft
from training.phrasing import phrase
from training.rendering import Style, draw_scene
from training.scenes import Scene, sample_scene

SINGLE_KINDS = (
    "describe", "what", "colour", "shape", "size", "count_all", "count_shape", "count_colour",
    "where", "exists", "bigger", "left_of", "right_of", "above", "below", "background",
)  # fmt: skip
FOLLOW_UP_KINDS = (
    "colour_of_it", "shape_of_it", "size_of_it", "where_is_it", "other_one", "count_total",
    "the_one_on_side", "are_you_sure",
)  # fmt: skip
_FIRST_KINDS = ("colour", "shape", "size", "where", "exists", "what")
_MAX_TRIES = 400


@dataclass(slots=True)
class Case:
    """One question with its truth.

    Attributes:
        kind: the type of the question graded.
        expected: the true answer.
        chat: what is asked; a follow-up's first answer is filled in by the model.
        first_question: asked before, None for single questions.
        scene: what the picture shows.
    """

    kind: str
    expected: str
    chat: OpenChat
    first_question: str | None = None
    scene: Scene | None = None


@dataclass(frozen=True, slots=True)
class BlindWordings:
    """Wordings by another author, with slots; never trained on.

    Attributes:
        single: (type, wording).
        follow_up: (type, type of the question before, wording).
    """

    single: list[tuple[str, str]] = field(default_factory=list)
    follow_up: list[tuple[str, str, str]] = field(default_factory=list)


def load_blind_wordings(path: Path) -> BlindWordings:
    """Read ``{"single": [{type, wording}], "follow_up": [{type, after, wording}]}``."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return BlindWordings(
        single=[(entry["type"], entry["wording"]) for entry in content["single"]],
        follow_up=[
            (entry["type"], entry["after"], entry["wording"]) for entry in content["follow_up"]
        ],
    )


def sample_single(
    rng: random.Random, kind: str, style: Style | None = None, wording: str | None = None
) -> Case:
    """A single question on a fresh scene.

    Args:
        rng: the only source of chance.
        kind: its type.
        style: how the picture is drawn.
        wording: verbatim, with slots; None for a held-out frame.
    """
    for _ in range(_MAX_TRIES):
        scene = sample_scene(rng, 1 if kind == "what" else None)
        draft = ask_single(rng, kind, scene, plain=wording is not None)
        if draft is not None:
            question = _word(rng, draft, wording)
            picture = draw_scene(scene, rng, style or Style())
            return Case(kind, draft.answer, OpenChat(question, [picture]), scene=scene)
    raise ValueError(f"no scene allows a question of type {kind!r}")


def sample_follow_up(
    rng: random.Random,
    kind: str,
    after: str | None = None,
    wordings: tuple[str, str | None] | None = None,
) -> Case:
    """A first question about one item, then a question that leans on it.

    Args:
        rng: the only source of chance.
        kind: the follow-up's type.
        after: the first question's type; drawn when None.
        wordings: the follow-up's wording and the first question's, verbatim.
    """
    plain = wordings is not None
    for _ in range(_MAX_TRIES):
        first_kind = after or rng.choice(_FIRST_KINDS)
        num_items = 1 if first_kind == "what" else None
        if kind == "other_one":
            num_items = 2
            first_kind = rng.choice(_FIRST_KINDS[:-1]) if first_kind == "what" else first_kind
        elif first_kind in ("describe", "count_all") and kind.endswith("it"):
            num_items = 1
        scene = sample_scene(rng, num_items)
        first = ask_single(rng, first_kind, scene, plain)
        if first is None or (first.focus is None and first_kind != "background"):
            continue
        draft = ask_follow_up(rng, kind, scene, first.focus, plain)
        if draft is None:
            continue
        first_question = _word(rng, first, wordings[1] if wordings else None)
        question = _word(rng, draft, wordings[0] if wordings else None)
        chat = OpenChat(question, [draw_scene(scene, rng)])
        return Case(kind, draft.answer, chat, first_question, scene)
    raise ValueError(f"no scene allows {kind!r} after {after!r}")


def sample_other_picture(rng: random.Random, case: Case) -> Case:
    """The same question with a picture of which another answer is true of."""
    picture = case.chat.pictures[0]
    while True:
        other = sample_single(rng, case.kind)
        if other.expected != case.expected:
            picture = other.chat.pictures[0]
            return replace(case, chat=OpenChat(case.chat.question, [picture]))


def sample_after_long_history(rng: random.Random, kind: str, num_turns: int) -> Case:
    """A question after many true turns about the same picture."""
    case = sample_single(rng, kind)
    assert case.scene is not None
    while len(case.chat.turns) < num_turns:
        draft = ask_single(rng, rng.choice(SINGLE_KINDS), case.scene)
        if draft is not None:
            case.chat.turns.append((phrase(rng, draft), draft.answer))
    return case


def sample_talk_case(rng: random.Random, with_picture: bool) -> Case:
    """A question that has nothing to do with shapes."""
    turn = sample_talk(rng, held_out=True)
    while turn.kind == "how_do_you_know":
        turn = sample_talk(rng, held_out=True)
    pictures = [draw_scene(sample_scene(rng), rng)] if with_picture else []
    chat = OpenChat(turn.question, pictures, num_images=[len(pictures)])
    return Case(turn.kind, turn.answer, chat)


def sample_without_picture(rng: random.Random) -> Case:
    """A question about a picture that was never sent."""
    case = sample_single(rng, rng.choice(SINGLE_KINDS))
    chat = OpenChat(case.chat.question, [], num_images=[0])
    return Case("no_picture", answers.NO_PICTURE, chat)


def sample_second_picture(rng: random.Random, kind: str) -> Case:
    """A question about a second picture, after a turn about a first one."""
    first, second = sample_single(rng, rng.choice(SINGLE_KINDS)), sample_single(rng, kind)
    pictures: list[Image.Image] = [first.chat.pictures[0], second.chat.pictures[0]]
    turns = [(first.chat.question, first.expected)]
    chat = OpenChat(second.chat.question, pictures, turns, num_images=[1, 1])
    return Case(kind, second.expected, chat, scene=second.scene)


def _word(rng: random.Random, draft: Draft, wording: str | None) -> str:
    if wording is None:
        return phrase(rng, draft, held_out=True)
    text = wording
    for name, value in draft.slots.items():
        text = text.replace(f"{{{name}}}", value)
    return text
