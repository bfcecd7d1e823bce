"""A TLS web server on this machine that answers as it is told, and a resolver that leads to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATES = Path(__file__).parent / "certificates"

NAME = "llavachat.test"
"""What the certificate is for."""

OTHER = "other.test"
"""What it is not for."""

Page = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WebServer:
    """A web server that answers each path with the bytes it was told.

    Attributes:
        pages: from a path to raw bytes, or to what writes them.
        heard: the heads of the requests that came.
        names: whom the callers asked for in TLS.
        num_connections: how often it was connected to.
    """

    port: int = 0
    pages: dict[str, bytes | Page] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    num_connections: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heard.append(head)
            page = self.pages[head.split()[1]]
            if isinstance(page, bytes):
                writer.write(page)
                await writer.drain()
            else:
                await page(writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def url(self, path: str = "/a.png", name: str = NAME) -> str:
        """The address of a page."""
        return f"https://{name}:{self.port}{path}"


@asynccontextmanager
async def serve(address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[WebServer]:
    """Run a web server."""
    web = WebServer()

    def note_name(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        web.num_connections += 1
        web.names.append(name or "")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    context.sni_callback = note_name  # type: ignore[assignment]
    server = await asyncio.start_server(web.answer, address, port, ssl=context)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()


def ok(body: bytes, *headers: str) -> bytes:
    """A good answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def lead_to(location: str, status: int = 302) -> bytes:
    """A redirect."""
    head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return head.encode()


class Resolver:
    """A resolver that answers as it was told, each name's answers one after the other."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Iterable[str]:
        """Answer with the next, or again with the last."""
        self.asked.append(host)
        answers = self._names.get(host)
        if not answers:
            raise OSError("Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


LOOPBACK = "127.0.0.1"
