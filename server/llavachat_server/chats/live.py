"""A turn while it runs: what has happened so far, for everyone who follows it.

Contract: events are kept in their order from the first to the last, so that a follower may come
late and misses nothing; a follower who reads slowly costs nobody else anything, because what is
kept is bounded by the answer itself. When the last follower leaves before the end and none comes
within the grace period, the turn is told to end. Belongs to one event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from llavachat_server.frames import drop_frames
from llavachat_server.images.intake import ImageInfo
from llavachat_server.values import Delta, FinishReason, ModelInfo, Queued, Sampling, Timings, Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The turn has a place in its chat."""

    chat_id: str
    turn_id: str
    parent_turn_id: str | None
    model: ModelInfo
    sampling: Sampling
    images: tuple[ImageInfo, ...]


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Turns were left out of the prompt to make room."""

    turn_ids: tuple[str, ...]
    num_tokens_before: int
    num_tokens_after: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer has ended and is recorded."""

    finish_reason: FinishReason
    matched_stop: str | None
    usage: Usage
    timings: Timings


QUEUED_AGAIN_SECONDS = 15.0
"""Proxies end a stream on which nothing passes, nginx after 60 s; pings do not count for them."""

TurnEvent = Started | Trimmed | Queued | Delta | Ended


class LiveTurn:
    """One running turn.

    Args:
        body_sha256: what was asked; see `Question`.
        abandon: called when the last follower has left before the end.
        grace_seconds: how long after that; a follower who comes in this time prevents it.
    """

    def __init__(
        self,
        body_sha256: str,
        abandon: Callable[["LiveTurn"], None],
        grace_seconds: float = 0.0,
    ) -> None:
        self.body_sha256 = body_sha256
        self.chat_id = ""
        self.turn_id = ""
        self.answer = ""
        self.end_reason: FinishReason | None = None
        """Why it was told to end, once it was."""
        self.end_error: Exception | None = None
        """What followers get if it ends before its answer began; None where the server stops."""
        self._abandon = abandon
        self._grace_seconds = grace_seconds
        self._grace: asyncio.TimerHandle | None = None
        self._events: list[TurnEvent] = []
        self._is_over = False
        self._error: Exception | None = None
        self._num_followers = 0
        # Bare futures: an asyncio.Event asks the system for the process's id at every wait.
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_over(self) -> bool:
        """Whether the last event has come."""
        return self._is_over

    @property
    def is_followed(self) -> bool:
        """Whether anybody follows it at this moment."""
        return self._num_followers > 0

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody follows it any more, though someone may come back."""
        return self._grace is not None and not self._is_over

    def publish(self, event: TurnEvent) -> None:
        """Tell all followers; `Ended` is the last event."""
        if isinstance(event, Delta):
            self.answer += event.text
        self._events.append(event)
        self._is_over = isinstance(event, Ended)
        self._tell()

    def fail(self, error: Exception) -> None:
        """End without `Ended`: followers get `error` after what came before it."""
        self._error = error
        self._is_over = True
        if not self.is_followed:
            drop_frames(error)
        self._tell()

    async def follow(self, char_offset: int = 0) -> AsyncGenerator[TurnEvent, None]:
        """Every event from the first to the last, without the answer's first characters.

        Until the answer begins, the last `Queued` is told again every `QUEUED_AGAIN_SECONDS`; where
        none was told, that it is next: it waits for room, its pictures, or its own long prompt.

        Args:
            char_offset: so many characters of the answer are left out.

        Raises:
            Exception: what the turn failed with.
        """
        self._num_followers += 1
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        position, is_told = 0, False
        loop = asyncio.get_running_loop()
        try:
            while True:
                while position < len(self._events):
                    event = self._events[position]
                    position += 1
                    known = event if char_offset == 0 else _cut(event, char_offset)
                    if known is not None:
                        yield known
                if self._is_over and position == len(self._events):
                    break
                news = loop.create_future()
                self._waiting.append(news)
                last = self._events[-1] if self._events else None
                if not isinstance(last, Queued | Started | Trimmed):
                    await news
                elif not (await asyncio.wait({news}, timeout=QUEUED_AGAIN_SECONDS))[0]:
                    self._waiting.remove(news)
                    yield last if isinstance(last, Queued) else Queued(1)
            if self._error is not None:
                is_told = True
                raise self._error
        finally:
            self._num_followers -= 1
            if self._num_followers == 0 and not self._is_over:
                self._part()
            elif self._num_followers == 0 and not is_told:
                # Whoever is told may want the stack, and lets go of it.
                drop_frames(self._error)

    def _part(self) -> None:
        """The last follower has left."""
        if self._grace_seconds <= 0:
            self._abandon(self)
            return
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(self._grace_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self._is_over:
            self._abandon(self)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():
                news.set_result(None)


def _cut(event: TurnEvent, char_offset: int) -> TurnEvent | None:
    """An event without what comes before `char_offset` of the answer; None when nothing is left."""
    if not isinstance(event, Delta):
        return event
    num_known = char_offset - event.char_offset
    if num_known <= 0:
        return event
    if num_known >= len(event.text):
        return None
    return Delta(event.text[num_known:], char_offset)
