"""What is kept of a chat: plain, frozen values, and how one becomes the next. A store keeps them.

Text and token ids are both kept: people read the text, and the next prompt is built from the
ids, so that it begins exactly as the prompt before it. The ids are one tokenizer's, which is named
beside them: to another they say other words, and the text is what is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum

from llavachat_server.images.intake import ImageInfo
from llavachat_server.values import Finished, FinishReason, ModelInfo, Sampling, Timings, Usage


class TurnState(Enum):
    """How far a turn has come; only finished turns are part of later prompts."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


WHOLE = frozenset(
    {
        FinishReason.EOS,
        FinishReason.STOP_SEQUENCE,
        FinishReason.MAX_TOKENS,
        FinishReason.MAX_CONTEXT,
    }
)
"""An answer that ended so is whole: by itself, or at a limit that was asked for."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    Args:
        id: 128 random bits in hexadecimal.
        parent_id: the turn that it goes on from; None for a first turn.
        prompt: the question.
        images: the pictures before the question, those of a chat's opening among them.
        question_ids: token ids of the question and the template around it, one placeholder
            for each picture.
        num_trimmed_turns: how many of the first turns before it were left out of its prompt. Their
            ids are the store's to tell: of a long chat each turn would hold nearly all others'.
        num_untrimmed_tokens: tokens of the prompt with them.
        sampling: resolved parameters.
        model: which model answered.
        created_at: UTC.
        state: RUNNING until the answer ended.
        answer: the answer, as far as it has come.
        answer_ids: its token ids, without a closing eos.
        finish_reason, matched_stop, usage, timings, finished_at: None while it runs.
        device: what the model computed on.
        library_versions: of the libraries that shape an answer.
        tokenizer_sha256: whose ids these are; see `engine.prompt.PromptBuilder`. "": kept before
            that was noted.
        imported: it came with an import: what is told of its answer is another's word, and its ids
            are those of the text, as this model's tokenizer has them.
    """

    id: str
    parent_id: str | None
    prompt: str
    images: tuple[ImageInfo, ...]
    question_ids: tuple[int, ...]
    num_trimmed_turns: int
    num_untrimmed_tokens: int
    sampling: Sampling
    model: ModelInfo
    created_at: datetime
    state: TurnState = TurnState.RUNNING
    answer: str = ""
    answer_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    matched_stop: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    finished_at: datetime | None = None
    device: str = ""
    library_versions: Mapping[str, str] = field(default_factory=dict)
    tokenizer_sha256: str = ""
    imported: bool = False

    def end(self, answer: str, finished: Finished) -> "Turn":
        """This turn with the end that the engine told."""
        is_whole = finished.finish_reason in WHOLE
        return replace(
            self,
            state=TurnState.FINISHED if is_whole else TurnState.CANCELLED,
            answer=answer,
            answer_ids=finished.token_ids,
            finish_reason=finished.finish_reason,
            matched_stop=finished.matched_stop,
            usage=finished.usage,
            timings=finished.timings,
            finished_at=self._now(),
        )

    def break_off(self, answer: str, state: TurnState, reason: FinishReason) -> "Turn":
        """This turn with an end that the engine could not tell; `answer` is what had come."""
        return replace(
            self,
            state=state,
            answer=answer,
            finish_reason=reason,
            finished_at=self._now(),
        )

    def _now(self) -> datetime:
        """The time of its end: not before its beginning, though the clock may have gone back."""
        return max(self.created_at, datetime.now(UTC))


OPENING_CHARS = 1000
"""So much of the first question is kept in a listing."""


@dataclass(frozen=True, slots=True)
class ChatSummary:
    """A chat in a listing: without its turns, but with the beginning of its first question."""

    id: str
    tenant: str
    system_prompt: str | None
    labels: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    num_turns: int
    opening: str

    def count_bytes(self) -> int:
        """Of its texts, in UTF-8."""
        texts = (self.system_prompt or "", self.opening, *self.labels, *self.labels.values())
        return sum(len(text.encode()) for text in texts)


@dataclass(frozen=True, slots=True)
class Chat:
    """A tree of turns.

    Args:
        id: 128 random bits in hexadecimal.
        tenant: whose chat it is.
        system_prompt: None for the model's own.
        labels: the caller's marks.
        created_at, updated_at: UTC; the latter moves when a turn begins or ends.
        turns: in the order in which they were asked.
    """

    id: str
    tenant: str
    system_prompt: str | None
    labels: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    turns: tuple[Turn, ...] = ()

    def summarise(self) -> ChatSummary:
        """This chat as it stands in a listing."""
        return ChatSummary(
            self.id,
            self.tenant,
            self.system_prompt,
            self.labels,
            self.created_at,
            self.updated_at,
            len(self.turns),
            self.turns[0].prompt[:OPENING_CHARS] if self.turns else "",
        )

    def turn(self, turn_id: str) -> Turn | None:
        """Find one of its turns."""
        return next((turn for turn in self.turns if turn.id == turn_id), None)

    def index_turns(self) -> dict[str, Turn]:
        """Its turns by their ids."""
        return {turn.id: turn for turn in self.turns}

    def branch(
        self, turn_id: str | None, by_id: Mapping[str, Turn] | None = None
    ) -> tuple[Turn, ...]:
        """The turns from the first down to `turn_id`; () for None.

        Args:
            turn_id: the last of them.
            by_id: `index_turns()`, from who asks for the branches of many turns.
        """
        if by_id is None:
            by_id = self.index_turns()
        path: list[Turn] = []
        while turn_id is not None:
            turn = by_id[turn_id]
            path.append(turn)
            turn_id = turn.parent_id
        return tuple(reversed(path))

    def latest_finished(self) -> Turn | None:
        """The turn that a question without a parent goes on from."""
        finished = (turn for turn in reversed(self.turns) if turn.state is TurnState.FINISHED)
        return next(finished, None)


@dataclass(frozen=True, slots=True)
class RequestClaim:
    """That a request_id of a tenant belongs to a body and became a turn."""

    tenant: str
    request_id: str
    body_sha256: str
    chat_id: str
    turn_id: str
