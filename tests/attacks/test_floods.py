"""Floods of calls that come to nothing against a real server: the flooder goes, the others stay."""

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attacker
import grpc
import pytest
from attacker import CHECK, EMPTY_MESSAGE, START, Connection, data, join
from llavachat.v1 import chat_pb2 as pb
from server_process import ServerProcess, run_server

FLOODER = "127.0.0.2"
BLOCK_SECONDS = 10.0
"""The attacker tries again for two of them, and a connection takes one."""
FLOOD_SECONDS = 2.0
ANSWER_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""On a busy machine gRPC's line of dead calls is long, and counts as the flood's end."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """One that keeps flooders out for a short time."""
    with run_server(tmp_path, "--flood-block-seconds", str(BLOCK_SECONDS)) as running:
        yield running
        assert 0 == running.stop()


class Neighbour:
    """Somebody with a connection from an address of this machine, who checks the health."""

    def __init__(self, address: str, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
        monkeypatch.setattr(attacker, "SOURCE", source)
        self._connection = Connection(address)
        monkeypatch.setattr(attacker, "SOURCE", "")

    def ask(self) -> bool:
        """Whether the server answers."""
        opened = self._connection.request(CHECK)
        body = data(opened.stream_id, EMPTY_MESSAGE, ends=True)
        found = self._connection.socket
        self._connection.send(join([opened, body]))
        # SERVING, as the only field of a message of two bytes.
        received, end = b"", time.monotonic() + ANSWER_SECONDS
        while b"\x00\x00\x00\x00\x02\x08\x01" not in received:
            readable, _, _ = select.select((found,), (), (), max(0.0, end - time.monotonic()))
            piece = found.recv(1 << 16) if readable else b""
            if not piece:
                return False
            received += piece
        return True


def can_connect(address: str, source: str) -> bool:
    """Whether a newcomer from there gets in."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1.0, (source, 0)).close()
    except TimeoutError:
        return False
    return True


def test_a_flooding_address_is_kept_out_and_nobody_else(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All calls of the neighbour are answered; who shares the address keeps a connection."""
    stub = server.stub()
    stub.GetServerInfo(pb.GetServerInfoRequest())
    beside = Neighbour(server.address, monkeypatch, FLOODER)
    command = [sys.executable, attacker.__file__, "oversize_messages", server.address]
    failures = []
    with subprocess.Popen([*command, str(FLOOD_SECONDS), FLOODER], stdout=subprocess.PIPE) as flood:
        while flood.poll() is None:
            try:
                stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=ANSWER_SECONDS)
            except grpc.RpcError as error:
                failures.append(error)
    assert not can_connect(server.address, FLOODER)
    assert can_connect(server.address, "127.0.0.3")
    assert beside.ask()
    assert [] == failures
    deadline = time.monotonic() + BLOCK_SECONDS + PATIENCE_SECONDS
    while not can_connect(server.address, FLOODER):
        assert time.monotonic() < deadline
    assert Neighbour(server.address, monkeypatch, FLOODER).ask()
    lines = server.log.read_text().splitlines()
    (told,) = [line for line in lines if "an address floods" in line]
    assert FLOODER in told


def test_a_flooding_connection_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no address is ever kept out, too."""
    with run_server(tmp_path, "--flood-block-seconds", "0") as server:
        beside = Neighbour(server.address, monkeypatch, FLOODER)
        monkeypatch.setattr(attacker, "SOURCE", FLOODER)
        flooder = Connection(server.address)
        is_open, end = True, time.monotonic() + ANSWER_SECONDS
        while is_open and time.monotonic() < end:
            opened = flooder.request(START)
            body = data(opened.stream_id, b"\x00\x00\x00\x00\x02\xff\xff", ends=True)
            try:
                flooder.send(join([opened, body]))
            except OSError:
                is_open = False
        assert not is_open
        assert beside.ask()
        assert can_connect(server.address, FLOODER)
