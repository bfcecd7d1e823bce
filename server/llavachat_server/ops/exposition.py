"""The figures over HTTP, for Prometheus: ``GET /metrics`` on a port of its own, and nothing else.

Contract: who may read is asked of whoever knows the keys, before anything is computed; a client
that is slow, silent or odd costs a connection of a few, for a few seconds; one that is refused, for
its answer. It must not know what is measured, keys, gRPC or chats.

HTTP/1.1 is read and written by h11; the figures by prometheus_client.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from http import HTTPStatus

import h11

log = logging.getLogger("llavachat")

PATH = "/metrics"

MAX_CONNECTIONS = 32
"""At the same time; a scraper keeps one open."""
MAX_HEADER_BYTES = 16 * 1024
REQUEST_SECONDS = 5.0
"""For a request to be there, once its first byte is, and for a new connection to begin one."""
IDLE_SECONDS = 120.0
"""Between two requests of one connection: scrapers come every 15 to 60 s."""
SEND_SECONDS = 10.0
"""For the figures to be taken."""
LINGER_SECONDS = 1.0
"""For who speaks something else to hear so."""

_TEXT = "text/plain; charset=utf-8"
_CHUNK_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Denial:
    """Why somebody may not read.

    Args:
        status: of HTTP.
        sentence: for the caller.
        retry_after_seconds: when to come back; None where that would not help.
    """

    status: HTTPStatus
    sentence: str
    retry_after_seconds: float | None = None


Judge = Callable[[str], AbstractContextManager[Denial | None]]
"""Given the ``authorization`` header ("" where there is none): held while somebody reads."""

Render = Callable[[str], tuple[bytes, str]]
"""Given the ``accept`` header: the figures, and their media type. Blocks for some milliseconds."""


class Exposition:
    """A port that answers scrapers.

    Args:
        render: makes the figures; called on another thread, once at a time.
        judge: says who may read.
    """

    def __init__(self, render: Render, judge: Judge) -> None:
        self._render = render
        self._judge = judge
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            OSError: the address is taken, or is none of this machine's.
        """
        self._server = await asyncio.start_server(
            self._serve,
            host,
            port,
            ssl=tls,
            limit=MAX_HEADER_BYTES,
            ssl_handshake_timeout=REQUEST_SECONDS if tls else None,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._answer_all(reader, writer)
            writer.close()
            async with asyncio.timeout(LINGER_SECONDS):
                await writer.wait_closed()
        except (OSError, TimeoutError, h11.ProtocolError):
            log.debug("a scraper has gone, or spoke something else")
        finally:
            self._tasks.discard(task)
            # Whatever it has not taken by now is not waited for.
            writer.transport.abort()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire(reader, writer)
        idle_seconds = REQUEST_SECONDS
        while (request := await wire.read_request(idle_seconds)) is not None:
            await self._answer(wire, request)
            if not wire.is_open_for_more():
                return
            idle_seconds = IDLE_SECONDS

    async def _answer(self, wire: "_Wire", request: h11.Request) -> None:
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        if request.target.partition(b"?")[0] != PATH.encode():
            await wire.say(HTTPStatus.NOT_FOUND, f"the figures are at {PATH}\n")
            return
        if request.method not in (b"GET", b"HEAD"):
            allow = (("allow", "GET, HEAD"),)
            await wire.say(HTTPStatus.METHOD_NOT_ALLOWED, "GET is answered\n", allow)
            return
        with self._judge(headers.get(b"authorization", "")) as denial:
            if denial is not None:
                await wire.say(denial.status, f"{denial.sentence}\n", _explain(denial))
                return
            async with self._one_at_a_time:
                body, kind = await asyncio.to_thread(self._render, headers.get(b"accept", ""))
            await wire.send(HTTPStatus.OK, body, kind)


class _Wire:
    """One connection, in requests and responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._is_head = False

    async def read_request(self, idle_seconds: float) -> h11.Request | None:
        """The next request's head, its body skipped; None at the end of the connection.

        Raises:
            TimeoutError: it did not come, or not whole.
            ProtocolError: it is not HTTP/1.1; the caller has been told.
        """
        request: h11.Request | None = None
        async with asyncio.timeout(idle_seconds) as patience:
            while True:
                try:
                    event = self._http.next_event()
                except h11.RemoteProtocolError as error:
                    await self._refuse(error)
                    raise
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._reader.read(_CHUNK_BYTES))
                    if idle_seconds:
                        # It has begun, and has no more than this from now on.
                        idle_seconds = 0.0
                        now = asyncio.get_running_loop().time()
                        patience.reschedule(now + REQUEST_SECONDS)
                elif isinstance(event, h11.Request):
                    request = event
                    self._is_head = event.method == b"HEAD"
                elif isinstance(event, h11.EndOfMessage):
                    return request
                elif isinstance(event, h11.ConnectionClosed):
                    return None

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Say that this is no HTTP, and let the caller read it."""
        status = HTTPStatus(error.error_status_hint)
        with suppress(h11.LocalProtocolError):
            await self.say(status, "this port speaks HTTP/1.1\n")
        if self._writer.can_write_eof():
            self._writer.write_eof()
        # What is closed with bytes unread is reset, and the answer lost.
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await self._reader.read(_CHUNK_BYTES):
                    pass

    async def say(
        self, status: HTTPStatus, text: str, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Answer with a sentence, and hang up: whoever gets no figures shall not hold a place."""
        await self.send(status, text.encode(), _TEXT, (*headers, ("connection", "close")))

    async def send(
        self,
        status: HTTPStatus,
        body: bytes,
        kind: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Answer.

        Raises:
            TimeoutError: the client does not take it.
        """
        head = [("content-type", kind), ("content-length", str(len(body))), *headers]
        response = h11.Response(
            status_code=status.value, headers=head, reason=status.phrase.encode()
        )
        events: list[h11.Event] = [response]
        if not self._is_head:
            events.append(h11.Data(data=body))
        for event in (*events, h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        async with asyncio.timeout(SEND_SECONDS):
            await self._writer.drain()

    def is_open_for_more(self) -> bool:
        """Get ready for another request, if there may be one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True


def _explain(denial: Denial) -> tuple[tuple[str, str], ...]:
    if denial.status is HTTPStatus.UNAUTHORIZED:
        return (("www-authenticate", "Bearer"),)
    if denial.retry_after_seconds is not None:
        return (("retry-after", str(max(1, round(denial.retry_after_seconds)))),)
    return ()
