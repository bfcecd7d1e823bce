"""What is noted of one turn while it runs, and its report at the end.

It notes who, how much and how long, and never what was said. It must not know what becomes of a
report.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from llavachat_server.chats.question import Question
from llavachat_server.chats.record import Turn
from llavachat_server.observation import TRACE, TurnReport
from llavachat_server.values import ModelInfo, Phase


class TurnAccount:
    """One turn, from its arrival on. Made in the context of the call that asks.

    Args:
        tenant: who asks.
        question: counted, not kept.
        model: which model is asked.
    """

    def __init__(self, tenant: str, question: Question, model: ModelInfo) -> None:
        self.phases: tuple[Phase, ...] = ()
        self.turn: Turn | None = None
        """As far as it has come; None before its parameters are resolved."""
        self.is_kept = False
        """The turn is in the store: before that it can only be refused."""
        self._began_seconds = time.perf_counter()
        self._tenant = tenant
        self._request_id = question.request_id
        self._num_images = len(question.images)
        self._model = model
        self._chat_id = ""
        self._trace = TRACE.get()

    def note_turn(self, chat_id: str, turn: Turn) -> None:
        """Its place and its parameters are known."""
        self._chat_id = chat_id
        self.turn = turn

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note how long something takes; what fails is no phase."""
        began = time.perf_counter()
        yield
        self.phases += (Phase(name, began, time.perf_counter()),)

    def report(self, error: str = "") -> TurnReport:
        """The turn is over.

        Args:
            error: what it failed with or was refused for, see `observation.name_error`.
        """
        turn = self.turn
        return TurnReport(
            tenant=self._tenant,
            request_id=self._request_id,
            chat_id=self._chat_id if self.is_kept else "",
            turn_id=turn.id if turn is not None and self.is_kept else "",
            model=self._model,
            sampling=None if turn is None else turn.sampling,
            num_images=self._num_images,
            finish_reason=None if turn is None else turn.finish_reason,
            error=error,
            usage=None if turn is None else turn.usage,
            timings=None if turn is None else turn.timings,
            phases=self.phases,
            began_seconds=self._began_seconds,
            ended_seconds=time.perf_counter(),
            trace=self._trace,
        )
