"""Every call of both clients, over a socket, against a scripted service."""

import asyncio
import math
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from llavachat import (
    AsyncClient,
    Client,
    ContextTrimmed,
    Delta,
    Finished,
    FinishReason,
    ImageError,
    IncompleteReply,
    InvalidRequest,
    LimitReached,
    NotFound,
    NotSupported,
    OverflowPolicy,
    Queued,
    ServerUnavailable,
    Started,
)
from llavachat.v1 import chat_pb2, error_details_pb2
from PIL import Image
from scripted_service import ScriptedServer, abort, deltas, finished, queued, started

RED = Image.new("RGB", (8, 8), "red")


@pytest.fixture
def scripted():
    """A scripted service on a port of its own."""
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def service(scripted):
    """What the server answers, and what it was asked."""
    return scripted.service


@pytest.fixture
def client(scripted):
    """A client of that server."""
    with Client(scripted.address, timeout_seconds=20) as client:
        yield client


def test_an_answer_streams_and_tells_everything(client, service):
    """The issue's own example: pieces as they come, then usage and timings."""
    with client.start(RED, "What is this?") as reply:
        assert ["A ", "red ", "circle."] == list(reply)
    assert "A red circle." == reply.text
    assert FinishReason.EOS is reply.finish_reason
    assert (40, 64, 11) == (
        reply.usage.text_tokens,
        reply.usage.image_tokens,
        reply.usage.completion_tokens,
    )
    assert (0.051, 2.0) == (reply.timings.first_token_seconds, reply.timings.decode_seconds)
    assert (7, 0.2) == (reply.params.seed, reply.params.temperature)
    assert "scripted-model" == reply.model.name
    assert 64 == reply.images[0].num_tokens
    assert b"\x89PNG" == service.requests[0].images[0].data[:4]


def test_a_chat_goes_on(client, service):
    """`chat.ask` names the chat; `parent` names a turn, by object or id."""
    reply = client.start(RED, "What is this?")
    reply.read()
    assert "A red circle." == reply.chat.ask("And behind it?").read()
    history = reply.chat.history()
    assert ["What is this?", "And behind it?"] == [turn.prompt for turn in history]
    reply.chat.ask("Or?", parent=history[0]).read()
    reply.chat.ask("Or?", parent="turn-2", overflow=OverflowPolicy.DROP_OLDEST_TURNS).read()
    first, second, third = service.requests[-4], service.requests[-2], service.requests[-1]
    assert ("chat-1", False) == (first.chat_id, first.HasField("parent_turn_id"))
    assert ("turn-1", "turn-2") == (second.parent_turn_id, third.parent_turn_id)
    assert chat_pb2.OVERFLOW_POLICY_DROP_OLDEST_TURNS == third.overflow_policy


def test_parameters_arrive(client, service):
    """Every keyword argument finds its field."""
    client.start(
        None,
        "What?",
        system_prompt="Be brief.",
        labels={"job": "7"},
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.5,
        seed=2**63,
        stop=["END", "\n"],
        request_id="mine",
    ).read()
    request = service.requests[0]
    assert ("Be brief.", {"job": "7"}, "mine") == (
        request.system_prompt,
        dict(request.labels),
        request.request_id,
    )
    expected = chat_pb2.GenerationParams(
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.5,
        seed=2**63,
        stop=["END", "\n"],
    )
    assert expected == request.params


def test_all_events_are_told(client, service):
    """Whoever wants more than the text gets it, in order; unknown events are passed over."""

    def answer(request, context):
        yield started()
        yield chat_pb2.ChatEvent(
            trimmed=chat_pb2.ContextTrimmed(
                turn_ids=["turn-0"], num_tokens_before=600, num_tokens_after=400
            )
        )
        yield queued(2)
        yield chat_pb2.ChatEvent()  # an event of the future
        yield from deltas("Yes", ".")
        yield finished(chat_pb2.FINISH_REASON_STOP_SEQUENCE, "\n")

    service.answer = answer
    reply = client.start(None, "Is it?")
    kinds = [type(event) for event in reply.events()]
    assert [Started, ContextTrimmed, Queued, Delta, Delta, Finished] == kinds
    assert (FinishReason.STOP_SEQUENCE, "\n") == (reply.finish_reason, reply.matched_stop)
    assert ("turn-0",) == reply.trimmed.turn_ids


def test_text_comes_as_it_is_written(client, service):
    """The first piece is there while the server still holds back the second."""
    gate = threading.Event()

    def answer(request, context):
        yield started()
        parts = deltas("one ", "two")
        yield next(parts)
        gate.wait(10)
        yield next(parts)
        yield finished()

    service.answer = answer
    pieces = iter(client.start(None, "Count."))
    assert "one " == next(pieces)
    gate.set()
    assert ["two"] == list(pieces)


def _answer_until_cancelled(service):
    """Text without end, and a flag once the call is cancelled."""

    def answer(request, context):
        context.add_callback(service.cancelled.set)
        yield started()
        offset = 0
        while not service.cancelled.wait(0.01):
            yield chat_pb2.ChatEvent(delta=chat_pb2.TextDelta(text="more ", char_offset=offset))
            offset += 5

    return answer


def test_closing_early_cancels_the_call(client, service):
    """Leaving the block stops the server, and what came is kept."""
    service.answer = _answer_until_cancelled(service)
    with client.start(None, "Go on.") as reply:
        next(iter(reply))
    assert service.cancelled.wait(5)
    assert FinishReason.CANCELLED is reply.finish_reason
    assert "more " == reply.text


def test_closing_from_another_thread_ends_the_iteration(client, service):
    """What a Ctrl-C handler does: the loop just ends, without an error."""
    service.answer = _answer_until_cancelled(service)
    reply = client.start(None, "Go on.")
    closer = threading.Timer(0.1, reply.close)
    closer.start()
    assert all(text == "more " for text in reply)
    assert FinishReason.CANCELLED is reply.finish_reason
    assert service.cancelled.wait(5)


def test_forgetting_a_reply_cancels_the_call(client, service):
    """A reply that nobody holds does not keep the server busy."""
    service.answer = _answer_until_cancelled(service)
    reply = client.start(None, "Go on.")
    next(iter(reply))
    del reply
    assert service.cancelled.wait(5)


def test_a_stream_without_its_last_event_is_told(client, service):
    """An answer that just ends may be cut short, and is not passed off as whole."""
    service.answer = lambda request, context: iter([started(), *deltas("A red")])
    reply = client.start(None, "What?")
    with pytest.raises(IncompleteReply):
        reply.read()
    assert "A red" == reply.text


def test_a_failure_on_the_way_keeps_what_came(client, service):
    """The error has the server's words; the reply has the text until then."""

    def answer(request, context):
        yield started()
        yield from deltas("A red ")
        detail = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3))
        abort(context, grpc.StatusCode.UNAVAILABLE, "the server is stopping", detail)

    service.answer = answer
    reply = client.start(None, "What?")
    with pytest.raises(ServerUnavailable, match=r"^The server is stopping\.$") as failure:
        reply.read()
    assert 3.0 == failure.value.retry_after_seconds
    assert "A red " == reply.text


def test_a_refusal_is_told_when_the_reply_is_read(client, service):
    """Details travel with the status."""

    def answer(request, context):
        detail = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1))
        abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is full", detail)
        yield

    service.answer = answer
    with pytest.raises(LimitReached) as refusal:
        client.start(None, "What?").read()
    assert 1.0 == refusal.value.retry_after_seconds


def test_wrong_pictures_and_questions_are_told_at_once(client, service):
    """Nothing is sent."""
    with pytest.raises(ImageError, match="does not exist"):
        client.start("nowhere.png", "What?")
    with pytest.raises(InvalidRequest):
        client.start(None, " ")
    assert [] == service.requests


def test_chats_are_listed_lazily(client, service):
    """A page is fetched when it is read, and not before."""
    for number in range(5):
        client.start(None, f"Question {number}").read()
    service.requests.clear()
    chats = client.chats(page_size=2, labels={"a": "b"})
    assert [] == service.requests
    assert "Question 0" == next(chats).title
    assert 1 == len(service.requests)
    assert ["chat-2", "chat-3", "chat-4", "chat-5"] == [chat.id for chat in chats]
    assert ["", "2", "4"] == [request.page_token for request in service.requests]
    assert [{"a": "b"}] * 3 == [dict(request.labels) for request in service.requests]


def test_a_chat_is_told_and_erased(client):
    """Transcript in both forms, the raw prompt, and then NotFound."""
    reply = client.start(RED, "What is this?")
    reply.read()
    chat = reply.chat
    assert "**You:** What is this?" in chat.transcript()
    assert '"answer": "A red circle."' in chat.transcript("json")
    assert "<s>USER: What is this? ASSISTANT:" == chat.raw_prompt()
    assert "<s>USER: What is this? ASSISTANT:" == chat.raw_prompt(reply.turn_id)
    with pytest.raises(NotFound, match="no such turn"):
        chat.raw_prompt("turn-9")
    chat.delete()
    with pytest.raises(NotFound) as missing:
        chat.history()
    assert ("chat", chat.id) == missing.value.details.resource
    with pytest.raises(NotFound):
        client.delete_chat(chat.id)


def test_tokens_are_counted(client, service):
    """For a first question and for a chat's next one."""
    assert 138 == client.count_tokens([RED, RED], "What?", system_prompt="").total_tokens
    assert 10 == client.chat("chat-1").count_tokens("What?", parent="turn-1").total_tokens
    assert ("chat-1", "turn-1") == (
        service.requests[-1].chat_id,
        service.requests[-1].parent_turn_id,
    )


def test_the_server_is_described(client):
    """Model, limits and defaults."""
    info = client.server_info()
    assert ("scripted-model", 512, 90.0, ("image/png",), 64) == (
        info.model.name,
        info.limits.context_tokens,
        info.limits.max_turn_seconds,
        info.limits.media_types,
        info.default_params.max_tokens,
    )


def test_a_call_of_a_later_release_is_not_supported(client):
    """UNIMPLEMENTED has its class: this service does not have GetTurn."""
    with pytest.raises(NotSupported):
        client.chat("chat-1").turn("turn-1")


def test_health_is_asked_without_the_health_package(client, service, scripted):
    """SERVING is True; NOT_SERVING, and nobody at all, is False."""
    assert client.is_healthy()
    service.is_serving = False
    assert not client.is_healthy()
    scripted.stop()
    assert not client.is_healthy(timeout_seconds=1)


def test_a_proxy_is_no_way_to_this_machine(scripted, monkeypatch):
    """http_proxy in the environment does not keep localhost from being reached."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(scripted.address) as client:
        assert "cpu" == client.server_info().device


def test_waiting_until_a_server_is_ready(client, service):
    """Returns once it serves, and says so when it does not."""
    service.is_serving = False
    threading.Timer(0.3, lambda: setattr(service, "is_serving", True)).start()
    client.wait_until_ready(timeout_seconds=10)
    service.is_serving = False
    with pytest.raises(ServerUnavailable, match=r"not ready within 0.3 seconds"):
        client.wait_until_ready(timeout_seconds=0.3)


async def test_the_twin_does_the_same(scripted, service):
    """AsyncClient: stream, ask, history, list, count, health, delete."""
    async with AsyncClient(scripted.address, timeout_seconds=20) as client:
        async with client.start(RED, "What is this?") as reply:
            assert ["A ", "red ", "circle."] == [text async for text in reply]
        assert 11 == reply.usage.completion_tokens
        assert "A red circle." == await reply.chat.ask("And?", seed=3).read()
        assert 3 == service.requests[-1].params.seed
        assert 2 == len(await reply.chat.history())
        assert "**You:** And?" in await reply.chat.transcript()
        assert "<s>USER: And? ASSISTANT:" == await reply.chat.raw_prompt()
        assert 10 == (await reply.chat.count_tokens("What?")).total_tokens
        assert 74 == (await client.count_tokens(RED, "What?")).total_tokens
        assert "cpu" == (await client.server_info()).device
        await client.start(None, "Another").read()
        assert ["chat-1", "chat-2"] == [chat.id async for chat in client.chats(page_size=1)]
        assert await client.is_healthy()
        await client.wait_until_ready()
        await reply.chat.delete()
        with pytest.raises(NotFound):
            await client.delete_chat("chat-1")


async def test_the_twin_loads_pictures_when_it_is_read(scripted, service):
    """Nothing happens before, and a wrong picture is told then."""
    async with AsyncClient(scripted.address) as client:
        reply = client.start("nowhere.png", "What?")
        with pytest.raises(ImageError, match="does not exist"):
            await reply.read()
    assert [] == service.requests


async def test_cancelling_the_task_cancels_the_call(scripted, service):
    """A task that is given up does not keep the server busy."""
    service.answer = _answer_until_cancelled(service)
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
        assert await asyncio.to_thread(service.cancelled.wait, 5)


async def test_closing_the_twin_from_another_task_ends_the_iteration(scripted, service):
    """The loop ends without an error, and what came is kept."""
    service.answer = _answer_until_cancelled(service)
    async with AsyncClient(scripted.address) as client:
        reply = client.start(None, "Go on.")
        asyncio.get_running_loop().call_later(0.1, reply.close)
        assert {"more "} == {text async for text in reply}
        assert FinishReason.CANCELLED is reply.finish_reason


async def test_many_answers_side_by_side(scripted, service):
    """One AsyncClient streams several answers at once, each with its own text."""

    def answer(request, context):
        yield started(request.prompt)
        yield from deltas(*(f"{request.prompt}{number} " for number in range(20)))
        yield finished()

    service.answer = answer
    async with AsyncClient(scripted.address) as client:
        answers = await asyncio.gather(*(client.start(None, name).read() for name in "abcdefgh"))
    expected = ["".join(f"{name}{number} " for number in range(20)) for name in "abcdefgh"]
    assert expected == answers


def test_no_deadline_means_none(client, service):
    """`math.inf` sends no deadline; a number sends that one."""
    left = []

    def answer(request, context):
        left.append(context.time_remaining())
        yield started()
        yield finished()

    service.answer = answer
    client.start(None, "What?", timeout_seconds=math.inf).read()
    client.start(None, "What?", timeout_seconds=5).read()
    client.start(None, "What?").read()
    assert left[0] is None or left[0] > 1e6
    assert 3 < left[1] < 6 < 15 < left[2] < 21


def test_the_deadline_ends_a_slow_answer(client, service):
    """DeadlineExceeded is a TimeoutError, and what came is kept."""
    service.answer = _answer_until_cancelled(service)
    began = time.monotonic()
    reply = client.start(None, "Go on.", timeout_seconds=0.3)
    with pytest.raises(TimeoutError, match="timeout_seconds"):
        reply.read()
    assert time.monotonic() - began < 5
    assert reply.text.startswith("more ")
