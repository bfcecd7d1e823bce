"""The line in front of the batch: fair, bounded, and with true positions."""

import heapq
from collections import Counter
from statistics import quantiles

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from llavachat_server.engine.admission import AdmissionQueue, Ticket
from llavachat_server.values import QueueFull

MAX_RUNNING, MAX_QUEUED = 2, 6


def test_the_excess_is_refused_at_once() -> None:
    """With the time after which to try again."""
    queue = AdmissionQueue(1, 0)
    queue.check_room(7.0)
    queue.enter(Ticket(lambda: None, lambda _: None))

    with pytest.raises(QueueFull) as refusal:
        queue.check_room(7.0)
    assert 7.0 == refusal.value.retry_after_seconds


def fill(queue: AdmissionQueue, tenant: str) -> int:
    """Send requests until one is refused; how many came in."""
    number = 0
    while True:
        try:
            queue.check_room(1.0, tenant)
        except QueueFull:
            return number
        queue.enter(Ticket(lambda: None, lambda _: None, tenant))
        number += 1


def test_nobody_fills_the_line_alone() -> None:
    """A greedy tenant leaves room for the next, who leaves room for one more."""
    queue = AdmissionQueue(1, 64)
    assert [53, 10, 2] == [fill(queue, tenant) for tenant in ("anna", "ben", "carl")]


def test_a_tenants_share_is_refused_at_its_edge() -> None:
    """Four times the places that are left are all that it may have."""
    assert 1 + 4 == fill(AdmissionQueue(1, 5), "anna")


def enter(queue: AdmissionQueue, tenant: str) -> tuple[Ticket, list[int]]:
    """A request, and the positions that it is told."""
    told: list[int] = []
    ticket = Ticket(lambda: None, told.append, tenant)
    queue.enter(ticket)
    return ticket, told


def test_a_newcomer_is_told_its_true_position() -> None:
    """Behind the first of another tenant, and before its others, who are told as well."""
    queue = AdmissionQueue(1, 64)
    enter(queue, "carl")
    annas = [enter(queue, "anna")[1] for _ in range(3)]
    _, bens = enter(queue, "ben")
    assert ([[1], [2, 3], [3, 4]], [2]) == (annas, bens)


def test_a_position_is_told_once() -> None:
    """Who comes or goes behind somebody is none of that one's business."""
    queue = AdmissionQueue(1, 64)
    inside, _ = enter(queue, "carl")
    _, first = enter(queue, "anna")
    second, _ = enter(queue, "anna")
    enter(queue, "ben")
    queue.leave(second)
    assert [1] == first
    queue.leave(inside)
    assert [1] == first


def test_among_newcomers_who_came_first_is_first() -> None:
    """Also where somebody left whose tenant had been in the line before either."""
    queue = AdmissionQueue(1, 64)
    enter(queue, "carl")
    gone, _ = enter(queue, "anna")
    _, ben = enter(queue, "ben")
    _, anna = enter(queue, "anna")
    queue.leave(gone)
    assert ([2, 1], [3, 2]) == (ben, anna)


def test_nobody_moves_back_where_nobody_came() -> None:
    """A tenant's second question is behind those whose tenants have as many inside by then."""
    queue = AdmissionQueue(4, 64)
    gone, _ = enter(queue, "anna")
    inside = {tenant: enter(queue, tenant)[0] for tenant in ("dora", "ben", "carl")}
    queue.leave(gone)
    enter(queue, "carl")
    names = ("anna", "anna", "dora", "ben")
    told = [enter(queue, tenant)[1] for tenant in names]
    assert [1, 4, 2, 3] == [positions[-1] for positions in told]
    queue.leave(inside["carl"])
    assert [1, 3, 1, 2] == [positions[-1] for positions in told]
    queue.leave(inside["dora"])
    assert [1, 2, 1, 1] == [positions[-1] for positions in told]


def test_a_server_without_tenants_uses_its_whole_line() -> None:
    """There is nobody to leave room for."""
    assert 1 + 64 == fill(AdmissionQueue(1, 64), "")


@given(num_tenants=st.integers(2, 6), max_running=st.integers(1, 4), rounds=st.integers(1, 5))
def test_those_who_always_ask_take_turns(num_tenants: int, max_running: int, rounds: int) -> None:
    """Whoever comes back at once for more is served as often as everybody else."""
    queue = AdmissionQueue(max_running, 64)
    running: list[Ticket] = []
    served: Counter[str] = Counter()

    def ask(tenant: str) -> None:
        def begin() -> None:
            served[tenant] += 1
            running.append(ticket)

        ticket = Ticket(begin, lambda _: None, tenant)
        queue.enter(ticket)

    for number in range(num_tenants):
        ask(str(number))
    for _ in range(rounds * num_tenants):
        ended = running.pop(0)
        queue.leave(ended)
        ask(ended.tenant)
    assert max(served.values()) - min(served[str(n)] for n in range(num_tenants)) <= 1


def simulate(max_running: int, greedy: int, num_questions: int = 200) -> float:
    """A neighbour asks one question after another, each a second long; its p99 in seconds.

    Args:
        max_running: places inside.
        greedy: how many questions the other tenant has under way at any time.
        num_questions: of the neighbour.
    """
    queue = AdmissionQueue(max_running, 1000)
    now, number = 0.0, 0
    ends: list[tuple[float, int, Ticket]] = []
    waits: list[float] = []

    def ask(tenant: str) -> None:
        asked_at = now

        def begin() -> None:
            nonlocal number
            number += 1
            heapq.heappush(ends, (now + 1.0, number, ticket))
            if tenant == "neighbour":
                waits.append(now + 1.0 - asked_at)

        ticket = Ticket(begin, lambda _: None, tenant)
        queue.enter(ticket)

    for _ in range(greedy):
        ask("greedy")
    # Off the greedy one's beat, so that the neighbour waits as long as one can.
    now = 0.001
    ask("neighbour")
    while len(waits) < num_questions:
        now, _, ended = heapq.heappop(ends)
        queue.leave(ended)
        ask(ended.tenant)
    return quantiles(waits, n=100)[98]


@pytest.mark.parametrize("max_running", [1, 2, 8])
def test_a_greedy_tenant_at_most_doubles_anothers_latency(max_running: int) -> None:
    """At p99, with a hundred questions under way at any time against one."""
    alone = simulate(max_running, 0)
    assert alone < simulate(max_running, 100) <= 2 * alone + 0.01


TENANTS = ("", "anna", "ben")


class LineMachine(RuleBasedStateMachine):
    """Against what must hold of every line: its bounds, its order, and its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = AdmissionQueue(MAX_RUNNING, MAX_QUEUED)
        self.inside: list[Ticket] = []
        self.line: list[Ticket] = []
        self.admitted: list[Ticket] = []
        self.positions: dict[int, int] = {}

    @rule(tenant=st.sampled_from(TENANTS))
    def come(self, tenant: str) -> None:
        """A request comes."""
        is_full = len(self.inside) == MAX_RUNNING and len(self.line) == MAX_QUEUED
        try:
            self.queue.check_room(1.0, tenant)
        except QueueFull:
            own = sum(ticket.tenant == tenant for ticket in self.line)
            assert is_full or (tenant and own >= 4 * (MAX_QUEUED - len(self.line)))
            return
        assert not is_full
        ticket = Ticket(
            lambda: self.admitted.append(ticket), lambda p: self.note(ticket, p), tenant
        )
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
        before = len(self.admitted)
        self.queue.leave(ticket)
        self.queue.leave(ticket)
        (self.inside if ticket in self.inside else self.line).remove(ticket)
        if self.line and len(self.inside) < MAX_RUNNING:
            (chosen,) = self.admitted[before:]
            running = Counter(each.tenant for each in self.inside)
            assert running[chosen.tenant] == min(running[each.tenant] for each in self.line)
            assert chosen is next(t for t in self.line if t.tenant == chosen.tenant)
            self.line.remove(chosen)
            self.inside.append(chosen)

    @invariant()
    def counts_agree(self) -> None:
        """Everybody inside was told; positions count from 1, each tenant's in its order."""
        assert len(self.inside) == self.queue.num_running
        assert len(self.line) == self.queue.num_queued
        assert all(ticket in self.admitted for ticket in self.inside)
        assert not any(ticket in self.admitted for ticket in self.line)
        positions = [self.positions[id(ticket)] for ticket in self.line]
        assert list(range(1, len(self.line) + 1)) == sorted(positions)
        for tenant in TENANTS:
            own = [self.positions[id(t)] for t in self.line if t.tenant == tenant]
            assert own == sorted(own)


TestLineMachine = LineMachine.TestCase
TestLineMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
