"""Addresses: to listen on, whom those can be reached from, and networks of callers.

Pure. It must not know what listens there.
"""

import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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


def _check_host_port(value: str, other: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"allowed: HOST:PORT with a port of 0 (any free one) to 65535{other}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("allowed: an IPv6 address in brackets, as in [::1]:50051")
    return value
