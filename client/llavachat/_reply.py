"""What is known of an answer while it comes: the shared half of `Reply` and `AsyncReply`.

Fed with events, it knows no gRPC and waits for nothing.
"""

from llavachat.errors import DeadlineExceeded, IncompleteReply, NotStartedYet, StatusError
from llavachat.types import (
    ContextTrimmed,
    Delta,
    Event,
    Finished,
    FinishReason,
    ImageInfo,
    ModelInfo,
    Params,
    Queued,
    Started,
    Timings,
    Usage,
)

CANCEL_TIMEOUT_SECONDS = 2.0
"""How long a server may take to confirm that it stopped, where nobody asked to know. Past this
it stops by itself, after its `abandon_grace_seconds`."""


class ReplyRecord:
    """One answer, as far as it has come."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._closed = False
        self._has_failed = False
        self._is_broken = False
        self._parts: list[str] = []
        self._num_chars = 0
        self.trimmed: ContextTrimmed | None = None
        """Which turns were left out of the prompt to make room. None: none were."""
        self.queue_position: int | None = None
        """The place in the server's queue. None: not waiting."""

    @property
    def text(self) -> str:
        """The answer as far as it has come."""
        return "".join(self._parts)

    @property
    def is_started(self) -> bool:
        """True once the server has told the chat, the turn and the parameters."""
        return self._started is not None

    @property
    def is_finished(self) -> bool:
        """True when the answer has ended: by itself, by `close`, or with an error."""
        return self._is_over or self._is_broken

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended: `UNSPECIFIED` while it comes, and where it ended with an error that
        was raised; `CANCELLED` after `close`."""
        if self._finished is not None:
            return self._finished.finish_reason
        return FinishReason.CANCELLED if self._closed else FinishReason.UNSPECIFIED

    @property
    def matched_stop(self) -> str | None:
        """The stop text that came up, where one ended the answer."""
        return self._finished.matched_stop if self._finished else None

    @property
    def usage(self) -> Usage:
        """Tokens used.

        Raises:
            NotStartedYet: the answer has not come to its end.
        """
        return self._need_finished("usage").usage

    @property
    def timings(self) -> Timings:
        """Where the time went.

        Raises:
            NotStartedYet: the answer has not come to its end.
        """
        return self._need_finished("timings").timings

    @property
    def chat_id(self) -> str:
        """The chat that this answer belongs to.

        Raises:
            NotStartedYet: read some of the answer first.
        """
        return self._need_started("chat_id").chat_id

    @property
    def turn_id(self) -> str:
        """This turn. Raises `NotStartedYet` before the answer has begun."""
        return self._need_started("turn_id").turn_id

    @property
    def parent_turn_id(self) -> str | None:
        """The turn that this one goes on from. Raises `NotStartedYet`, as `turn_id` does."""
        return self._need_started("parent_turn_id").parent_turn_id

    @property
    def params(self) -> Params:
        """The parameters in use, every one set. Raises `NotStartedYet`, as `turn_id` does."""
        return self._need_started("params").params

    @property
    def model(self) -> ModelInfo:
        """Which model answers. Raises `NotStartedYet`, as `turn_id` does."""
        return self._need_started("model").model

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The pictures of this turn as the server knows them. Raises `NotStartedYet`, as
        `turn_id` does."""
        return self._need_started("images").images

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the answer after the first, by the time they took; 0.0 for fewer than two.

        Raises:
            NotStartedYet: the answer has not come to its end.
        """
        finished = self._need_finished("tokens_per_second")
        seconds = finished.timings.decode_seconds
        num_tokens = finished.usage.completion_tokens - 1
        return num_tokens / seconds if seconds > 0 and num_tokens > 0 else 0.0

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._started = event
            case Queued():
                self.queue_position = event.position
            case Delta():
                if event.char_offset != self._num_chars:
                    raise IncompleteReply(
                        f"The answer has a gap: character {self._num_chars} should have come "
                        f"next, and {event.char_offset} came."
                    )
                self.queue_position = None
                self._parts.append(event.text)
                self._num_chars += len(event.text)
            case ContextTrimmed():
                self.trimmed = event
            case Finished():
                self._finished, self.queue_position = event, None

    def _note_failure(self, error: Exception) -> None:
        """The stream has ended with an error. With the server's, the turn has ended too."""
        self._is_broken = True
        is_ours = isinstance(error, DeadlineExceeded)
        self._has_failed = isinstance(error, StatusError) and not is_ours

    @property
    def _is_over(self) -> bool:
        """Whether nothing is to come any more that a reader would wait for."""
        return self._finished is not None or self._closed

    @property
    def _is_running_on(self) -> bool:
        """Whether the server would go on with the turn if nobody told it to stop."""
        return self.is_started and self._finished is None and not self._has_failed

    def _check_end(self) -> None:
        if not self._is_over:
            self._is_broken = True
            raise IncompleteReply("The answer ended without its last event; it may be cut short.")

    def _need_started(self, name: str) -> Started:
        if self._started is None:
            raise NotStartedYet(
                f"`{name}` is known once the answer has begun; read some of it first."
            )
        return self._started

    def _need_finished(self, name: str) -> Finished:
        if self._finished is None:
            raise NotStartedYet(f"`{name}` is known at the end of the answer; read it to the end.")
        return self._finished
