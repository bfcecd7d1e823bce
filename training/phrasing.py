"""Puts a draft question into words, from the training frames or from the held-out ones."""

import random
from collections import defaultdict
from pathlib import Path

from training.drafts import Draft
from training.wordings import follow_ups, questions, talk
from training.wordings.grammar import MACROS, expand, read_lines, split_frames
from training.wordings.typing import roughen

MACROS.update(talk.TALK_MACROS)

_TALK = {
    "greeting": talk.GREETING,
    "thanks": talk.THANKS,
    "goodbye": talk.GOODBYE,
    "who": talk.WHO,
    "off_topic": talk.OFF_TOPIC,
    "how_do_you_know": talk.HOW_DO_YOU_KNOW,
}


_OTHER_AUTHORS = ("casual", "clipped", "retired")
"""Files of frames by authors who saw neither ours nor each other's; ``retired`` were blind sets."""


def read_frames(text: str) -> dict[str, list[str]]:
    """Read sections of frames, each begun by a line such as ``## COLOUR_OF_IT``; by type."""
    frames: dict[str, list[str]] = defaultdict(list)
    kind = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("## "):
            kind = line.removeprefix("## ").lower()
        else:
            frames[kind].append(line)
    return dict(frames)


def _collect_frames() -> dict[str, tuple[list[str], list[str]]]:
    frames = {kind: read_lines(text) for kind, text in _TALK.items()}
    for module in (questions, follow_ups):
        frames |= {
            name.lower(): read_lines(text)
            for name, text in vars(module).items()
            if name.isupper() and isinstance(text, str)
        }
    for author in _OTHER_AUTHORS:
        path = Path(__file__).parent / "wordings" / f"{author}.txt"
        for kind, lines in read_frames(path.read_text(encoding="utf-8")).items():
            frames[kind] += lines
    # One frame may be two authors' idea.
    return {kind: split_frames(list(dict.fromkeys(lines))) for kind, lines in frames.items()}


FRAMES = _collect_frames()
"""By type: the frames to train on, and those held out."""


def phrase(rng: random.Random, draft: Draft, *, held_out: bool = False) -> str:
    """Word a draft as a user might type it.

    Args:
        rng: the only source of chance.
        draft: what is asked.
        held_out: use the frames that training never sees.
    """
    frame = rng.choice(FRAMES[draft.frames][held_out])
    return word_frame(rng, frame, draft.slots)


def phrase_talk(rng: random.Random, kind: str, *, held_out: bool = False) -> str:
    """Word small talk or a question off the topic."""
    frame = rng.choice(FRAMES[kind][held_out])
    return roughen(
        rng, expand(rng, frame), is_question=kind not in ("greeting", "thanks", "goodbye")
    )


def word_frame(rng: random.Random, frame: str, slots: dict[str, str]) -> str:
    """Expand a frame, fill it and type it as people type."""
    text = expand(rng, frame)
    for name, value in slots.items():
        text = text.replace(f"{{{name}}}", value)
    return roughen(rng, " ".join(text.split()))
