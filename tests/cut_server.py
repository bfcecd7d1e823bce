"""A server by raw HTTP/2 whose streams end as they do behind a proxy that has lost it, which
no gRPC server would do. It begins one answer, and tells the rest to who follows it.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attacker import PREFACE, data
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from llavachat.v1 import chat_pb2 as pb
from scripted_service import deltas, finished, started

ANSWER = ("A red ", "circle.")
_HEADERS = ((":status", "200"), ("content-type", "application/grpc"))

Cut = Callable[["Stream"], None]


class Stream:
    """One call's stream, to be answered."""

    def __init__(self, stream_id: int, encoder: Encoder, writer: asyncio.StreamWriter) -> None:
        self._id = stream_id
        self._encoder = encoder
        self._writer = writer

    def send_headers(self, *headers: tuple[str, str], ends: bool = False) -> None:
        """The first headers, or trailers."""
        frame = HeadersFrame(self._id, self._encoder.encode(headers))
        frame.flags.add("END_HEADERS")
        if ends:
            frame.flags.add("END_STREAM")
        self._writer.write(frame.serialize())

    def send_event(self, event: pb.ChatEvent) -> None:
        """One message; the responses of all streamed methods look alike on the wire."""
        body = pb.StartChatResponse(event=event).SerializeToString()
        self.send_bytes(struct.pack(">BI", 0, len(body)) + body)

    def send_bytes(self, body: bytes, *, ends: bool = False) -> None:
        """Bytes of the body."""
        self._writer.write(data(self._id, body, ends=ends).serialize())

    def reset(self, code: int) -> None:
        """RST_STREAM. Source of the codes: RFC 9113, section 7."""
        self._writer.write(RstStreamFrame(self._id, error_code=code).serialize())


class CutServer:
    """See the module.

    Args:
        cut: how the stream of a question ends, once the answer has begun.
        refuse: how a question ends instead, before anything has been told.
    """

    def __init__(self, cut: Cut | None = None, refuse: Cut | None = None) -> None:
        self._cut = cut
        self._refuse = refuse
        self.address = ""
        self.methods: list[str] = []
        """What was called, in turn."""
        self.heard = asyncio.Event()
        """To be set once the first part is read: gRPC drops what is unread at a reset."""
        self._connections: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until its end."""
        self._connections[asyncio.current_task()] = writer
        encoder, decoder = Encoder(), Decoder()
        paths: dict[int, str] = {}
        try:
            await reader.readexactly(len(PREFACE))
            writer.write(SettingsFrame(0).serialize())
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
                frame.parse_body(memoryview(await reader.readexactly(length)))
                if isinstance(frame, SettingsFrame | PingFrame) and "ACK" not in frame.flags:
                    frame = type(frame)(0, *([frame.opaque_data] if length == 8 else []))
                    frame.flags.add("ACK")
                    writer.write(frame.serialize())
                elif isinstance(frame, HeadersFrame):
                    paths[frame.stream_id] = dict(decoder.decode(frame.data))[":path"]
                elif isinstance(frame, DataFrame) and "END_STREAM" in frame.flags:
                    method = paths[frame.stream_id].rpartition("/")[2]
                    self.methods.append(method)
                    await self._answer(method, Stream(frame.stream_id, encoder, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def close(self) -> None:
        """End all connections."""
        for writer in self._connections.values():
            writer.close()
        await asyncio.gather(*filter(None, self._connections))

    async def _answer(self, method: str, stream: Stream) -> None:
        is_followed = method == "ResumeTurn"
        if self._refuse and not is_followed:
            self._refuse(stream)
            return
        stream.send_headers(*_HEADERS)
        stream.send_event(started())
        first, rest = deltas(*ANSWER)
        if self._cut and not is_followed:
            stream.send_event(first)
            await self.heard.wait()
            self._cut(stream)
            return
        stream.send_event(rest)
        stream.send_event(finished())
        stream.send_headers(("grpc-status", "0"), ends=True)


@asynccontextmanager
async def run_cut_server(
    cut: Cut | None = None, refuse: Cut | None = None
) -> AsyncIterator[CutServer]:
    """A `CutServer` on a port of its own."""
    server = CutServer(cut, refuse)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    server.address = f"{host}:{port}"
    try:
        yield server
    finally:
        listener.close()
        await server.close()
