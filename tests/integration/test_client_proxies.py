"""What proxies make of a server that is gone, and of one that refuses: both twins understand it.

The frames are those that nginx 1.22, HAProxy 2.6 and Caddy 2.6 were seen to send.
"""

import asyncio
from base64 import b64encode
from typing import Any

import pytest
from cut_server import ANSWER, CutServer, Stream, run_cut_server
from llavachat import (
    AsyncClient,
    AuthenticationFailed,
    Client,
    LimitReached,
    ServerUnavailable,
    StatusError,
)
from llavachat._wire.status import DETAILS_KEY
from llavachat.v1 import error_details_pb2

INTERNAL_ERROR = 2
"""Source: RFC 9113, section 7."""
UNAUTHENTICATED = 16


def reset_as_nginx_does(stream: Stream) -> None:
    """The server was killed."""
    stream.reset(INTERNAL_ERROR)


def end_without_a_status(stream: Stream) -> None:
    """As HAProxy and Caddy do where the server was killed."""
    stream.send_bytes(b"", ends=True)


def end_by_other_trailers(stream: Stream) -> None:
    """Trailers that say nothing of how the call ended."""
    stream.send_headers(("x-served-by", "proxy"), ends=True)


def refuse_by_http(status: int) -> Any:
    """A page instead of an answer."""

    def refuse(stream: Stream) -> None:
        stream.send_headers((":status", str(status)), ("content-type", "text/html"), ends=True)

    return refuse


@pytest.fixture(params=["threads", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Ask by either twin: the text, or the error. The server is told what was heard."""

    async def ask_with_asyncio(server: CutServer, **options: Any) -> str | StatusError:
        async with AsyncClient(server.address, **options) as client:
            reply = client.start(None, "What?")
            try:
                async for _ in reply:
                    server.heard.set()
            except StatusError as error:
                return error
            return reply.text

    def ask_now(server: CutServer, hear: Any, **options: Any) -> str | StatusError:
        with Client(server.address, **options) as client:
            reply = client.start(None, "What?")
            try:
                for _ in reply:
                    hear(server.heard.set)
            except StatusError as error:
                return error
            return reply.text

    async def ask_with_threads(server: CutServer, **options: Any) -> str | StatusError:
        hear = asyncio.get_running_loop().call_soon_threadsafe
        return await asyncio.to_thread(ask_now, server, hear, **options)

    return ask_with_threads if request.param == "threads" else ask_with_asyncio


@pytest.mark.parametrize(
    "cut",
    [reset_as_nginx_does, end_without_a_status, end_by_other_trailers],
    ids=lambda c: c.__name__,
)
async def test_an_answer_that_a_proxy_cut_is_followed(ask: Any, cut: Any) -> None:
    """From its last character on, as one whose own connection was lost."""
    async with run_cut_server(cut) as server:
        assert "".join(ANSWER) == await ask(server)
        assert ["StartChat", "ResumeTurn"] == server.methods


async def test_a_cut_answer_that_is_not_followed_is_a_lost_connection(ask: Any) -> None:
    """In the words for one, not in gRPC's."""
    async with run_cut_server(reset_as_nginx_does) as server:
        error = await ask(server, resume_seconds=0)
        assert ServerUnavailable is type(error)
        assert f"The connection to {server.address} was lost." == str(error)


async def test_a_refusal_whose_request_was_cut_is_the_servers(ask: Any) -> None:
    """HAProxy gives the status on and cuts the request, which gRPC calls CANCELLED."""
    status = error_details_pb2.ErrorStatus(code=UNAUTHENTICATED, message="this key is not known")

    def refuse(stream: Stream) -> None:
        stream.send_headers((":status", "200"), ("content-type", "application/grpc"))
        encoded = b64encode(status.SerializeToString()).decode()
        stream.send_headers(
            ("grpc-status", "1"), ("grpc-message", "cut"), (DETAILS_KEY, encoded), ends=True
        )

    async with run_cut_server(refuse=refuse) as server:
        error = await ask(server)
        assert AuthenticationFailed is type(error)
        assert "This key is not known." == str(error)


async def test_a_request_that_is_too_large_for_a_proxy_is_told(ask: Any) -> None:
    """nginx takes 1 MB by default."""
    async with run_cut_server(refuse=refuse_by_http(413)) as server:
        error = await ask(server)
        assert LimitReached is type(error)
        assert "Something between here and the server refuses a message of this size." == str(error)
        assert ["StartChat"] == server.methods
