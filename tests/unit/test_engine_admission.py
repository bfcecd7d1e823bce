"""The line in front of the batch: fair, bounded, and with true positions."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from llavachat_server.engine.admission import AdmissionQueue, Ticket
from llavachat_server.values import QueueFull

MAX_RUNNING, MAX_QUEUED = 2, 3


def test_the_excess_is_refused_at_once() -> None:
    """With the time after which to try again."""
    queue = AdmissionQueue(1, 0)
    queue.check_room(7.0)
    queue.enter(Ticket(lambda: None, lambda _: None))

    with pytest.raises(QueueFull) as refusal:
        queue.check_room(7.0)
    assert 7.0 == refusal.value.retry_after_seconds


class LineMachine(RuleBasedStateMachine):
    """Against the obvious model: a list of those inside and a list of those who wait."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = AdmissionQueue(MAX_RUNNING, MAX_QUEUED)
        self.inside: list[Ticket] = []
        self.line: list[Ticket] = []
        self.admitted: list[Ticket] = []
        self.positions: dict[int, int] = {}

    @rule()
    def come(self) -> None:
        """A request comes."""
        is_full = len(self.inside) == MAX_RUNNING and len(self.line) == MAX_QUEUED
        try:
            self.queue.check_room(1.0)
        except QueueFull:
            assert is_full
            return
        assert not is_full
        ticket = Ticket(lambda: self.admitted.append(ticket), lambda p: self.note(ticket, p))
        self.queue.enter(ticket)
        (self.inside if len(self.inside) < MAX_RUNNING else self.line).append(ticket)

    def note(self, ticket: Ticket, position: int) -> None:
        """Remember the latest position."""
        self.positions[id(ticket)] = position

    @precondition(lambda self: self.inside or self.line)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        """One of them goes, wherever it is; leaving twice changes nothing."""
        ticket = data.draw(st.sampled_from(self.inside + self.line))
        self.queue.leave(ticket)
        self.queue.leave(ticket)
        (self.inside if ticket in self.inside else self.line).remove(ticket)
        if self.line and len(self.inside) < MAX_RUNNING:
            self.inside.append(self.line.pop(0))

    @invariant()
    def counts_agree(self) -> None:
        """First come, first served; everybody inside was told; positions count from 1."""
        assert len(self.inside) == self.queue.num_running
        assert len(self.line) == self.queue.num_queued
        assert all(ticket in self.admitted for ticket in self.inside)
        assert not any(ticket in self.admitted for ticket in self.line)
        expected = list(range(1, len(self.line) + 1))
        assert expected == [self.positions[id(ticket)] for ticket in self.line]


TestLineMachine = LineMachine.TestCase
TestLineMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
