"""Addresses: to listen on, whom those can be reached from, and networks of callers.

Pure, but for `explain_refusal`. It must not know what listens there.
"""

import errno
import ipaddress
import re
import socket

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_OTHERS = "another program may use it"
_REFUSALS = {
    errno.EADDRNOTAVAIL: "it is not an address of this machine",
    errno.EAFNOSUPPORT: "this machine does not speak that kind of address",
    errno.EACCES: "this user may not open that port",
    errno.EADDRINUSE: _OTHERS,
}


def check_address(value: str) -> str:
    """An address of gRPC's port, as it is.

    Raises:
        ValueError: says what is allowed.
    """
    if value.startswith("unix:") and len(value) > len("unix:"):
        return value
    return _check_host_port(value, ", or unix:PATH")


def check_http_address(value: str) -> str:
    """An address of a port for HTTP, as it is; "" for none.

    Raises:
        ValueError: says what is allowed.
    """
    return _check_host_port(value, "") if value else value


def split_address(value: str) -> tuple[str, int]:
    """Host and port of an address that was checked; an IPv6 host without its brackets."""
    host, _, port = value.rpartition(":")
    return host.strip("[]"), int(port)


def read_networks(value: str) -> tuple[Network, ...]:
    """Addresses and networks with commas between, as in "192.0.2.7, 10.0.0.0/8".

    Raises:
        ValueError: says what is allowed.
    """
    try:
        return tuple(
            ipaddress.ip_network(each.strip()) for each in value.split(",") if each.strip()
        )
    except ValueError:
        raise ValueError(
            'allowed: IP addresses and networks with commas between, as in "192.0.2.7, 10.0.0.0/8"'
        ) from None


def is_loopback(listen: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def explain_refusal(listen: str) -> str:
    """Why an address to listen on could not be opened, as far as trying again tells. Blocks.

    gRPC does not say why, nor does asyncio always.
    """
    if listen.startswith("unix:"):
        return "its folder is not there, or this user may not write into it"
    host, port = split_address(listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                # As servers do, whom connections of before do not keep from listening.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except socket.gaierror:
        return "no address is known for its name"
    except OSError as error:
        return _REFUSALS.get(error.errno or 0, error.strerror or str(error))
    return _OTHERS


def _is_possible(host: str) -> bool:
    """Whether it may be an address: what is digits and dots alone is no name."""
    if not re.fullmatch(r"[0-9.]+", host):
        return True
    try:
        # As a resolver takes it, which knows 127.1 as well.
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def _check_host_port(value: str, other: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"allowed: HOST:PORT with a port of 0 (any free one) to 65535{other}")
    if not (host.startswith("[") or _is_possible(host)):
        raise ValueError(f"allowed: HOST:PORT with an IP address or a name; {host} is no address")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("allowed: an IPv6 address in brackets, as in [::1]:50051")
    return value
