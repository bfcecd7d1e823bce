"""What is said to systemd, over a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from llavachat_server.ops.systemd import Notifier
from processes import PATIENCE_SECONDS


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(PATIENCE_SECONDS)
        yield end


def test_words_are_those_of_the_protocol(manager: socket.socket) -> None:
    """Each word is one datagram in the form of sd_notify(3)."""
    notifier = Notifier(manager.getsockname())
    notifier.say_status("Starting: loading\nthe model")
    notifier.ask_time(1.5)
    notifier.say_ready("Serving")
    notifier.ping()
    notifier.say_stopping("Stopping")
    expected = [
        b"STATUS=Starting: loading the model",
        b"EXTEND_TIMEOUT_USEC=1500000",
        b"READY=1\nSTATUS=Serving",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=Stopping",
    ]
    assert expected == [manager.recv(4096) for _ in expected]


def test_same_status_is_said_once(manager: socket.socket) -> None:
    """A sentence that has not changed is not sent again."""
    notifier = Notifier(manager.getsockname())
    for status in ("Serving", "Serving", "Stopping"):
        notifier.say_status(status)
    assert [b"STATUS=Serving", b"STATUS=Stopping"] == [manager.recv(4096) for _ in range(2)]


def test_abstract_socket_is_reached() -> None:
    """A leading @ is an abstract name."""
    name = f"llavachat-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + name)
        end.settimeout(PATIENCE_SECONDS)
        Notifier("@" + name).ping()
        assert end.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify"])
def test_nobody_listening_is_no_trouble(address: str) -> None:
    """Without a manager, or with one that went away, nothing is raised."""
    Notifier(address).say_ready("Serving")


@pytest.mark.parametrize(
    ("usec", "process", "expected"),
    [
        ("8000000", None, 8.0),
        ("8000000", "self", 8.0),
        ("8000000", "1", None),
        ("", None, None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_watchdog_is_read_from_the_environment(
    usec: str, process: str | None, expected: float | None
) -> None:
    """Only a number that is meant for this process counts."""
    environment = {"WATCHDOG_USEC": usec}
    if process is not None:
        environment["WATCHDOG_PID"] = str(os.getpid()) if process == "self" else process
    assert expected == Notifier.from_environment(environment).watchdog_seconds
