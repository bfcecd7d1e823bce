"""A few places that tenants take in turn, and a line of bounded length before them.

Contract: no tenant holds all places, and one that asks for many waits behind itself, not before
its neighbours. It must not know what for. Used from one event loop.
"""

import asyncio
from collections import Counter, deque


class LineFull(Exception):
    """Too many wait already."""


class Turnstile:
    """Lets in.

    Args:
        num_places: how many may be inside.
        places_per_tenant: how many of them may be one tenant's.
        max_waiting: how many may wait.
        max_waiting_per_tenant: how many of them may be one tenant's.
    """

    def __init__(
        self,
        num_places: int,
        *,
        places_per_tenant: int,
        max_waiting: int,
        max_waiting_per_tenant: int,
    ) -> None:
        self._free = num_places
        self._places_per_tenant = places_per_tenant
        self._max_waiting = max_waiting
        self._max_waiting_per_tenant = max_waiting_per_tenant
        self._inside: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        # When each tenant was last let in; kept while it is away, as in the engine's admission.
        self._last_entry: dict[str, int] = {}
        self._num_entered = 0

    async def enter(self, tenant: str) -> None:
        """Wait for a place. Whoever was let in calls `leave` once.

        Raises:
            LineFull: too many wait.
        """
        if self._may_enter(tenant):
            self._let_in(tenant)
            return
        line = self._waiting.get(tenant, ())
        num_waiting = sum(map(len, self._waiting.values()))
        if num_waiting >= self._max_waiting or len(line) >= self._max_waiting_per_tenant:
            raise LineFull
        admission = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(admission)
        try:
            await admission
        except asyncio.CancelledError:
            if admission.done() and not admission.cancelled():
                self.leave(tenant)
            else:
                self._remove(tenant, admission)
            raise

    def leave(self, tenant: str) -> None:
        """Give a place back; the next tenant in turn gets it."""
        self._free += 1
        self._inside[tenant] -= 1
        if not self._inside[tenant]:
            del self._inside[tenant]
        admission = self._next()
        if admission is not None:
            admission.set_result(None)

    def _next(self) -> "asyncio.Future[None] | None":
        """Let in who is next, if anybody may."""
        for tenant in sorted(self._waiting, key=lambda each: self._last_entry.get(each, 0)):
            while self._may_enter(tenant) and tenant in self._waiting:
                admission = self._waiting[tenant][0]
                self._remove(tenant, admission)
                if admission.cancelled():  # and not yet told that it is
                    continue
                self._let_in(tenant)
                return admission
        return None

    def _may_enter(self, tenant: str) -> bool:
        return self._free > 0 and self._inside[tenant] < self._places_per_tenant

    def _let_in(self, tenant: str) -> None:
        self._free -= 1
        self._inside[tenant] += 1
        self._num_entered += 1
        self._last_entry[tenant] = self._num_entered

    def _remove(self, tenant: str, admission: "asyncio.Future[None]") -> None:
        line = self._waiting.get(tenant)
        if line is None or admission not in line:
            return
        line.remove(admission)
        if not line:
            del self._waiting[tenant]
