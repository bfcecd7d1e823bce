"""Answers that are stopped on purpose: both twins tell the server, once, and it stops at once."""

import asyncio
import gc
import threading
import time
from contextlib import asynccontextmanager

import grpc
import pytest
from app_in_process import run_app
from llavachat import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    FinishReason,
    ServerFailed,
    ServerUnavailable,
    TurnState,
)
from llavachat_server.values import FinishReason as EngineFinishReason
from scripted_engine import Hold, ScriptedEngine
from scripted_service import abort, answer_until_cancelled, deltas, started


@pytest.fixture
def scripted(scripted):
    """Its answer does not end."""
    scripted.service.answer = answer_until_cancelled(scripted.service)
    return scripted


class Threads:
    """`Client` by the async names, each call on a thread."""

    @asynccontextmanager
    async def ask(self, scripted, **options):
        """A reply whose first piece has come, left at the end of the block."""
        with Client(scripted.address) as client:
            reply = client.start(None, "Go on.", **options)
            await asyncio.to_thread(next, iter(reply))
            try:
                yield reply
            finally:
                await asyncio.to_thread(reply.__exit__, None, None, None)

    @asynccontextmanager
    async def forget(self, scripted):
        """A reply of which a piece was read, and that nobody has any more."""

        def read(client):
            for _ in client.start(None, "Go on."):
                break

        with Client(scripted.address) as client:
            await asyncio.to_thread(read, client)
            gc.collect()
            yield

    async def call(self, method, *arguments):
        """Call it."""
        return await asyncio.to_thread(method, *arguments)


class Asyncio:
    """`AsyncClient`."""

    @asynccontextmanager
    async def ask(self, scripted, **options):
        """As the twin."""
        async with (
            AsyncClient(scripted.address) as client,
            client.start(None, "Go on.", **options) as reply,
        ):
            await anext(aiter(reply))
            yield reply

    @asynccontextmanager
    async def forget(self, scripted):
        """As the twin."""

        async def read(client):
            async for _ in client.start(None, "Go on."):
                break

        async with AsyncClient(scripted.address) as client:
            await read(client)
            gc.collect()
            yield

    async def call(self, method, *arguments):
        """Call it."""
        result = method(*arguments)
        return await result if asyncio.iscoroutine(result) else result


@pytest.fixture(params=[Threads, Asyncio])
def twin(request):
    """Either twin."""
    return request.param()


def told(service):
    """Which turns the server was told to stop."""
    return [(request.chat_id, request.turn_id) for request in service.stopped]


async def test_leaving_the_block_stops_the_turn(twin, scripted, service):
    """By its name, once, before the block is left."""
    async with twin.ask(scripted) as reply:
        assert [] == told(service)
    assert [("chat-1", "turn-1")] == told(service)
    assert (FinishReason.CANCELLED, "more ") == (reply.finish_reason, reply.text)


async def test_the_server_is_told_by_who_asked(twin, scripted, service):
    """What went with the question goes with the end, a key of its own among it."""
    async with twin.ask(scripted, metadata={"x-caller": "ada"}):
        pass
    assert ["ada", "ada"] == [metadata.get("x-caller") for metadata in service.metadata]


async def test_a_forgotten_answer_is_let_go(twin, scripted, service):
    """The call ends, so that the server stops it after its grace period; it is not told."""
    async with twin.forget(scripted):
        assert await asyncio.to_thread(service.cancelled.wait, 60)
    assert [] == told(service)


async def test_closing_and_leaving_tell_once(twin, scripted, service):
    """Whoever closes first tells; whoever leaves waits for it."""
    async with twin.ask(scripted) as reply:
        await twin.call(reply.close)
        await twin.call(reply.close)
    assert [("chat-1", "turn-1")] == told(service)


async def test_cancel_tells_what_is_kept(twin, scripted, service):
    """The turn as the server keeps it; leaving the block then says nothing more."""
    async with twin.ask(scripted) as reply:
        turn = await twin.call(reply.cancel)
    assert ("turn-1", TurnState.CANCELLED, "more ") == (turn.id, turn.state, turn.answer)
    assert FinishReason.CANCELLED is reply.finish_reason
    assert [("chat-1", "turn-1")] == told(service)


async def test_a_turn_is_cancelled_by_its_chat(twin, scripted, service):
    """Somebody else's running turn, by its id."""
    async with twin.ask(scripted) as reply:
        turn = await twin.call(reply.chat.cancel, "turn-9")
        assert "turn-9" == turn.id
        assert [("chat-1", "turn-9")] == told(service)


async def test_an_older_server_is_borne_with(twin, scripted, service):
    """It does not know the call: the answer is closed, and nobody is told of it."""
    service.is_older = True
    async with twin.ask(scripted) as reply:
        assert await twin.call(reply.cancel) is None
    assert await asyncio.to_thread(service.cancelled.wait, 60)
    service.cancelled.clear()
    async with twin.ask(scripted):
        pass
    assert await asyncio.to_thread(service.cancelled.wait, 60)


async def test_a_whole_answer_is_not_stopped(twin, scripted, service):
    """There is nothing to stop."""
    service.answer = service.tell
    async with twin.ask(scripted) as reply:
        await twin.call(reply.read)
    assert [] == told(service)


async def test_an_answer_that_failed_is_not_stopped(twin, scripted, service):
    """The server has ended it."""

    def answer(request, context):
        yield started()
        yield from deltas("A red ")
        abort(context, grpc.StatusCode.INTERNAL, "the model failed on this request")

    service.answer = answer
    with pytest.raises(ServerFailed):
        async with twin.ask(scripted) as reply:
            await twin.call(reply.read)
    assert [] == told(service)


async def test_a_deadline_stops_the_turn(twin, scripted, service):
    """Nobody waits for it any more."""
    # On a busy machine one may pass before the turn has begun, which is then not known.
    for seconds in (0.5, 2.0, 8.0, 32.0):
        with pytest.raises(DeadlineExceeded):
            async with twin.ask(scripted, timeout_seconds=seconds) as reply:
                await twin.call(reply.read)
        if reply.is_started:
            break
    assert [("chat-1", "turn-1")] == told(service)


async def test_a_server_that_is_gone_does_not_hold_up_the_caller(twin, scripted):
    """Closing is silent; who asks to know is told."""
    async with twin.ask(scripted, timeout_seconds=20) as reply:
        await asyncio.to_thread(scripted.stop)
        began = time.monotonic()
        with pytest.raises(ServerUnavailable):
            await twin.call(reply.cancel)
    async_seconds = time.monotonic() - began
    assert async_seconds < 15


async def test_an_answer_that_has_not_begun_is_not_named(scripted, service):
    """The server lets it go by itself."""
    begun = threading.Event()

    def answer(request, context):
        context.add_callback(service.cancelled.set)
        begun.set()
        service.cancelled.wait(10)
        yield started()

    service.answer = answer
    async with AsyncClient(scripted.address) as client, client.start(None, "Go on.") as reply:
        assert await asyncio.to_thread(begun.wait, 60)
        assert await reply.cancel() is None
    assert service.cancelled.wait(60)
    assert [] == told(service)


async def test_a_task_that_is_cancelled_stops_its_turn(scripted, service):
    """The client's end waits until the server knows."""
    async with AsyncClient(scripted.address) as client:
        begun = asyncio.Event()

        async def read():
            async for _ in client.start(None, "Go on."):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [("chat-1", "turn-1")] == told(service)


async def test_the_real_server_stops_at_once():
    """Though a reader who is merely gone would have a minute to come back."""
    hold = Hold("So far")
    engine = ScriptedEngine("warm", hold, "Yes.")
    async with (
        run_app(engine, "--abandon-grace-seconds", "60") as app,
        AsyncClient(app.address) as client,
    ):
        async with client.start(None, "What?") as reply:
            await anext(aiter(reply))
            await hold.said.wait()
        assert [EngineFinishReason.CANCELLED] == list(engine.cancelled.values())
        turn = await reply.chat.turn(reply.turn_id)
        assert (TurnState.CANCELLED, "So far") == (turn.state, turn.answer)
        assert "Yes." == await reply.chat.ask("Sure?").read()
