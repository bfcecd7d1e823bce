"""Who sends calls that come to nothing is counted, and sent away when there are too many."""

import asyncio
from ipaddress import ip_address

import pytest
from llavachat_server.network import read_networks
from llavachat_server.observation import FloodAction
from llavachat_server.rpc.floods import FloodLimits, Floods, read_peer
from llavachat_server.rpc.sockets import MAX_SHUT_OUT, Address

FLOODER = "ipv4:192.0.2.1:40000"


class Recorder:
    """Sockets that only note what is done to them, and time that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.closed: list[tuple[Address, int]] = []
        self.shut_out_now: list[Address] = []
        self.done: list[FloodAction] = []

    def close(self, peers: set[tuple[Address, int]]) -> int:
        """See `Sockets.close`."""
        self.closed += sorted(peers, key=str)
        return len(peers)

    def shut_out(self, hosts: list[Address]) -> bool:
        """See `Sockets.shut_out`."""
        self.shut_out_now = list(hosts)
        return True

    def floods(self, exempt: str = "", block_seconds: float = 10.0) -> Floods:
        """Ten a second of a connection, thirty at once; twice as many of an address."""
        limits = FloodLimits(10, block_seconds, read_networks(exempt))
        return Floods(limits, lambda action, _: self.done.append(action), lambda: self.seconds)

    async def run(self, floods: Floods) -> None:
        """Let everything be done that is to be done."""
        task = asyncio.create_task(floods.act(self))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})


async def flood(floods: Floods, number: int, *peers: str) -> None:
    """So many calls of each."""
    for _ in range(number):
        for peer in peers:
            floods.note(peer)


async def test_a_connection_that_floods_is_closed_and_its_address_may_stay() -> None:
    """Beyond what may come at once the connection goes; the address has twice as much."""
    recorder = Recorder()
    floods = recorder.floods()
    await flood(floods, 30, FLOODER)
    await recorder.run(floods)
    assert [] == recorder.closed
    await flood(floods, 1, FLOODER)
    await recorder.run(floods)
    assert [(ip_address("192.0.2.1"), 40000)] == recorder.closed
    assert [] == recorder.shut_out_now
    assert [FloodAction.CLOSED] == recorder.done


async def test_an_address_that_floods_by_many_connections_is_blocked_for_a_while() -> None:
    """New connections do not help it; when the time is over it may come again."""
    recorder = Recorder()
    floods = recorder.floods()
    await flood(floods, 1, *(f"ipv4:192.0.2.1:{port}" for port in range(1000, 1061)))
    await flood(floods, 1, "ipv4:192.0.2.2:50000")
    await recorder.run(floods)
    assert [ip_address("192.0.2.1")] == recorder.shut_out_now
    assert [(ip_address("192.0.2.1"), 1060)] == recorder.closed
    recorder.seconds = 10.0
    await recorder.run(floods)
    assert FloodAction.BLOCKED in recorder.done
    assert [] == recorder.shut_out_now


async def test_an_ipv6_network_of_64_bits_counts_as_one(caplog: pytest.LogCaptureFixture) -> None:
    """A call from each of its addresses is a flood; the next network has its own count."""
    recorder = Recorder()
    floods = recorder.floods()
    await flood(floods, 1, *(f"ipv6:%5B2001:db8:1:2::{suffix:x}%5D:4000" for suffix in range(61)))
    await flood(floods, 60, "ipv6:%5B2001:db8:1:3::1%5D:4000")
    await recorder.run(floods)
    assert [ip_address("2001:db8:1:2::")] == recorder.shut_out_now
    (told,) = caplog.records
    assert "2001:db8:1:2::/64" == told.fields["address"]  # type: ignore[attr-defined]


async def test_a_network_that_floods_takes_one_place_of_those_kept_out() -> None:
    """With as many flooding addresses as can be kept out it would let another flooder in."""
    recorder = Recorder()
    floods = recorder.floods()
    await flood(floods, 61, FLOODER)
    for suffix in range(MAX_SHUT_OUT):
        await flood(floods, 61, f"ipv6:%5B2001:db8:1:2::{suffix:x}%5D:4000")
    await recorder.run(floods)
    assert [ip_address("192.0.2.1"), ip_address("2001:db8:1:2::")] == recorder.shut_out_now


async def test_ipv4_inside_ipv6_is_counted_by_its_whole_address() -> None:
    """All of IPv4 is in one such network."""
    recorder = Recorder()
    floods = recorder.floods()
    await flood(floods, 1, *(f"ipv6:[::ffff:192.0.2.{number}]:4000" for number in range(61)))
    await recorder.run(floods)
    assert [] == recorder.shut_out_now


async def test_where_addresses_can_not_be_kept_out_it_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sandbox that forbids it: their connections are closed all the same."""
    recorder = Recorder()
    monkeypatch.setattr(recorder, "shut_out", lambda _: False)
    floods = recorder.floods()
    for number in (1, 2):
        ports = range(1000, 1061)
        await flood(floods, 1, *(f"ipv4:192.0.2.{number}:{port}" for port in ports))
        await recorder.run(floods)
    assert [(ip_address("192.0.2.1"), 1060), (ip_address("192.0.2.2"), 1060)] == recorder.closed
    told = [each for each in caplog.messages if "can not be kept from connecting" in each]
    assert 1 == len(told)


async def test_what_comes_at_a_rate_that_may_be_is_never_stopped() -> None:
    """Ten a second, for ten minutes."""
    recorder = Recorder()
    floods = recorder.floods()
    for _ in range(6000):
        recorder.seconds += 0.1
        floods.note(FLOODER)
    await recorder.run(floods)
    assert [] == recorder.closed


async def test_exempt_addresses_and_unix_sockets_are_left_alone() -> None:
    """A proxy stands for many callers; a unix socket has no address."""
    recorder = Recorder()
    floods = recorder.floods(exempt="192.0.2.0/24, ::1")
    await flood(floods, 500, FLOODER, "ipv6:%5B::1%5D:9", "unix:", "unix:/run/llavachat")
    await recorder.run(floods)
    assert [] == recorder.closed == recorder.shut_out_now


async def test_without_blocking_connections_alone_are_closed() -> None:
    """``flood_block_seconds = 0``."""
    recorder = Recorder()
    floods = recorder.floods(block_seconds=0)
    await flood(floods, 500, FLOODER)
    await recorder.run(floods)
    assert [FloodAction.CLOSED] == recorder.done


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.1:80", (ip_address("192.0.2.1"), 80)),
        ("ipv6:%5B2001:db8::1%5D:80", (ip_address("2001:db8::1"), 80)),
        ("ipv6:[::ffff:192.0.2.1]:80", (ip_address("192.0.2.1"), 80)),
        ("ipv6:[fe80::1%25eth0]:80", (ip_address("fe80::1"), 80)),
        ("unix:", None),
        ("", None),
        ("ipv4:nonsense:80", None),
    ],
)
def test_peers_are_read_as_grpc_names_them(peer: str, expected: object) -> None:
    """Address and port, or nothing."""
    assert expected == read_peer(peer)


def test_networks_that_are_none_are_refused_with_a_sentence() -> None:
    """What an operator may write."""
    with pytest.raises(ValueError, match="allowed: IP addresses and networks"):
        read_networks("10.0.0.1/8")
