"""Which token ids and which pictures the model sees for one question. Pure.

The prompt of a turn is made of *recorded* ids of the turns before it, so that it begins with
the prompt before it, id for id: re-tokenised text would miss the prefix cache and could change
an answer. Written anew is only what has to be: turns whose ids are another tokenizer's, and, where
turns were dropped, the first one that stays, because the system prompt and the dropped turns'
pictures now stand before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from llavachat_server.chats.errors import OtherTokenizer
from llavachat_server.chats.record import Turn
from llavachat_server.chats.wording import Wording
from llavachat_server.images.intake import ImageInfo
from llavachat_server.interfaces import TurnTokenizer
from llavachat_server.values import ContextFull, ModelInfo

LEAST_ROOM_TOKENS = 256
"""An answer's room, where turns are left out and the pictures let it have no more: a paragraph. As
long as it has that, what was said stays; a longer answer is worth less than what it is about."""


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


LONG_CHARS = 1000
"""Of words that are tokenised: a character takes a microsecond at most."""


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

    def is_long(
        self, history: Sequence[Turn], prompt: str, *, system_prompt: str | None = None
    ) -> bool:
        """Whether a prompt after these turns takes so long that others would wait for it.

        It does where much is tokenised: a long question, or turns anew, of which 9,000 short ones
        took 434 ms, and to count as many that have their ids 3 to 6 (one run, 30 November 2026, the
        embedded model's tokenizer).
        """
        num_chars = len(prompt) + len(system_prompt or "")
        return num_chars > LONG_CHARS or not all(map(self._wording.is_own, history))

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
                leaves none out. No more are than it takes. Where no number of them would do,
                because pictures stay, they make room for `LEAST_ROOM_TOKENS`, and where that can
                not be had either, all are left out.

        Raises:
            ContextFull: not even one token of an answer fits.
        """
        history = self._wording.translate(history, system_prompt)
        question = self._build_question(history, prompt, len(images), system_prompt)
        count = self._count(history, question, len(images))
        total, num_dropped = count.total, 0
        if drop_for_tokens is not None and total > self.context_tokens - drop_for_tokens:
            alone = self._count_alone(history, prompt, len(images), system_prompt)
            num_dropped = self._count_dropped(history, total, alone, drop_for_tokens, system_prompt)
        # Counted before it is made: most of a long history that does not fit is never put together.
        if not num_dropped and total >= self.context_tokens:
            raise self._refuse(count, history, prompt, images, system_prompt)
        built = self._assemble(history, num_dropped, question, prompt, images, system_prompt)
        if built.count.total >= self.context_tokens:
            raise self._refuse(built.count, history, prompt, images, system_prompt)
        trimmed = tuple(turn.id for turn in history[:num_dropped])
        return replace(
            built, question_ids=question, trimmed_turn_ids=trimmed, num_tokens_before=total
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
        question = self._build_question(history, prompt, num_images, system_prompt)
        return self._count(history, question, num_images)

    def rebuild_ids(
        self, history: Sequence[Turn], turn: Turn, system_prompt: str | None
    ) -> tuple[int, ...]:
        """The prompt that a recorded turn had, from its record.

        Raises:
            OtherTokenizer: its ids are not this model's. An import's are: none saw its prompt.
        """
        if not turn.imported and not self._wording.is_own(turn):
            raise OtherTokenizer(turn.tokenizer_sha256, self.prompts.tokenizer_sha256)
        num_dropped = turn.num_trimmed_turns
        # Of turns that were left out, only the pictures are needed.
        *kept, turn = self._wording.translate((*history[num_dropped:], turn), system_prompt)
        return self._assemble(
            (*history[:num_dropped], *kept),
            num_dropped,
            turn.question_ids,
            turn.prompt,
            turn.images,
            system_prompt,
        ).token_ids

    @property
    def _wording(self) -> Wording:
        return Wording(self.prompts, self.model)

    def _build_question(
        self, history: Sequence[Turn], prompt: str, num_images: int, system_prompt: str | None
    ) -> tuple[int, ...]:
        """A question's own ids, as they stand when nothing is left out."""
        if history:
            return self.prompts.build_next_turn(prompt, num_images=num_images)
        return self.prompts.build_first_turn(
            prompt, num_images=num_images, system_prompt=system_prompt
        )

    def _count(
        self, history: Sequence[Turn], question: tuple[int, ...], num_images: int
    ) -> TokenCount:
        """Tokens of the prompt with all turns; `num_images` are the question's."""
        earlier = sum(len(turn.images) for turn in history)
        return TokenCount(
            len(question) - num_images,
            num_images * self.num_image_tokens,
            sum(map(self._count_turn, history)) + earlier * (self.num_image_tokens - 1),
        )

    def _count_turn(self, turn: Turn) -> int:
        return self.prompts.count_turn(turn.question_ids, turn.answer_ids)

    def _count_alone(
        self, history: Sequence[Turn], prompt: str, num_images: int, system_prompt: str | None
    ) -> int:
        """Tokens of the prompt where all turns are left out, whose pictures stay."""
        num_all = num_images + sum(len(turn.images) for turn in history)
        question = self._build_question((), prompt, num_all, system_prompt)
        return len(question) + num_all * (self.num_image_tokens - 1)

    def _refuse(
        self,
        count: TokenCount,
        history: Sequence[Turn],
        prompt: str,
        images: Sequence[ImageInfo],
        system_prompt: str | None,
    ) -> ContextFull:
        """Why nothing fits, and what would help."""
        num_pictures = len(images) + sum(len(turn.images) for turn in history)
        alone = self._count_alone(history, prompt, len(images), system_prompt)
        shortest = self._count_alone(history, "", len(images), system_prompt)
        can_shorten = shortest < self.context_tokens
        bare = self._build_question((), prompt if can_shorten else "", 0, system_prompt)
        least = self._build_question(history, "", len(images), system_prompt)
        return ContextFull(
            count.text_tokens,
            count.image_tokens,
            self.context_tokens,
            count.history_tokens,
            # Where turns may be left out already, or there are none, it would not fit.
            can_drop=alone < self.context_tokens,
            can_shorten=can_shorten,
            can_keep_turns=self._count(history, least, len(images)).total < self.context_tokens,
            can_leave_pictures=num_pictures > 0 and len(bare) < self.context_tokens,
            picture_tokens=num_pictures * self.num_image_tokens,
        )

    def _count_dropped(
        self,
        history: Sequence[Turn],
        num_tokens: int,
        num_alone: int,
        room_tokens: int,
        system_prompt: str | None,
    ) -> int:
        """How many of the oldest turns go, so that an answer has its room; see `build`.

        Found by subtraction, because a long history has thousands of them: each turn is counted
        once, and text is tokenised only where a turn could become the first one.

        Args:
            num_tokens: of the prompt with all turns.
            num_alone: of the prompt without any.
        """
        wanted = self.context_tokens - room_tokens
        least = self.context_tokens - min(room_tokens, LEAST_ROOM_TOKENS)
        # The fewest that leave the least room, once they are known.
        fewest = 0 if num_tokens <= least else None
        num_pictures = 0
        for index, (dropped, first) in enumerate(pairwise(history), 1):
            num_tokens -= self._count_turn(dropped)
            num_pictures += len(dropped.images)
            # The placeholders are counted with the opening, which all of them come to.
            num_others = num_tokens - len(first.question_ids)
            if num_others > (least if fewest is None else wanted):
                continue
            num_left = num_others + len(self._build_opening(first, num_pictures, system_prompt))
            if num_left <= wanted:
                return index
            if fewest is None and num_left <= least:
                fewest = index
        if fewest is None or num_alone <= wanted:
            return len(history)
        return fewest

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
        question: tuple[int, ...],
        prompt: str,
        images: Sequence[ImageInfo],
        system_prompt: str | None,
    ) -> Context:
        """Put a prompt together; `question` are the ids of `prompt` where nothing is left out."""
        dropped, kept = history[:num_dropped], history[num_dropped:]
        moved = tuple(image for turn in dropped for image in turn.images)
        exchanges = [(turn.question_ids, turn.answer_ids) for turn in kept]
        num_own = len(images)
        if dropped and kept:
            opening = self._build_opening(kept[0], len(moved), system_prompt)
            exchanges[0] = (opening, exchanges[0][1])
        elif dropped:
            num_own += len(moved)
            question = self._build_question((), prompt, num_own, system_prompt)
        seen = (*moved, *(image for turn in kept for image in turn.images), *images)
        token_ids = self.prompts.join_turns(exchanges, question)
        text = len(question) - num_own
        total = len(token_ids) + len(seen) * (self.num_image_tokens - 1)
        own_image_tokens = num_own * self.num_image_tokens
        count = TokenCount(text, own_image_tokens, total - text - own_image_tokens)
        return Context(token_ids, question, seen, count, (), total)
