"""The time of one call, which its parts count down together, and TCP connections within it.

Knows no gRPC. How long a name's look-up takes is the operating system's alone to say.
"""

import socket
import time


class Deadline:
    """A point in time.

    Args:
        seconds: from now; `math.inf` for none.
    """

    def __init__(self, seconds: float) -> None:
        self._time = time.monotonic() + seconds

    @property
    def left_seconds(self) -> float:
        """What is left, over 0: what begins too late ends at once, by its own timeout."""
        return max(0.001, self._time - time.monotonic())

    @property
    def is_over(self) -> bool:
        """True once nothing is left."""
        return time.monotonic() >= self._time


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Open a TCP connection; `socket.create_connection` allows its time to each of a name's
    addresses.

    Args:
        host: a name or an address.
        port: the port.
        seconds: for all of it. What is left of them is the timeout of the socket.

    Raises:
        OSError: nothing answers there; `TimeoutError` where nothing came in time.
    """
    deadline = Deadline(seconds)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError(f"{host} has no address")
    for index, (family, kind, protocol, _, address) in enumerate(found):
        plain = socket.socket(family, kind, protocol)
        try:
            # A silent address leaves the others their share.
            plain.settimeout(deadline.left_seconds / (len(found) - index))
            plain.connect(address)
        except OSError as error:
            plain.close()
            failure = error
            continue
        plain.settimeout(deadline.left_seconds)
        return plain
    raise failure
