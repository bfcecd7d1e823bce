"""Retries are gRPC's own: before the first word of an answer, and never after."""

import asyncio
import os
import socket
import threading
import time

import grpc
import pytest
from llavachat import (
    AsyncClient,
    CannotConnect,
    Client,
    InvalidRequest,
    NotFound,
    Picture,
    ServerUnavailable,
)
from scripted_service import ScriptedServer, abort, deltas, started


def _unavailable(service, times, code=grpc.StatusCode.UNAVAILABLE):
    """UNAVAILABLE for some calls, then the usual answer; and a list of the calls."""
    calls = []

    def answer(request, context):
        calls.append(request)
        if len(calls) <= times:
            abort(context, code, "the server is starting")
        yield from service.tell(request, context)

    service.answer = answer
    return calls


def test_a_refused_beginning_is_tried_again(scripted):
    """Twice UNAVAILABLE, then an answer; the caller sees the answer, the server one request_id."""
    calls = _unavailable(scripted.service, 2)
    with Client(scripted.address) as client:
        assert "A red circle." == client.start(None, "What?").read()
    assert 3 == len(calls)
    assert 1 == len({request.request_id for request in calls})


def test_a_call_that_a_flooded_server_dropped_is_tried_again(scripted):
    """gRPC drops waiting calls as CANCELLED, which nobody here asked for."""
    calls = _unavailable(scripted.service, 1, grpc.StatusCode.CANCELLED)
    with Client(scripted.address) as client:
        assert "A red circle." == client.start(None, "What?").read()
    assert 2 == len(calls)


def test_a_picture_is_sent_again_too(scripted):
    """A request larger than gRPC's usual retry buffer (256 KiB) is retried all the same."""
    calls = _unavailable(scripted.service, 1)
    picture = Picture(os.urandom(3 << 20), "image/png", 1, 1)
    with Client(scripted.address) as client:
        assert "A red circle." == client.start([picture, picture], "What?").read()
    assert [picture.data] * 4 == [image.data for request in calls for image in request.images]


async def test_the_twin_retries_too(scripted):
    """The service config is on both channels."""
    calls = _unavailable(scripted.service, 1)
    async with AsyncClient(scripted.address) as client:
        assert "A red circle." == await client.start(None, "What?").read()
    assert 2 == len(calls)


async def test_a_second_outage_is_got_over_like_the_first(scripted, monkeypatch):
    """However many calls have failed before, and however few have succeeded since."""
    service, is_down, num_refusals = scripted.service, True, 0
    usual = service._keep

    def keep(request, context):
        nonlocal num_refusals
        usual(request, context)
        if is_down:
            num_refusals += 1
            abort(context, grpc.StatusCode.UNAVAILABLE, "the server is starting")

    monkeypatch.setattr(service, "_keep", keep)
    async with AsyncClient(scripted.address) as client:
        calls = [client.server_info() for _ in range(5)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [ServerUnavailable] * 5 == [type(outcome) for outcome in outcomes]
        assert 20 == num_refusals
        is_down = False
        await client.server_info()
        is_down, num_refusals = True, 0
        with pytest.raises(ServerUnavailable):
            await client.server_info()
        assert 4 == num_refusals


def test_retries_end(scripted):
    """Four attempts, then the server's own words."""
    calls = _unavailable(scripted.service, 99)
    with (
        Client(scripted.address) as client,
        pytest.raises(ServerUnavailable, match="The server is starting"),
    ):
        client.start(None, "What?").read()
    assert 4 == len(calls)


def test_nothing_is_retried_once_the_answer_began(scripted):
    """After the first event a failure is the caller's to know: text is never told twice."""
    calls = []

    def answer(request, context):
        calls.append(request)
        yield started()
        yield from deltas("A red ")
        abort(context, grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    scripted.service.answer = answer
    with Client(scripted.address) as client:
        reply = client.start(None, "What?")
        with pytest.raises(ServerUnavailable):
            reply.read()
    assert ("A red ", 1) == (reply.text, len(calls))


def test_other_refusals_are_not_retried(scripted):
    """A wrong request stays wrong."""
    calls = []

    def answer(request, context):
        calls.append(request)
        abort(context, grpc.StatusCode.INVALID_ARGUMENT, "prompt: is too long")
        yield

    scripted.service.answer = answer
    with Client(scripted.address) as client, pytest.raises(InvalidRequest):
        client.start(None, "What?").read()
    assert 1 == len(calls)


def test_reading_is_retried_and_erasing_is_not(scripted, monkeypatch):
    """GetServerInfo comes back; DeleteChat, whose repeat would say NOT_FOUND, does not."""
    service, calls = scripted.service, []
    usual = service._keep

    def keep(request, context):
        usual(request, context)
        calls.append(type(request).__name__)
        if len(calls) == 1:
            abort(context, grpc.StatusCode.UNAVAILABLE, "the server is starting")

    monkeypatch.setattr(service, "_keep", keep)
    with Client(scripted.address) as client:
        assert "cpu" == client.server_info().device
        assert ["GetServerInfoRequest"] * 2 == calls
        calls.clear()
        with pytest.raises(ServerUnavailable):
            client.delete_chat("chat-1")
        assert ["DeleteChatRequest"] == calls
        with pytest.raises(NotFound):
            client.delete_chat("chat-1")


def test_a_connection_that_breaks_is_told(scripted):
    """The server vanishes in the middle of an answer: ServerUnavailable, with what came."""
    said, release = threading.Event(), threading.Event()

    def answer(request, context):
        yield started()
        yield from deltas("A red ")
        said.set()
        release.wait(10)

    scripted.service.answer = answer
    with Client(scripted.address, resume_seconds=1) as client:
        pieces = iter(reply := client.start(None, "What?"))
        assert "A red " == next(pieces)
        assert said.wait(60)
        stopper = threading.Thread(target=scripted.stop)
        stopper.start()
        with pytest.raises(ServerUnavailable):
            next(pieces)
        release.set()
        stopper.join()
    assert "A red " == reply.text


def test_a_server_that_comes_back_is_found_again(scripted):
    """The same client works on after a restart on the same port."""
    with Client(scripted.address) as client:
        client.server_info()
        port = scripted.port
        scripted.stop()
        with pytest.raises(ServerUnavailable):
            client.server_info(timeout_seconds=5)
        again = ScriptedServer(port=port)
        try:
            client.wait_until_ready(timeout_seconds=10)
            assert "cpu" == client.server_info().device
        finally:
            again.stop()


def test_a_closed_port_is_told_soon():
    """One sentence with the address, within the few seconds of the retries."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    began = time.monotonic()
    with Client(address) as client, pytest.raises(CannotConnect) as failure:
        client.start(None, "What?").read()
    assert f"No llavachat server answers at {address}" in str(failure.value)
    assert time.monotonic() - began < 10
