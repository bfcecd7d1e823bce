"""One request's life on the event loop: its text, its events, its times.

Ids go in by `take_tokens`, events come out by iterating; how fast they are read changes
nothing, because deltas that nobody has read yet are joined into one. It knows no model and no
thread.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from llavachat_server.engine.admission import Ticket
from llavachat_server.engine.bank import Slot
from llavachat_server.engine.detokenise import Detokeniser, TokenTable
from llavachat_server.values import (
    Delta,
    EngineError,
    EngineEvent,
    EngineRequest,
    Finished,
    FinishReason,
    InvalidField,
    Phase,
    Queued,
    Timings,
    Usage,
)


def name_owner(tenant: str, owner: str) -> tuple[str, str] | None:
    """What the caches know an owner by; None for nobody."""
    return (tenant, owner) if owner else None


class Run:
    """A request from the gate to its last event.

    Args:
        request: as it came.
        table: spells the tokens.
        image_tokens: of all its pictures.
        context_tokens: prompt and answer together fit into these.
        eos_token_ids: end an answer, and are no part of it.
    """

    def __init__(
        self,
        request: EngineRequest,
        table: TokenTable,
        *,
        image_tokens: int,
        context_tokens: int,
        eos_token_ids: Sequence[int],
    ) -> None:
        self.request = request
        self.owner = name_owner(request.tenant, request.owner)
        self.arrived_at_seconds = time.perf_counter()
        self.image_tokens = image_tokens
        self.text_tokens = len(request.token_ids) - len(request.images)
        self.prompt_tokens = self.text_tokens + image_tokens
        self.room_tokens = context_tokens - self.prompt_tokens
        self.max_new_tokens = min(request.sampling.max_tokens, self.room_tokens)
        # What the engine lends to the run while it needs it.
        self.ticket: Ticket | None = None
        self.slots: list[Slot] = []
        self.number: int | None = None
        self.timer: asyncio.TimerHandle | None = None

        self._eos = frozenset(eos_token_ids)
        self._text = Detokeniser(table, request.sampling.stop)
        self._token_ids: list[int] = []
        self._num_chars = 0
        self._cached_tokens = 0
        self._vision_began_at: float | None = None
        self._vision_ended_at: float | None = None
        self._submitted_at: float | None = None
        self._scheduled_at: float | None = None
        self._first_token_at: float | None = None
        self._last_token_at: float | None = None

        self._position: int | None = None
        self._unread = ""
        self._unread_offset = 0
        self._end: Finished | EngineError | InvalidField | None = None
        # A bare future: an asyncio.Event asks the system for the process's id at every wait.
        self._reader: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """The last event is settled, though perhaps not read."""
        return self._end is not None

    def move(self, position: int) -> None:
        """The place in the line has changed."""
        self._position = position
        self._wake_reader()

    def note_admission(self) -> None:
        """The request may begin."""
        self._position = None

    def begin_vision(self) -> None:
        """It has new pictures, and room for them."""
        self._vision_began_at = time.perf_counter()

    def end_vision(self) -> None:
        """They are encoded."""
        self._vision_ended_at = time.perf_counter()

    def note_submission(self) -> None:
        """The job goes to the generation loop."""
        self._submitted_at = time.perf_counter()

    def take_tokens(
        self,
        token_ids: Sequence[int],
        *,
        at_seconds: float,
        scheduled_at_seconds: float,
        cached_tokens: int,
    ) -> None:
        """Take the answer's next ids.

        A stop text ends the run at once; the caller looks at `is_over`.
        """
        if self.is_over:
            return
        self._cached_tokens = cached_tokens
        self._scheduled_at = scheduled_at_seconds
        for token_id in token_ids:
            self._first_token_at = self._first_token_at or at_seconds
            self._last_token_at = at_seconds
            if token_id in self._eos:
                self.finish(FinishReason.EOS)
                return
            self._token_ids.append(token_id)
            self._append(self._text.push(token_id))
            if self._text.match is not None:
                self.finish(FinishReason.STOP_SEQUENCE)
                return

    def finish_at_length(self) -> None:
        """The loop made as many tokens as it may."""
        is_context_full = self.max_new_tokens < self.request.sampling.max_tokens
        self.finish(FinishReason.MAX_CONTEXT if is_context_full else FinishReason.MAX_TOKENS)

    def finish(self, reason: FinishReason) -> None:
        """Settle the end. Only the first one counts."""
        if self.is_over:
            return
        match = self._text.match
        if match is None:
            self._append(self._text.finish())
        kept = len(self._token_ids) if match is None else self._text.count_spoken_tokens()
        phases = self._list_phases()
        self._settle(
            Finished(
                finish_reason=reason,
                matched_stop=None if match is None else match.text,
                token_ids=tuple(self._token_ids[:kept]),
                usage=Usage(
                    text_tokens=self.text_tokens,
                    image_tokens=self.image_tokens,
                    cached_tokens=self._cached_tokens,
                    completion_tokens=kept,
                    context_left_tokens=self.room_tokens - kept,
                ),
                timings=self._measure(phases),
                phases=tuple(phases),
            )
        )

    def fail(self, error: EngineError | InvalidField) -> None:
        """Settle the end as an error."""
        if not self.is_over:
            self._settle(error)

    async def read_events(self) -> AsyncIterator[EngineEvent]:
        """The events, `Finished` last.

        Raises:
            EngineError, InvalidField: the run failed; what came before has been read.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._position is not None and not self._unread:
                position, self._position = self._position, None
                yield Queued(position)
            elif self._unread:
                text, self._unread = self._unread, ""
                yield Delta(text, self._unread_offset)
            elif isinstance(self._end, Exception):
                raise self._end
            elif self._end is not None:
                yield self._end
                return
            else:
                self._reader = loop.create_future()
                await self._reader

    def _append(self, text: str) -> None:
        if not text:
            return
        if not self._unread:
            self._unread_offset = self._num_chars
        self._unread += text
        self._num_chars += len(text)
        self._wake_reader()

    def _settle(self, end: Finished | EngineError | InvalidField) -> None:
        self._end = end
        self._position = None
        if self.timer is not None:
            self.timer.cancel()
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _measure(self, phases: Sequence[Phase]) -> Timings:
        def sum_up(name: str) -> float:
            return sum((p.ended_seconds - p.began_seconds for p in phases if p.name == name), 0.0)

        first = self._first_token_at
        return Timings(
            queue_seconds=sum_up("queue"),
            vision_seconds=sum_up("vision"),
            prefill_seconds=sum_up("prefill"),
            first_token_seconds=first - self.arrived_at_seconds if first else 0.0,
            decode_seconds=sum_up("decode"),
        )

    def _list_phases(self) -> list[Phase]:
        """What was done when, from the arrival on, each beginning where the one before it ends."""
        now, began, phases = time.perf_counter(), self.arrived_at_seconds, []
        if self._vision_began_at is not None:
            # Waiting comes twice then: for a place and for the bank, and for the loop's batch.
            ended = self._vision_ended_at or now
            phases.append(Phase("queue", began, self._vision_began_at))
            phases.append(Phase("vision", self._vision_began_at, ended))
            began = ended
        # The loop tells with the first token when it took the job into the batch.
        scheduled = max(began, self._scheduled_at or self._submitted_at or now)
        phases.append(Phase("queue", began, scheduled))
        if self._first_token_at is not None:
            first = max(scheduled, self._first_token_at)
            phases.append(Phase("prefill", scheduled, first))
            phases.append(Phase("decode", first, self._last_token_at or first))
        return phases
