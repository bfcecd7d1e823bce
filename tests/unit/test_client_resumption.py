"""What a client makes of a loss that comes after another one, by a clock that is set."""

from types import SimpleNamespace
from typing import Any

import pytest
from llavachat._wire import resumption
from llavachat._wire.requests import Operation
from llavachat._wire.resumption import Resumption
from llavachat.errors import ServerUnavailable
from llavachat.types import (
    Delta,
    Finished,
    FinishReason,
    ModelInfo,
    Params,
    Queued,
    Started,
    Timings,
    Usage,
)

STARTED = Started("chat", "turn", None, ModelInfo("", "", "", "", ""), Params(), ())
CANCELLED = Finished(FinishReason.CANCELLED, None, Usage(0, 0, 0, 0, 0), Timings(0, 0, 0, 0, 0))


class Answer:
    """An answer that has begun, and a time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(resumption, "time", clock)
        question: Operation[Any] = Operation("StartChat", None, str)
        self._resumption = Resumption(
            question, resume_seconds=10, restart_seconds=lambda: 10.0, timeout_seconds=1000
        )
        self.take = self._resumption.take
        self.take(STARTED)

    def lose(self) -> float:
        """The connection is lost; how many seconds to wait before the next try."""
        _, wait_seconds = self._resumption.plan(ServerUnavailable("lost"))
        self.now += wait_seconds
        return wait_seconds


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """See `Answer`."""
    return Answer(monkeypatch)


def test_a_connection_that_held_is_lost_anew(answer: Answer) -> None:
    """A turn that waits in line for longer than one loss is given outlives a second one."""
    assert 0.1 == answer.lose()
    answer.take(STARTED)
    answer.now += 60
    assert Queued(1) == answer.take(Queued(1))
    assert 0.1 == answer.lose()


def test_one_that_breaks_at_once_is_lost_still(answer: Answer) -> None:
    """What a server had to tell already shows nothing: trying ends in its time."""
    waits = []

    def lose_often() -> None:
        for _ in range(100):
            waits.append(answer.lose())
            answer.take(STARTED)
            answer.take(Queued(1))

    with pytest.raises(ServerUnavailable):
        lose_often()
    assert [0.1, 0.2, 0.4, 0.8, 1.6, 2.0] == waits[:6]
    assert 10.0 == pytest.approx(sum(waits))


def test_an_end_right_after_a_loss_is_the_losss(answer: Answer) -> None:
    """The server stopped an answer that nobody read, with what it had said until then."""
    answer.lose()
    # However long it took to reach the server again.
    answer.now += 5
    answer.take(STARTED)
    answer.take(Delta("A red circle", 0))
    with pytest.raises(ServerUnavailable, match="The connection was lost for so long"):
        answer.take(CANCELLED)


def test_an_end_long_after_a_loss_is_the_answers(answer: Answer) -> None:
    """Somebody stopped it on purpose, while it was read."""
    answer.lose()
    answer.take(STARTED)
    answer.take(Delta("A red ", 0))
    answer.now += 3
    answer.take(Delta("circle", 6))
    assert CANCELLED == answer.take(CANCELLED)
