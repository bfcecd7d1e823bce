"""Puts a draft question into words, from the training frames or from the held-out ones."""

import random
from collections import defaultdict
from collections.abc import Collection
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


FIRST_AUTHOR = "first"
AUTHORS = (
    FIRST_AUTHOR,
    "casual",
    "clipped",
    "retired",
    "terse",
    "oblique",
    "spoken",
    "plain",
    "curious",
    "worldly",
)
"""Whose frames there are; ``retired`` were blind sets. None of the others saw ours or each other's;
they lie in files of these names."""


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


def _collect_frames() -> dict[str, dict[str, str]]:
    frames: dict[str, dict[str, str]] = defaultdict(dict)

    def add(kind: str, lines: list[str], author: str) -> None:
        for line in lines:
            frames[kind].setdefault(line, author)  # one frame may be two authors' idea

    for kind, text in _TALK.items():
        add(kind, read_lines(text), FIRST_AUTHOR)
    for module in (questions, follow_ups):
        for name, text in vars(module).items():
            if name.isupper() and isinstance(text, str):
                add(name.lower(), read_lines(text), FIRST_AUTHOR)
    for author in AUTHORS[1:]:
        path = Path(__file__).parent / "wordings" / f"{author}.txt"
        for kind, lines in read_frames(path.read_text(encoding="utf-8")).items():
            add(kind, lines, author)
    return dict(frames)


_AUTHOR_OF = _collect_frames()
"""By type and frame."""
FRAMES = {kind: split_frames(list(lines)) for kind, lines in _AUTHOR_OF.items()}
"""By type: the frames to train on, and those held out."""


def choose_asked(authors: Collection[str], *, seen: bool = False) -> None:
    """From now on ask, with ``held_out``, the frames of these authors alone.

    Args:
        authors: some of `AUTHORS`; types that none of them wrote can no longer be asked.
        seen: ask the frames to train on instead, which shows what is lost on wordings.
    """
    for kind, (trained, held_out) in FRAMES.items():
        held_out[:] = [
            frame for frame in (trained if seen else held_out) if _AUTHOR_OF[kind][frame] in authors
        ]


def find_unasked(kinds: Collection[str]) -> list[str]:
    """Those of these types of which nothing is left to ask; see `choose_asked`."""
    return [kind for kind in kinds if not FRAMES[kind][True]]


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
