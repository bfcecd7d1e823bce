"""The places that calls take in the server: nobody may hold so many that others find none.

Contract: a tenant holds a share at most; and of the calls whose requests have not come, which
cost their sender nothing, the oldest of whoever holds the most makes room. Belongs to one event
loop; it must not know what is asked.
"""

from collections import Counter

from grpc import StatusCode

from llavachat_server.rpc.call import Call
from llavachat_server.rpc.limits import MAX_TENANT_CALLS, MAX_WAITING_CALLS
from llavachat_server.rpc.status import Refusal, over_limit

_RETRY_SECONDS = 1.0

CROWDED_OUT = over_limit(
    StatusCode.RESOURCE_EXHAUSTED,
    "server/waiting_calls",
    "too many calls have not sent their requests yet",
    _RETRY_SECONDS,
    "crowded_out",
)


class Places:
    """Who holds how many.

    Args:
        max_waiting: calls of everybody whose requests have not come.
        max_of_tenant: calls of one tenant.
    """

    def __init__(
        self, max_waiting: int = MAX_WAITING_CALLS, max_of_tenant: int = MAX_TENANT_CALLS
    ) -> None:
        self._max_waiting = max_waiting
        self._max_of_tenant = max_of_tenant
        self._calls: set[Call] = set()
        self._num_of_tenant: Counter[str] = Counter()
        # In the order in which they came.
        self._waiting: dict[Call, str] = {}
        self._num_waiting: Counter[str] = Counter()

    def list_calls(self) -> list[Call]:
        """All that run."""
        return list(self._calls)

    def list_waiting(self) -> list[Call]:
        """Those whose requests have not come."""
        return list(self._waiting)

    def refuse(self, tenant: str) -> Refusal | None:
        """What a tenant's next call is refused with, if it is."""
        if self._num_of_tenant[tenant] < self._max_of_tenant:
            return None
        return over_limit(
            StatusCode.RESOURCE_EXHAUSTED,
            f"tenant:{tenant}/calls",
            f"at most {self._max_of_tenant} calls of one tenant run side by side",
            _RETRY_SECONDS,
            "tenant_calls",
        )

    def enter(self, call: Call) -> None:
        """A call was let in; its request has not come yet."""
        holder = _name_holder(call)
        self._calls.add(call)
        self._num_of_tenant[holder] += 1
        self._waiting[call] = holder
        self._num_waiting[holder] += 1
        if len(self._waiting) > self._max_waiting:
            largest = self._num_waiting.most_common(1)[0][0]
            oldest = next(each for each, name in self._waiting.items() if name == largest)
            self.take_request(oldest)
            oldest.end(CROWDED_OUT)

    def take_request(self, call: Call) -> None:
        """A call's request has come, or is not waited for any more."""
        holder = self._waiting.pop(call, None)
        if holder is not None:
            self._num_waiting[holder] -= 1

    def leave(self, call: Call) -> None:
        """A call has ended."""
        self.take_request(call)
        self._calls.discard(call)
        holder = _name_holder(call)
        self._num_of_tenant[holder] -= 1
        for counter in (self._num_of_tenant, self._num_waiting):
            if counter[holder] <= 0:
                del counter[holder]


def _name_holder(call: Call) -> str:
    """Whom a call counts for. Those without a key, health checks among them, count as one."""
    return "" if call.key is None else call.key.tenant
