"""Limits of the transport, each shown at work by raw frames; over real sockets."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from app_in_process import run_app, until
from attacker import CHAT, CHECK, EMPTY_MESSAGE, PREFACE, START, data
from hpack import Decoder, Encoder
from hyperframe.frame import (
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from llavachat import AsyncClient, LimitReached
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.rpc import limits
from scripted_engine import Hold, ScriptedEngine

ENHANCE_YOUR_CALM = 11
"""Source: RFC 9113, section 7."""


class Wire:
    """A connection of raw frames. It answers nothing by itself: no ping, no settings."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = Encoder()
        self._decoder = Decoder()

    def send(self, *frames: Frame) -> None:
        """Send frames."""
        for frame in frames:
            self._writer.write(frame.serialize())

    def write(self, raw: bytes) -> None:
        """Send bytes."""
        self._writer.write(raw)

    def accept_settings(self) -> None:
        """Say that the server's settings hold."""
        settings = SettingsFrame(0)
        settings.flags.add("ACK")
        self.send(settings)

    def request(self, stream_id: int, path: str, *headers: tuple[str, str]) -> HeadersFrame:
        """The frame that opens a stream."""
        frame = HeadersFrame(stream_id)
        pairs = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a"))
        frame.data = self._encoder.encode(
            [*pairs, ("content-type", "application/grpc"), ("te", "trailers"), *headers]
        )
        frame.flags.add("END_HEADERS")
        return frame

    async def read(self, kind: type[Frame]) -> Any:
        """The next frame of a kind; None when the server closes before one comes."""
        async for frame in self.read_all():
            if isinstance(frame, kind):
                return frame
        return None

    async def read_all(self) -> AsyncIterator[Frame]:
        """Every frame until the server closes."""
        try:
            while True:
                header = await self._reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(header))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                if isinstance(frame, HeadersFrame):
                    frame.headers = self._decoder.decode(frame.data)  # type: ignore[attr-defined]
                yield frame
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def close(self) -> None:
        """Leave."""
        self._writer.close()


@asynccontextmanager
async def connect(address: str, *, polite: bool = True) -> AsyncIterator[Wire]:
    """A connection, with its greeting said."""
    host, _, port = address.rpartition(":")
    wire = Wire(*await asyncio.open_connection(host, int(port)))
    if polite:
        wire.write(PREFACE + SettingsFrame(0).serialize())
    try:
        async with asyncio.timeout(20):
            yield wire
    finally:
        wire.close()


def shorten(monkeypatch: pytest.MonkeyPatch, **changed: int) -> None:
    """Other values for arguments, by the last part of their names, so that tests need not wait."""
    arguments = tuple(
        replace(each, value=changed.pop(each.name.rpartition(".")[2], each.value))
        for each in limits.ARGUMENTS
    )
    assert not changed
    monkeypatch.setattr(limits, "ARGUMENTS", arguments)


async def test_a_frozen_client_is_noticed_and_its_turn_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It holds its connection open, answers no ping, and would never be missed otherwise."""
    shorten(monkeypatch, keepalive_time_ms=500, keepalive_timeout_ms=500, ping_timeout_ms=500)
    hold = Hold("So far")
    engine = ScriptedEngine("warm", hold)
    async with (
        run_app(engine, "--abandon-grace-seconds", "0") as app,
        connect(app.address) as wire,
    ):
        wire.accept_settings()
        body = pb.StartChatRequest(prompt="What?").SerializeToString()
        message = struct.pack(">BI", 0, len(body)) + body
        wire.send(wire.request(1, START), data(1, message, ends=True))
        await hold.said.wait()

        async def count_cancelled() -> int:
            return len(engine.cancelled)

        assert 1 == await until(count_cancelled, lambda number: number == 1)


async def test_who_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a greeting lasts for as long as a handshake may take."""
    shorten(monkeypatch, server_handshake_timeout_ms=300, settings_timeout=300)
    async with run_app(ScriptedEngine()) as app, connect(app.address, polite=False) as wire:
        assert await wire.read(RstStreamFrame) is None


async def test_too_many_pings_end_the_connection() -> None:
    """After three strikes, with a reason; the server does not answer them for ever."""
    async with run_app(ScriptedEngine()) as app, connect(app.address) as wire:
        assert await wire.read(SettingsFrame)
        # One at a time: what is sent to a connection that has ended would wipe out its last words.
        wire.send(PingFrame(0, b"12345678"))
        async for frame in wire.read_all():
            if isinstance(frame, GoAwayFrame):
                break
            if isinstance(frame, PingFrame):
                wire.send(PingFrame(0, b"12345678"))
        assert isinstance(frame, GoAwayFrame)
        assert ENHANCE_YOUR_CALM == frame.error_code


async def test_the_limits_are_announced() -> None:
    """Calls of one connection, and the size of metadata, as the table says."""
    table = {argument.name: argument.value for argument in limits.ARGUMENTS}
    async with run_app(ScriptedEngine()) as app, connect(app.address) as wire:
        told = (await wire.read(SettingsFrame)).settings
        streams = SettingsFrame.MAX_CONCURRENT_STREAMS
        assert table["grpc.max_concurrent_streams"] == told[streams]
        assert table["grpc.absolute_max_metadata_size"] == told[SettingsFrame.MAX_HEADER_LIST_SIZE]


async def test_who_never_speaks_of_the_table_of_headers_is_answered() -> None:
    """As some proxies do not, whatever size a server wants of it; on one connection, call after
    call, each naming what the one before it left in the table."""
    async with run_app(ScriptedEngine()) as app, connect(app.address) as wire:
        assert await wire.read(SettingsFrame)
        wire.accept_settings()
        for stream_id in (1, 3):
            wire.send(wire.request(stream_id, CHAT), data(stream_id, EMPTY_MESSAGE, ends=True))
            assert "0" == (await read_end(wire))["grpc-status"]


async def test_a_message_that_says_it_is_endless_is_refused_at_once() -> None:
    """By its prefix alone: nobody waits for the 4 GiB, nor makes room for them."""
    async with run_app(ScriptedEngine()) as app, connect(app.address) as wire:
        wire.send(wire.request(1, START), data(1, struct.pack(">BI", 0, 2**32 - 1)))
        assert "8" == (await read_end(wire))["grpc-status"]


async def test_a_request_packed_in_a_way_that_nobody_knows_is_refused() -> None:
    """As it is announced; the connection and its next call go on."""
    async with run_app(ScriptedEngine()) as app, connect(app.address) as wire:
        body = struct.pack(">BI", 1, 3) + b"abc"
        wire.send(wire.request(1, CHECK, ("grpc-encoding", "rot13")), data(1, body, ends=True))
        assert "13" == (await read_end(wire))["grpc-status"]
        wire.send(wire.request(3, CHECK), data(3, EMPTY_MESSAGE, ends=True))
        assert "0" == (await read_end(wire))["grpc-status"]


async def read_end(wire: Wire) -> dict[str, str]:
    """The headers of an answer, up to its status."""
    headers: dict[str, str] = {}
    async for frame in wire.read_all():
        if isinstance(frame, HeadersFrame):
            headers.update(frame.headers)  # type: ignore[attr-defined]
            if "grpc-status" in headers:
                break
    return headers


async def test_metadata_over_the_limit_is_refused() -> None:
    """And the connection goes on."""
    async with run_app(ScriptedEngine()) as app:
        async with AsyncClient(app.address, metadata={"x-much": "a" * 20_000}) as client:
            with pytest.raises(LimitReached, match="metadata is too large"):
                await client.server_info()
        async with AsyncClient(app.address) as client:
            assert "cpu" == (await client.server_info()).device


async def test_a_message_over_the_limit_is_a_sentence() -> None:
    """What gRPC refuses by itself is told as plainly as what llavachat refuses."""
    async with run_app(ScriptedEngine()) as app, AsyncClient(app.address) as client:
        with pytest.raises(LimitReached, match=r"^A message of [\d,]+ bytes is over the limit of"):
            await client.start(None, "a" * 60_000_000).read()


async def test_flow_control_holds_back_who_does_not_read() -> None:
    """A reader with a window of nothing gets nothing, and its calls cost others nothing."""
    async with run_app(ScriptedEngine()) as app, connect(app.address, polite=False) as wire:
        wire.write(PREFACE)
        wire.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        for number in range(50):
            stream_id = 2 * number + 1
            path = CHAT if number % 2 else CHECK
            wire.send(wire.request(stream_id, path), data(stream_id, EMPTY_MESSAGE, ends=True))
        assert await wire.read(SettingsFrame)
        assert await asyncio.wait_for(app.start(), 10)
