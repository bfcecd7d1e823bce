"""The line in front of the batch: first come, first served, and never longer than allowed.

Pure bookkeeping for one event loop: whoever is admitted is told by a callback.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llavachat_server.values import QueueFull


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's place.

    Args:
        on_admitted: called once, when the request may begin.
        on_moved: called with the new position whenever it changes; 1 is next in line.
    """

    on_admitted: Callable[[], None]
    on_moved: Callable[[int], None]
    is_admitted: bool = False
    is_closed: bool = False


class AdmissionQueue:
    """Counts who is inside and lines up the rest.

    Args:
        max_running: places inside.
        max_queued: places in the line.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._num_running = 0
        self._line: list[Ticket] = []

    @property
    def num_running(self) -> int:
        """Requests inside."""
        return self._num_running

    @property
    def num_queued(self) -> int:
        """Requests in the line."""
        return len(self._line)

    def check_room(self, retry_after_seconds: float) -> None:
        """Refuse when both are full.

        Raises:
            QueueFull: with `retry_after_seconds`.
        """
        if self._num_running >= self._max_running and len(self._line) >= self._max_queued:
            raise QueueFull(retry_after_seconds)

    def enter(self, ticket: Ticket) -> None:
        """Admit a request, or put it at the end of the line; call `check_room` before."""
        if self._num_running < self._max_running:
            self._admit(ticket)
            return
        self._line.append(ticket)
        ticket.on_moved(len(self._line))

    def leave(self, ticket: Ticket) -> None:
        """Give a place back, inside or in the line. The second call does nothing."""
        if ticket.is_closed:
            return
        ticket.is_closed = True
        if ticket.is_admitted:
            self._num_running -= 1
        else:
            index = self._line.index(ticket)
            del self._line[index]
            self._tell_positions(index)
        if self._line and self._num_running < self._max_running:
            self._admit(self._line.pop(0))
            self._tell_positions(0)

    def _admit(self, ticket: Ticket) -> None:
        self._num_running += 1
        ticket.is_admitted = True
        ticket.on_admitted()

    def _tell_positions(self, start: int) -> None:
        for index, ticket in enumerate(self._line[start:], start + 1):
            ticket.on_moved(index)
