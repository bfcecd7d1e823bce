"""Word to the service manager, by systemd's notification protocol.

Contract: says what systemd asks to be told, and says nothing where no systemd listens. It never
raises and never waits: a server must not fail because its manager is busy. It must not know what
the server does.

Source: sd_notify(3); the socket is a datagram socket, "@" stands for an abstract name.
"""

import os
import socket
from collections.abc import Mapping

_USEC = 1_000_000


class Notifier:
    """The way to the service manager.

    Args:
        address: ``NOTIFY_SOCKET``; empty when nobody listens.
        watchdog_seconds: how long the manager waits for a ping; None when it does not wait.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Notifier":
        """The manager that started this process; a child of its does not inherit the duty."""
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "")
        seconds = int(usec) / _USEC if is_ours and usec.isdecimal() and int(usec) else None
        return cls(environment.get("NOTIFY_SOCKET", ""), seconds)

    def say_ready(self, status: str) -> None:
        """The server serves."""
        self._send("READY=1", f"STATUS={self._keep(status)}")

    def say_status(self, status: str) -> None:
        """What the server does, in one sentence; the same sentence is sent once."""
        if status != self._status:
            self._send(f"STATUS={self._keep(status)}")

    def say_stopping(self, status: str) -> None:
        """The server began to stop."""
        self._send("STOPPING=1", f"STATUS={self._keep(status)}")

    def ask_time(self, seconds: float) -> None:
        """Starting or stopping takes at least this much longer from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * _USEC)}")

    def ping(self) -> None:
        """The server is alive."""
        self._send("WATCHDOG=1")

    def _keep(self, status: str) -> str:
        self._status = status
        return " ".join(status.split())

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as word:
                word.setblocking(False)
                word.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            # A full queue or a manager that restarts: the next word will come.
            return
