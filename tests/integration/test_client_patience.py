"""Questions that had not begun when their server went away: asked again, by a client that has
reached a server before, under the same request_id."""

import asyncio
import threading

import pytest
from llavachat import AsyncClient, CannotConnect, Client, ServerUnavailable
from llavachat._wire.resumption import Resumption
from scripted_service import ScriptedServer


@pytest.fixture
def tries(monkeypatch):
    """Counts what a client plans after a loss; an event is set once it has planned one."""
    planned, plan = threading.Event(), Resumption.plan

    def plan_and_tell(*arguments):
        result = plan(*arguments)
        planned.set()
        return result

    monkeypatch.setattr(Resumption, "plan", plan_and_tell)
    return planned


@pytest.fixture(params=["threads", "asyncio"])
def ask(request, scripted):
    """Ask twice by either twin, the server stopped between: the second reply, or its error."""

    def ask_with_threads(after_first, **options):
        with Client(scripted.address, **options) as client:
            client.start(None, "First?").read()
            after_first()
            return client.start(None, "Second?", request_id="r").read()

    async def ask_with_asyncio(after_first, **options):
        async with AsyncClient(scripted.address, **options) as client:
            await client.start(None, "First?").read()
            after_first()
            return await client.start(None, "Second?", request_id="r").read()

    if request.param == "threads":
        return ask_with_threads
    return lambda *arguments, **options: asyncio.run(ask_with_asyncio(*arguments, **options))


def test_a_question_waits_for_a_server_that_restarts(ask, scripted, tries):
    """It comes back once the client has met its absence; the answer is whole, asked for once."""
    again = []

    def come_back():
        assert tries.wait(30)
        again.append(ScriptedServer(port=scripted.port))

    restart = threading.Thread(target=come_back)

    def stop():
        scripted.stop()
        restart.start()

    try:
        assert "A red circle." == ask(stop)
        restart.join()
        assert ["r"] == [request.request_id for request in again[0].service.requests]
    finally:
        restart.join()
        again[0].stop()


def test_waiting_for_a_server_ends(ask, scripted, tries):
    """After `restart_seconds` the caller is told that nothing answers."""
    with pytest.raises(ServerUnavailable):
        ask(scripted.stop, restart_seconds=0.5)
    assert tries.is_set()


def test_a_deadline_while_no_server_is_there_tells_of_the_server(ask, scripted, tries):
    """Not that the answer was late: it was never asked for."""
    with pytest.raises(ServerUnavailable):
        ask(scripted.stop, timeout_seconds=6)
    assert tries.is_set()


@pytest.mark.parametrize("option", ["restart_seconds", "resume_seconds"])
def test_nothing_waits_where_that_is_wished(ask, scripted, tries, option):
    """0, of which the second stands for both: as soon as gRPC's own tries are over."""
    with pytest.raises(ServerUnavailable):
        ask(scripted.stop, **{option: 0})
    assert not tries.is_set()


def test_a_client_that_never_reached_a_server_does_not_wait(scripted, tries):
    """Its address may be wrong, which whoever typed it wants to know at once."""
    scripted.stop()
    with Client(scripted.address) as client, pytest.raises(CannotConnect):
        client.start(None, "What?").read()
    assert not tries.is_set()
