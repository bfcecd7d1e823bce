"""Which token ids and which pictures the model sees for one question. Pure.

The prompt of a turn is made of *recorded* ids of the turns before it, so that it begins with
the prompt before it, id for id: re-tokenised text would miss the prefix cache and could change
an answer. Written anew is only what has to be: turns whose ids are another tokenizer's, and, where
turns were dropped, the first one that stays, because the system prompt and the dropped turns'
pictures now stand before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from llavachat_server.chats.errors import OtherTokenizer
from llavachat_server.chats.record import Turn
from llavachat_server.chats.wording import Wording
from llavachat_server.images.intake import ImageInfo
from llavachat_server.interfaces import TurnTokenizer
from llavachat_server.values import ContextFull, ModelInfo


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of a prompt: this turn's text and pictures, and all that came before."""

    text_tokens: int
    image_tokens: int
    history_tokens: int

    @property
    def total(self) -> int:
        """The prompt as the model sees it."""
        return self.text_tokens + self.image_tokens + self.history_tokens


@dataclass(frozen=True, slots=True)
class Context:
    """What the model sees.

    Args:
        token_ids: the whole prompt, one placeholder for each picture.
        question_ids: the last turn's own part of it, as it stands when nothing is left out.
        images: the pictures in the order of their placeholders.
        count: how many tokens that is, pictures at full width.
        trimmed_turn_ids: turns that were left out, the oldest first.
        num_tokens_before: tokens with them.
    """

    token_ids: tuple[int, ...]
    question_ids: tuple[int, ...]
    images: tuple[ImageInfo, ...]
    count: TokenCount
    trimmed_turn_ids: tuple[str, ...]
    num_tokens_before: int


@dataclass(frozen=True, slots=True)
class ContextBuilder:
    """Builds prompts for one model.

    Args:
        prompts: the model's template and tokenizer.
        context_tokens: what the model's context holds.
        num_image_tokens: how wide one picture is in it.
        model: which it is.
    """

    prompts: TurnTokenizer
    context_tokens: int
    num_image_tokens: int
    model: ModelInfo

    def build(
        self,
        history: Sequence[Turn],
        prompt: str,
        images: Sequence[ImageInfo],
        *,
        system_prompt: str | None = None,
        drop_for_tokens: int | None = None,
    ) -> Context:
        """Build the prompt of a question.

        Args:
            history: the finished turns before it, the first one first.
            prompt: the question.
            images: the pictures that stand before the question.
            system_prompt: the chat's; None for the model's own.
            drop_for_tokens: the answer's room, for which the oldest turns may be left out; None
                leaves none out.

        Raises:
            ContextFull: not even one token of an answer fits.
        """
        history = self._wording.translate(history, system_prompt)
        full = self._assemble(history, 0, prompt, images, system_prompt)
        chosen, num_dropped = full, 0
        if drop_for_tokens is not None:
            num_dropped = self._count_dropped(
                history, full.count.total, self.context_tokens - drop_for_tokens, system_prompt
            )
        if num_dropped:
            chosen = self._assemble(history, num_dropped, prompt, images, system_prompt)
        if chosen.count.total >= self.context_tokens:
            count = chosen.count
            raise ContextFull(
                count.text_tokens, count.image_tokens, self.context_tokens, count.history_tokens
            )
        return Context(
            chosen.token_ids,
            full.question_ids,
            chosen.images,
            chosen.count,
            tuple(turn.id for turn in history[:num_dropped]),
            full.count.total,
        )

    def count(
        self,
        history: Sequence[Turn],
        prompt: str,
        num_images: int,
        *,
        system_prompt: str | None = None,
    ) -> TokenCount:
        """Count the tokens of a question, whether it fits or not."""
        history = self._wording.translate(history, system_prompt)
        if history:
            question = self.prompts.build_next_turn(prompt, num_images=num_images)
        else:
            question = self.prompts.build_first_turn(
                prompt, num_images=num_images, system_prompt=system_prompt
            )
        earlier = sum(len(turn.images) for turn in history)
        # An empty next turn leaves the earlier turns alone, every answer closed.
        before = self.prompts.join_turns(_exchanges(history), ())
        return TokenCount(
            len(question) - num_images,
            num_images * self.num_image_tokens,
            len(before) + earlier * (self.num_image_tokens - 1),
        )

    def rebuild_ids(
        self, history: Sequence[Turn], turn: Turn, system_prompt: str | None
    ) -> tuple[int, ...]:
        """The prompt that a recorded turn had, from its record.

        Raises:
            OtherTokenizer: its ids are not this model's. An import's are: none saw its prompt.
        """
        if not turn.imported and not self._wording.is_own(turn):
            raise OtherTokenizer(turn.tokenizer_sha256, self.prompts.tokenizer_sha256)
        *history, turn = self._wording.translate((*history, turn), system_prompt)
        num_dropped = len(turn.trimmed_turn_ids)
        if num_dropped:
            return self._assemble(
                history, num_dropped, turn.prompt, turn.images, system_prompt
            ).token_ids
        return self.prompts.join_turns(_exchanges(history), turn.question_ids)

    @property
    def _wording(self) -> Wording:
        return Wording(self.prompts, self.model)

    def _count_dropped(
        self, history: Sequence[Turn], num_tokens: int, max_tokens: int, system_prompt: str | None
    ) -> int:
        """How many of the oldest turns must go, so that a prompt of `num_tokens` takes no more.

        Found by subtraction, because a long history has thousands of them: each turn is counted
        once, and text is tokenised only where a turn could become the first one.
        """
        if num_tokens <= max_tokens:
            return 0
        num_pictures = 0
        for index, (dropped, first) in enumerate(pairwise(history), 1):
            num_tokens -= len(self.prompts.join_turns(_exchanges((dropped,)), ()))
            num_pictures += len(dropped.images)
            # The placeholders are counted with the opening, which all of them come to.
            num_others = num_tokens - len(first.question_ids)
            if num_others <= max_tokens:
                opening = self._build_opening(first, num_pictures, system_prompt)
                if num_others + len(opening) <= max_tokens:
                    return index
        return len(history)

    def _build_opening(
        self, first: Turn, num_moved: int, system_prompt: str | None
    ) -> tuple[int, ...]:
        """A later turn's question as a first one, with the pictures of the turns before it."""
        return self.prompts.build_first_turn(
            first.prompt, num_images=num_moved + len(first.images), system_prompt=system_prompt
        )

    def _assemble(
        self,
        history: Sequence[Turn],
        num_dropped: int,
        prompt: str,
        images: Sequence[ImageInfo],
        system_prompt: str | None,
    ) -> Context:
        dropped, kept = history[:num_dropped], history[num_dropped:]
        moved = tuple(image for turn in dropped for image in turn.images)
        exchanges = _exchanges(kept)
        if kept:
            question = self.prompts.build_next_turn(prompt, num_images=len(images))
            if dropped:
                opening = self._build_opening(kept[0], len(moved), system_prompt)
                exchanges[0] = (opening, exchanges[0][1])
        else:
            question = self.prompts.build_first_turn(
                prompt, num_images=len(moved) + len(images), system_prompt=system_prompt
            )
        seen = (*moved, *(image for turn in kept for image in turn.images), *images)
        token_ids = self.prompts.join_turns(exchanges, question)
        num_own = len(images) if kept else len(seen)
        text = len(question) - num_own
        total = len(token_ids) + len(seen) * (self.num_image_tokens - 1)
        own_image_tokens = num_own * self.num_image_tokens
        count = TokenCount(text, own_image_tokens, total - text - own_image_tokens)
        return Context(token_ids, question, seen, count, (), total)


def _exchanges(turns: Sequence[Turn]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(turn.question_ids, turn.answer_ids) for turn in turns]
