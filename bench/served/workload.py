"""What every contender is asked: the same words about the same pictures, drawn from a seed.

Pure: nothing here knows who is asked or how. Questions and answers are made of words that are one
token each (see `checkpoint`), so that words count tokens, and an answer that is sent back as text
becomes the ids that it was.
"""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

IMAGE_SIDE_PIXELS = 112
NUM_IMAGE_TOKENS = 64
ANSWER_TOKENS = 64
QUESTION_TOKENS = 20
HISTORY_TOKENS = 800
"""What a chat holds before the follow-up: system sentence, picture, question and answer."""
TEMPLATE_TOKENS = 36
"""The system sentence, roles and ends of one turn in the benchmark's tokenizer, about."""
WORDS_NAME = "words.json"
"""The checkpoint's file of words that are one token each."""
SYSTEM_PROMPT = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
"""Source: ``conv_vicuna_v1`` in the LLaVA-1.5 release, ``llava/conversation.py``."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A chat's first question: a picture as a PNG file, and words."""

    picture: bytes
    question: str


class Workload:
    """Draws pictures and questions; the same ones for every contender of a round.

    Args:
        words: each one token.
        seed: names the round. Another seed's pictures and questions share no beginning with these.
        side_pixels: of a picture, a square.
        num_image_tokens: that a picture becomes.
    """

    def __init__(
        self,
        words: Sequence[str],
        seed: str,
        *,
        side_pixels: int = IMAGE_SIDE_PIXELS,
        num_image_tokens: int = NUM_IMAGE_TOKENS,
    ) -> None:
        self._words = words
        self._rng = random.Random(seed)
        self._side_pixels = side_pixels
        self._num_image_tokens = num_image_tokens

    def draw_opening(self) -> Opening:
        """A short chat's beginning: a new picture and `QUESTION_TOKENS` words."""
        return Opening(self._draw_picture(), self.draw_question())

    def draw_long_opening(self) -> Opening:
        """A beginning that its answer brings to `HISTORY_TOKENS`."""
        num_words = HISTORY_TOKENS - self._num_image_tokens - ANSWER_TOKENS - TEMPLATE_TOKENS
        return Opening(self._draw_picture(), self._draw_words(num_words))

    def draw_question(self) -> str:
        """`QUESTION_TOKENS` words."""
        return self._draw_words(QUESTION_TOKENS)

    def _draw_words(self, count: int) -> str:
        return " ".join(self._rng.choices(self._words, k=count))

    def _draw_picture(self) -> bytes:
        """As large as the vision tower's input, so that nobody's way to resize plays a part."""
        rng, side = self._rng, self._side_pixels
        picture = Image.new("RGB", (side, side), _draw_colour(rng))
        canvas = ImageDraw.Draw(picture)
        for _ in range(12):
            corners = [rng.randrange(side) for _ in range(4)]
            box = (*sorted(corners[:2]), *sorted(corners[2:]))
            canvas.rectangle((box[0], box[2], box[1], box[3]), fill=_draw_colour(rng))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()


def _draw_colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def count_words(text: str) -> int:
    """Tokens of an answer's text."""
    return len(text.split())
