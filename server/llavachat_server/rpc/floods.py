"""Floods of calls that come to nothing: who sends too many is sent away, before others wait.

gRPC refuses a message that is too long, or a call that is reset, by itself; still each such call
stands in its line until Python has looked at it, and when the line is full gRPC drops anybody's
calls at random. So it is counted where they are looked at, by the caller's connection and by the
caller's address. A connection that sends more than its share is closed; an address that sends
more than its share over all its connections, new ones too, can not connect for a while, and its
connections that go on are closed. An IPv6 address stands for its network of 64 bits: that is what
one subscriber has, who could send each call from another one.

Contract: only calls without a readable request or without a known key are counted; who asks
anything that can be answered is never touched. Others at the same address (a NAT) keep their
connections, and can open no new ones meanwhile. Addresses that stand for many callers, as a
proxy's does, are to be exempted. Belongs to one event loop; it must not know what is asked.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol
from urllib.parse import unquote

from llavachat_server.network import Network
from llavachat_server.observation import FloodAction
from llavachat_server.rpc.sockets import MAX_SHUT_OUT, Address, read_address

log = logging.getLogger("llavachat.rpc")

Peer = tuple[Address, int]

_BURST_SECONDS = 3.0
"""What may come at once: a share of so long."""
_ADDRESS_SHARES = 2
"""What an address may send, in shares of a connection."""
_MAX_KEPT = 8192
"""Connections, and addresses, whose counts are kept."""
_SUFFIX_BITS = 64
"""Of an IPv6 address, which its subscriber chooses. Source: RFC 4291, section 2.5.1; the filter
of `sockets` keeps the same network out."""
_ACT_SECONDS = 0.05
"""Between two looks through the process's sockets: one takes up to 20 ms with 4,096."""


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """What is a flood.

    Args:
        calls_per_second: calls of one connection that come to nothing.
        block_seconds: for how long an address can not connect; 0: it always can.
        exempt: addresses that stand for many callers.
    """

    calls_per_second: float
    block_seconds: float
    exempt: tuple[Network, ...] = ()


class PortSockets(Protocol):
    """See `sockets.Sockets`."""

    def close(self, peers: set[Peer]) -> int:
        """End connections; how many."""

    def shut_out(self, hosts: list[Address]) -> bool:
        """Let these addresses, and no others, connect no more; whether that can be."""


class Floods:
    """See the module.

    Args:
        limits: what is a flood.
        observe: is told of each connection that is closed and each address that is blocked.
        clock: seconds, which only go up.
    """

    def __init__(
        self,
        limits: FloodLimits,
        observe: Callable[[FloodAction, int], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._observe = observe
        self._clock = clock
        share = limits.calls_per_second
        self._of_connection = _Counts(share)
        self._of_address = _Counts(share * _ADDRESS_SHARES)
        self._condemned: set[Peer] = set()
        self._blocked_until: dict[Address, float] = {}
        self._shut_out: list[Address] = []
        self._is_filter_missed = False
        self._wake = asyncio.Event()

    def note(self, peer: str) -> None:
        """A call came to nothing.

        Args:
            peer: as gRPC names it, "ipv4:192.0.2.1:40000".
        """
        found = read_peer(peer)
        if found is None or any(found[0] in network for network in self._limits.exempt):
            return
        host, now = _name_subscriber(found[0]), self._clock()
        is_connection_over = self._of_connection.add(found, now)
        is_address_over = self._of_address.add(host, now)
        if is_address_over:
            self._block(host, now)
        if is_connection_over or is_address_over:
            self._condemned.add(found)
            self._wake.set()

    def _block(self, host: Address, now: float) -> None:
        blocked = self._blocked_until
        if self._limits.block_seconds <= 0:
            return
        if host in blocked:
            # Also by calls that stood in gRPC's line: no second flood begins when they are seen.
            blocked[host] = now + self._limits.block_seconds
            return
        if len(blocked) >= MAX_SHUT_OUT:
            del blocked[min(blocked, key=blocked.__getitem__)]
        blocked[host] = now + self._limits.block_seconds
        self._observe(FloodAction.BLOCKED, 1)
        log.warning(
            "an address floods the server and can not connect for a while",
            extra={"fields": {"address": _show(host), "seconds": self._limits.block_seconds}},
        )

    async def act(self, sockets: PortSockets) -> None:
        """Send away whom `note` has found, until this is cancelled.

        Args:
            sockets: of the port that the callers have come to.
        """
        while True:
            now = self._clock()
            for host in [host for host, until in self._blocked_until.items() if until <= now]:
                del self._blocked_until[host]
            # First: who is closed connects again at once.
            if self._shut_out != [*self._blocked_until]:
                self._shut_out = [*self._blocked_until]
                if not sockets.shut_out(self._shut_out) and not self._is_filter_missed:
                    self._is_filter_missed = True
                    log.warning("addresses can not be kept from connecting here")
            if self._condemned:
                condemned, self._condemned = self._condemned, set()
                if num_closed := sockets.close(condemned):
                    self._observe(FloodAction.CLOSED, num_closed)
                    log.debug("connections closed", extra={"fields": {"number": num_closed}})
            await asyncio.sleep(_ACT_SECONDS)
            self._wake.clear()
            if self._condemned:
                continue
            first = min(self._blocked_until.values(), default=None)
            timeout = None if first is None else max(0.0, first - self._clock())
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                continue


class _Counts:
    """How much each has sent of late, beyond what it may: a bucket that leaks steadily."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._max = per_second * _BURST_SECONDS
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def add(self, who: Hashable, now: float) -> bool:
        """One more; whether that is too many."""
        level, at = self._levels.pop(who, (0.0, now))
        level = max(0.0, level - (now - at) * self._per_second)
        is_over = level + 1 > self._max
        # A flood that goes on is over with the flood, and not only long after it.
        self._levels[who] = (level if is_over else level + 1, now)
        if len(self._levels) > _MAX_KEPT:
            self._levels.popitem(last=False)
        return is_over


def _name_subscriber(address: Address) -> Address:
    """Whom an address is counted for: itself, or the first address of its IPv6 network."""
    is_six = isinstance(address, IPv6Address)
    return IPv6Address(int(address) >> _SUFFIX_BITS << _SUFFIX_BITS) if is_six else address


def _show(subscriber: Address) -> str:
    return f"{subscriber}/64" if isinstance(subscriber, IPv6Address) else str(subscriber)


def read_peer(peer: str) -> Peer | None:
    """Address and port of a caller as gRPC names it; None where it has none, as on unix sockets."""
    kind, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    try:
        return read_address(host.strip("[]")), int(port)
    except ValueError:
        return None
