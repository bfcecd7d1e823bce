"""The process's own sockets of one port: ends connections, and lets addresses connect no more.

gRPC in Python can neither close a connection nor turn an address away. Its sockets are open files
of this process like all others, though: a copy of one is shut down, which gRPC sees as the
caller's leaving, with TLS as without; and the kernel drops what comes from an address before the
port sees it, by a classic BPF filter on the listening socket, for which no privilege is needed.

Contract: what can not be done here is not an error, and is told by what is returned. It must not
know why somebody is sent away.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address

MAX_SHUT_OUT = 64
"""Addresses in a filter: so that each jump in it fits into a byte."""

_OPEN_FILES = Path("/proc/self/fd") if sys.platform == "linux" else Path("/dev/fd")

# Source: Linux's asm-generic/socket.h and linux/filter.h.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_NETWORK_HEADER = 0xFFF00000
_LOAD_WORD, _LOAD_BYTE, _AND = 0x20, 0x30, 0x54
_JUMP, _JUMP_EQUAL, _RETURN = 0x05, 0x15, 0x06
_DROP, _PASS = 0, 0xFFFFFFFF
# Source: RFC 791 and RFC 8200, where the sources stand in their headers.
_IPV4_SOURCE, _IPV6_SOURCE = 12, 8


class Sockets:
    """The sockets of a port of this process.

    Args:
        port: TCP's, bound by somebody in this process.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def close(self, peers: Collection[tuple[Address, int]]) -> int:
        """End connections.

        Args:
            peers: address and port at the other end.

        Returns:
            How many were found.
        """
        num_closed = 0
        for each in self._list():
            try:
                host, port = each.getpeername()[:2]
                if (read_address(host), port) in peers:
                    each.shutdown(socket.SHUT_RDWR)
                    num_closed += 1
            except OSError:
                continue  # it listens, or has gone meanwhile
        return num_closed

    def shut_out(self, hosts: Collection[Address]) -> bool:
        """Drop what comes to the port from these addresses, and from no others.

        Connections that are open go on. An IPv6 address stands for its network of 64 bits, which
        is what one subscriber has.

        Args:
            hosts: the first `MAX_SHUT_OUT` of them count.

        Returns:
            Whether it was done; it can be on Linux.
        """
        if sys.platform != "linux":
            return False
        is_done = False
        for each in self._list():
            with suppress(OSError):
                if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    _set_filter(each, list(hosts)[:MAX_SHUT_OUT])
                    is_done = True
        return is_done

    def _list(self) -> Iterator[socket.socket]:
        """Copies of the port's sockets, each closed when the next is asked for."""
        try:
            numbers = [int(each.name) for each in _OPEN_FILES.iterdir()]
        except OSError:
            return
        for number in numbers:
            with suppress(OSError), _copy(number) as each:
                # Of the copy: the number may stand for another file by now.
                if each.getsockname()[1:2] == (self._port,):
                    yield each


def read_address(host: str) -> Address:
    """An IP address as a socket or gRPC tells it; IPv4 inside IPv6 is IPv4.

    Raises:
        ValueError: it is none.
    """
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@contextmanager
def _copy(number: int) -> Iterator[socket.socket]:
    copy = os.dup(number)
    try:
        with socket.socket(fileno=copy) as each:
            copy = -1
            if each.family not in (socket.AF_INET, socket.AF_INET6):
                raise OSError("no socket of a network")
            yield each
    finally:
        if copy >= 0:
            os.close(copy)


def _set_filter(listener: socket.socket, hosts: list[Address]) -> None:
    if not hosts:
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        return
    program = _write_filter(hosts)
    code = ctypes.create_string_buffer(program, len(program))
    length = len(program) // 8
    # struct sock_fprog: a length, and a pointer after its padding.
    head = struct.pack("@HP", length, ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)


def _write_filter(hosts: list[Address]) -> bytes:
    """A program that drops packets from these addresses."""
    fours = [host for host in hosts if isinstance(host, IPv4Address)]
    sixes = {int(host) >> 64 for host in hosts if isinstance(host, IPv6Address)}
    four = [(_LOAD_WORD, 0, 0, _NETWORK_HEADER + _IPV4_SOURCE)]
    for host in fours:
        four += [(_JUMP_EQUAL, 0, 1, int(host)), (_RETURN, 0, 0, _DROP)]
    four.append((_RETURN, 0, 0, _PASS))
    six = []
    for network in sixes:
        six += [
            (_LOAD_WORD, 0, 0, _NETWORK_HEADER + _IPV6_SOURCE),
            (_JUMP_EQUAL, 0, 3, network >> 32),
            (_LOAD_WORD, 0, 0, _NETWORK_HEADER + _IPV6_SOURCE + 4),
            (_JUMP_EQUAL, 0, 1, network & 0xFFFFFFFF),
            (_RETURN, 0, 0, _DROP),
        ]
    six.append((_RETURN, 0, 0, _PASS))
    start = [
        (_LOAD_BYTE, 0, 0, _NETWORK_HEADER),
        (_AND, 0, 0, 0xF0),
        (_JUMP_EQUAL, 1, 0, 0x40),
        (_JUMP, 0, 0, len(four)),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in (*start, *four, *six))
