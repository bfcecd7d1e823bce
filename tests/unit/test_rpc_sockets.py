"""Connections of this process are found among its files and ended; addresses are kept out."""

import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from llavachat_server.rpc.sockets import Sockets

BRIEFLY_SECONDS = 0.5

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's socket filters")


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A listening socket."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as made:
        yield made


def connect(listener: socket.socket, source: str = "") -> socket.socket:
    """A connection to it."""
    address = listener.getsockname()[:2]
    return socket.create_connection(address, BRIEFLY_SECONDS, (source, 0) if source else None)


def test_the_named_connection_is_closed_and_no_other(listener: socket.socket) -> None:
    """The one sees the end, the other can still be written to."""
    with connect(listener) as first, listener.accept()[0], connect(listener) as second:
        accepted, _ = listener.accept()
        with accepted:
            host, port = first.getsockname()[:2]
            sockets = Sockets(listener.getsockname()[1])
            assert 1 == sockets.close({(ip_address(host), port)})
            assert b"" == first.recv(1)
            accepted.sendall(b"a")
            assert b"a" == second.recv(1)


@linux
def test_an_address_is_kept_out_and_let_in_again(listener: socket.socket) -> None:
    """While it is, nothing answers; the connection that it has goes on."""
    host = listener.getsockname()[0]
    sockets = Sockets(listener.getsockname()[1])
    with connect(listener) as before, listener.accept()[0] as accepted:
        assert sockets.shut_out([ip_address("192.0.2.9"), ip_address("2001:db8::9")])
        connect(listener).close()
        assert sockets.shut_out([ip_address("192.0.2.9"), ip_address(host)])
        with pytest.raises(TimeoutError):
            connect(listener)
        accepted.sendall(b"a")
        assert b"a" == before.recv(1)
        assert sockets.shut_out([])
        connect(listener).close()


@linux
def test_its_neighbours_address_is_not() -> None:
    """With as many addresses kept out as a filter takes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sockets = Sockets(listener.getsockname()[1])
        crowd = [ip_address(f"10.0.0.{number}") for number in range(63)]
        assert sockets.shut_out([*crowd, ip_address("127.0.0.2")])
        with pytest.raises(TimeoutError):
            connect(listener, "127.0.0.2")
        connect(listener, "127.0.0.3").close()
