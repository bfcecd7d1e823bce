"""The line in front of the batch: fair between tenants, and never longer than allowed.

The tenant with the fewest answers running is next, among equals the one whose last turn is
longest ago, and within one tenant whoever came first. So a
tenant who asks a hundred questions at once waits for its own, and its neighbour for the one
answer that ends next. No tenant may fill the line: it may wait with at most
`SHARE_OF_FREE` times the places that are then left, so that the next one finds room.

Pure bookkeeping for one event loop: whoever is admitted is told by a callback.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from llavachat_server.values import QueueFull

SHARE_OF_FREE = 4
"""Of a line of 64 one tenant alone gets 51 places. Source of the rule: Choudhury and Hahne,
"Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's place.

    Args:
        on_admitted: called once, when the request may begin.
        on_moved: called with the new position whenever it changes; 1 is next in line.
        tenant: who asks. "" for everybody on a server without tenants, which may fill the line.
    """

    on_admitted: Callable[[], None]
    on_moved: Callable[[int], None]
    tenant: str = ""
    is_admitted: bool = False
    is_closed: bool = False
    position: int = 0
    """As told last; 0 where none was."""
    number: int = 0
    """Counts those who had to wait."""


class AdmissionQueue:
    """Counts who is inside and lines up the rest.

    Args:
        max_running: places inside.
        max_queued: places in the line.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._running: Counter[str] = Counter()
        self._num_running = 0
        self._num_admitted = 0
        # When each tenant was last let in. It is kept while a tenant is away: or else who asks one
        # question after another would overtake, each time, whoever waits.
        self._last_admission: dict[str, int] = {}
        self._num_entered = 0
        self._lines: dict[str, list[Ticket]] = {}
        self._num_queued = 0

    @property
    def num_running(self) -> int:
        """Requests inside."""
        return self._num_running

    @property
    def num_queued(self) -> int:
        """Requests in the line."""
        return self._num_queued

    def check_room(self, retry_after_seconds: float, tenant: str = "") -> None:
        """Refuse when both are full, or when the tenant has its share of the line.

        Raises:
            QueueFull: with `retry_after_seconds`.
        """
        if self._num_running < self._max_running:
            return
        num_free = self._max_queued - self._num_queued
        num_own = len(self._lines.get(tenant, ()))
        if num_free <= 0 or (tenant and num_own >= SHARE_OF_FREE * num_free):
            raise QueueFull(retry_after_seconds)

    def enter(self, ticket: Ticket) -> None:
        """Admit a request, or put it into the line; call `check_room` before."""
        if self._num_running < self._max_running:
            self._admit(ticket)
            return
        self._num_entered += 1
        ticket.number = self._num_entered
        self._lines.setdefault(ticket.tenant, []).append(ticket)
        self._num_queued += 1
        if len(self._lines) == 1:
            self._tell(ticket, self._num_queued)
        else:
            self._tell_positions()

    def leave(self, ticket: Ticket) -> None:
        """Give a place back, inside or in the line. The second call does nothing."""
        if ticket.is_closed:
            return
        ticket.is_closed = True
        if ticket.is_admitted:
            self._num_running -= 1
            self._running[ticket.tenant] -= 1
        else:
            self._take_out(ticket)
        if self._lines and self._num_running < self._max_running:
            ticket = self._order()[0]
            self._take_out(ticket)
            self._admit(ticket)
        self._tell_positions()

    def _admit(self, ticket: Ticket) -> None:
        self._num_running += 1
        self._num_admitted += 1
        self._running[ticket.tenant] += 1
        self._last_admission[ticket.tenant] = self._num_admitted
        ticket.is_admitted = True
        ticket.on_admitted()

    def _take_out(self, ticket: Ticket) -> None:
        line = self._lines[ticket.tenant]
        line.remove(ticket)
        self._num_queued -= 1
        if not line:
            del self._lines[ticket.tenant]

    def _order(self) -> list[Ticket]:
        """The line as it would be served if places came free one after another.

        Whoever would be let in counts as the latest of all for those behind it.
        """
        firsts = [
            (self._running[tenant], self._last_admission.get(tenant, 0), line[0].number, tenant)
            for tenant, line in self._lines.items()
        ]
        heapq.heapify(firsts)
        num_ordered = Counter[str]()
        order: list[Ticket] = []
        while firsts:
            num_running, _, _, tenant = heapq.heappop(firsts)
            line = self._lines[tenant]
            order.append(line[num_ordered[tenant]])
            num_ordered[tenant] += 1
            if num_ordered[tenant] < len(line):
                latest = self._num_admitted + len(order)
                number = line[num_ordered[tenant]].number
                heapq.heappush(firsts, (num_running + 1, latest, number, tenant))
        return order

    def _tell_positions(self) -> None:
        for position, ticket in enumerate(self._order(), 1):
            self._tell(ticket, position)

    def _tell(self, ticket: Ticket, position: int) -> None:
        if ticket.position != position:
            ticket.position = position
            ticket.on_moved(position)
