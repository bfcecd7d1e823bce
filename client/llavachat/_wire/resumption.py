"""How a question outlives its connection: decisions only, nothing is sent here.

One that had not begun is asked again under its request_id, so that the server answers it once; but
not by a client that never reached a server: its address may be wrong, and that is told at once.

A turn that had begun is followed from the last character that came. Where the server has ended with
it, the question is asked once more: the server then answers it anew, once, with the seed of the
first time, and what begins as the first answer did goes on as if nothing had been. One that was
erased meanwhile is not asked again.

A loss is over when its connection has held again for a while: what comes later than that is no
repetition of what the server had already, so that a loss after it is a new one, and an end after it
has nothing to do with it.
"""

import time
from collections.abc import Callable
from typing import Any, NoReturn

from llavachat._wire.requests import Operation, resume_turn
from llavachat._wire.status import tell_late
from llavachat.errors import (
    DeadlineExceeded,
    IncompleteReply,
    LimitReached,
    NotFound,
    NotSupported,
    ServerUnavailable,
    StatusError,
    TurnRunning,
)
from llavachat.types import Delta, Event, Finished, FinishReason, Queued, Started

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
_HOLDS_SECONDS = 2.0
"""After a try's first event: what was there before has come by then."""


class Resumption:
    """What came of one answer, and what to call when its stream breaks.

    Args:
        operation: the question.
        resume_seconds: how long to try after the connection of an answer that had begun was lost; 0
            does not try.
        restart_seconds: likewise for one that has not begun, when it is lost.
        timeout_seconds: the deadline of the whole answer.
    """

    def __init__(
        self,
        operation: Operation[Any],
        *,
        resume_seconds: float,
        restart_seconds: Callable[[], float],
        timeout_seconds: float,
    ) -> None:
        self._question = operation
        self._resume_seconds = resume_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._restart_seconds = restart_seconds
        self._started: Started | None = None
        self._text = ""
        self._queued: Queued | None = None
        self._is_asked_again = False
        self._is_lost = False
        self._is_stopped = False
        self._error: ServerUnavailable | None = None
        self._give_up_at = 0.0
        self._holds_since: float | None = None
        self._wait_seconds = _FIRST_WAIT_SECONDS

    @property
    def timeout_seconds(self) -> float:
        """What is left of the deadline."""
        return max(0.001, self._deadline - time.monotonic())

    def take(self, event: Event) -> Event | None:
        """Take down an event; the news in it, or None when there is none.

        Raises:
            ServerUnavailable: the turn has ended with its server, or because nobody read it; see
                `plan`.
            IncompleteReply: an answer to the question asked again is another one.
        """
        now = time.monotonic()
        if self._holds_since is None:
            self._holds_since = now
        elif now > self._holds_since + _HOLDS_SECONDS:
            self._is_lost, self._error = False, None
        if isinstance(event, Started):
            is_known = self._started is not None and self._started.turn_id == event.turn_id
            self._started = event
            return None if is_known else event
        if isinstance(event, Delta):
            return self._take_text(event)
        if isinstance(event, Queued):
            # A server tells the position again, so that no proxy takes the stream for dead.
            is_known, self._queued = event == self._queued, event
            return None if is_known else event
        if isinstance(event, Finished) and self._error is not None:
            self._check_end(event.finish_reason, self._error)
        return event

    def plan(self, error: StatusError) -> tuple[Operation[Any], float]:
        """What to call after `error`, and how many seconds to wait before.

        Raises:
            StatusError: nothing; the answer has ended. With `error` itself where the server will
                say the same again, with the first loss where nothing answered for long enough, with
                `DeadlineExceeded` where the deadline leaves an answer that had begun no time.
        """
        seconds = self._restart_seconds() if self._started is None else self._resume_seconds
        if seconds <= 0 or self._is_stopped:
            raise error
        now = time.monotonic()
        if not self._is_lost or self._error is None:
            if not isinstance(error, ServerUnavailable):
                raise error
            self._give_up_at = now + seconds
            self._wait_seconds = _FIRST_WAIT_SECONDS
            self._is_lost, self._error = True, error
        elif _went_with_server(error) and self._started and not self._is_asked_again:
            self._is_asked_again = True
        elif isinstance(error, NotSupported) and self._started:
            # An older server can not be asked to go on: the loss is all that there is to tell.
            raise self._error from error
        elif self._started is None and isinstance(error, DeadlineExceeded):
            # That no server was there tells more than that nothing came from it in time.
            raise self._error from error
        elif not _passes(error):
            raise error from self._error
        left_seconds = min(self._give_up_at, self._deadline) - now
        asked_seconds = error.retry_after_seconds or 0.0
        if left_seconds <= 0 or asked_seconds > left_seconds:
            self._give_up(error, self._error)
        wait_seconds = min(max(self._wait_seconds, asked_seconds), left_seconds)
        self._holds_since = None
        self._wait_seconds = min(2 * self._wait_seconds, _LONGEST_WAIT_SECONDS)
        turn = self._started
        if turn is None or self._is_asked_again:
            return self._question, wait_seconds
        return resume_turn(turn, len(self._text)), wait_seconds

    def _give_up(self, error: StatusError, loss: ServerUnavailable) -> NoReturn:
        """There is no time for another try, after the last one ended with `error`."""
        if not isinstance(error, ServerUnavailable):
            raise error from loss
        if self._started is not None and self._deadline <= self._give_up_at:
            raise tell_late() from loss
        raise loss

    def _check_end(self, reason: FinishReason, loss: ServerUnavailable) -> None:
        """Whether an answer that was lost on the way is whole now."""
        if reason is FinishReason.SHUTDOWN and not self._is_asked_again:
            self._is_asked_again = True
            raise loss
        if reason is FinishReason.CANCELLED:
            # Nobody here has closed it, or nobody would read this.
            self._is_stopped = True
            raise ServerUnavailable(
                "The connection was lost for so long that the server has stopped the answer; what "
                "came is kept. Ask again for a whole answer."
            ) from loss

    def _take_text(self, event: Delta) -> Delta | None:
        num_known = len(self._text) - event.char_offset
        if num_known == 0 and event.text:
            self._text += event.text
            self._is_lost = False
            return event
        known = event.text[: max(0, num_known)]
        if known and not self._text.startswith(known, event.char_offset):
            raise IncompleteReply(
                "The server was started anew and answers this question otherwise now; what came "
                "before is kept. Ask again for a whole answer."
            )
        news = event.text[len(known) :]
        if not news:
            return None
        self._text += news
        # News: the connection holds again.
        self._is_lost = False
        return Delta(news, event.char_offset + len(known))


def _went_with_server(error: StatusError) -> bool:
    """True where a server does not know a turn that another one kept in its memory alone.

    Any other that it does not know was erased: asked again, it would come back.
    """
    return isinstance(error, NotFound) and any(
        kind == "SERVER_ENDED" for kind, _, _ in error.details.preconditions
    )


def _passes(error: StatusError) -> bool:
    """True for what a server says that is to be asked again later."""
    if isinstance(error, LimitReached):
        return error.retry_after_seconds is not None
    return isinstance(error, ServerUnavailable | TurnRunning)
