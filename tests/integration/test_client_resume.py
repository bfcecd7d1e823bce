"""Answers whose connection is lost: both twins go on by themselves, with no gap and no repeat."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from app_in_process import PATIENCE_SECONDS
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from llavachat import (
    AsyncClient,
    AuthenticationFailed,
    Client,
    DeadlineExceeded,
    IncompleteReply,
    LimitReached,
    NotFound,
    ServerFailed,
    ServerUnavailable,
)
from llavachat._wire.resumption import Resumption
from llavachat.v1 import chat_pb2, error_details_pb2
from scripted_service import abort, deltas, finished, started

ANSWER = ("A red ", "circle on ", "white.")


SERVER_ENDED = error_details_pb2.PreconditionFailure(
    violations=[error_details_pb2.PreconditionFailure.Violation(type="SERVER_ENDED")]
)


class Breaking:
    """Tells an answer, and breaks off after some parts of it.

    Args:
        service: what it takes the place of.
        breaks: after how many parts each call breaks; calls after these do not.
        cut: a turn that is followed again has ended with its server.
        forgotten: a turn that is followed again is not known; with these details.
        stopped: a turn that is followed again ends as one does whose reader was away too long.
        again: the answer to the question asked again.
    """

    def __init__(
        self, service, breaks=(1,), cut=False, forgotten=None, stopped=False, again=ANSWER
    ):
        self.calls = []
        self.server_start_time = None
        self.breaks = list(breaks)
        self.cut, self.forgotten, self.stopped, self.again = cut, forgotten, stopped, again
        service.answer = self.answer
        service.follow = self.resume

    def answer(self, request, context):
        """StartChat and ContinueChat."""
        self.calls.append(request)
        is_first = len(self.calls) == 1
        turn_id = "turn-1" if is_first else "turn-2"
        yield started(turn_id=turn_id, server_start_time=self.server_start_time)
        yield from self._tell(deltas(*(ANSWER if is_first else self.again)), context)

    def resume(self, request, context):
        """ResumeTurn."""
        self.calls.append(request)
        if self.forgotten is not None:
            abort(context, grpc.StatusCode.NOT_FOUND, "there is no such chat", *self.forgotten)
        yield started(turn_id="turn-1")
        if self.cut:
            yield finished(chat_pb2.FINISH_REASON_SHUTDOWN)
            return
        if self.stopped:
            delta = chat_pb2.TextDelta(text=ANSWER[1], char_offset=request.char_offset)
            yield chat_pb2.ChatEvent(delta=delta)
            yield finished(chat_pb2.FINISH_REASON_CANCELLED)
            return
        rest = "".join(ANSWER)[request.char_offset :]
        delta = chat_pb2.TextDelta(text=rest, char_offset=request.char_offset)
        parts = iter((chat_pb2.ChatEvent(delta=delta),))
        yield from self._tell(parts, context)

    def _tell(self, parts, context):
        left = self.breaks.pop(0) if self.breaks else 99
        for part in parts:
            if left == 0:
                break
            left -= 1
            yield part
        if left == 0:
            abort(context, grpc.StatusCode.UNAVAILABLE, "the connection is lost")
        yield finished()


@pytest.fixture(params=["threads", "asyncio"])
def ask(request, scripted):
    """Ask by either twin: the reply once it has come to its end, or its error."""

    async def ask_with_asyncio(**options):
        async with AsyncClient(scripted.address, **options) as client:
            reply = client.start(None, "What?", request_id="r")
            try:
                await reply.read()
            except Exception as error:
                return reply, error
            return reply, None

    async def ask_with_threads(**options):
        with Client(scripted.address, **options) as client:
            reply = client.start(None, "What?", request_id="r")
            try:
                reply.read()
            except Exception as error:
                return reply, error
            return reply, None

    return ask_with_threads if request.param == "threads" else ask_with_asyncio


async def test_a_lost_answer_is_followed_from_its_last_character(ask, scripted):
    """Twice lost, and whole all the same; the server is asked for what is missing alone."""
    script = Breaking(scripted.service, breaks=(1, 0))
    reply, error = await ask()
    assert (None, "".join(ANSWER), "turn-1") == (error, reply.text, reply.turn_id)
    assert [6, 6] == [call.char_offset for call in script.calls[1:]]


async def test_a_turn_that_ended_with_its_server_is_asked_again(ask, scripted):
    """Under its request_id; what had come already is not told twice."""
    script = Breaking(scripted.service, breaks=(2,), cut=True)
    reply, error = await ask()
    assert (None, "".join(ANSWER), "turn-2") == (error, reply.text, reply.turn_id)
    assert ["r", "r"] == [call.request_id for call in (script.calls[0], script.calls[2])]


async def test_a_server_that_forgot_the_turn_is_asked_again(ask, scripted):
    """One that keeps chats in memory has lost them with its process, and says so."""
    script = Breaking(scripted.service, forgotten=(SERVER_ENDED,))
    script.server_start_time = Timestamp(seconds=7)
    reply, error = await ask()
    assert (None, "".join(ANSWER)) == (error, reply.text)
    assert Timestamp(seconds=7) == script.calls[1].server_start_time


async def test_a_chat_that_was_erased_meanwhile_does_not_come_back(ask, scripted):
    """Its question is not asked again, although its request_id would open it anew."""
    script = Breaking(scripted.service, forgotten=())
    reply, error = await ask()
    assert (NotFound, "There is no such chat.") == (type(error), str(error))
    assert ("A red ", ["r"]) == (reply.text, [call.request_id for call in script.calls[::2]])
    assert isinstance(error.__cause__, ServerUnavailable)


async def test_an_answer_that_the_server_stopped_meanwhile_is_no_whole_one(ask, scripted):
    """Away for longer than its grace period: the loss is told, once, beside what came."""
    script = Breaking(scripted.service, stopped=True)
    reply, error = await ask()
    assert isinstance(error, ServerUnavailable)
    assert str(error).startswith("The connection was lost for so long that the server has stopped")
    assert ("".join(ANSWER[:2]), 2) == (reply.text, len(script.calls))


async def test_another_answer_is_not_mixed_with_the_first(ask, scripted):
    """What begins otherwise is refused; what had come is kept."""
    Breaking(scripted.service, cut=True, again=("A blue ", "circle."))
    reply, error = await ask()
    assert isinstance(error, IncompleteReply)
    assert "A red " == reply.text


async def test_trying_ends(ask, scripted):
    """After `resume_seconds` the caller is told of the first loss."""
    script = Breaking(scripted.service, breaks=(1, *[0] * 99))
    reply, error = await ask(resume_seconds=0.5)
    assert isinstance(error, ServerUnavailable)
    assert ("A red ", True) == (reply.text, len(script.calls) > 2)


async def test_nothing_is_tried_where_that_is_wished(ask, scripted):
    """`resume_seconds` 0: the loss is the caller's to know."""
    script = Breaking(scripted.service)
    reply, error = await ask(resume_seconds=0)
    assert isinstance(error, ServerUnavailable)
    assert ("A red ", 1) == (reply.text, len(script.calls))


def refuse_once(service, method, code, *details):
    """The next call of a method ends with a status; those after it are told as before."""
    usual, calls = getattr(service, method), []

    def tell(request, context):
        calls.append(request)
        if len(calls) == 1:
            abort(context, code, "not now", *details)
        yield from usual(request, context)

    setattr(service, method, tell)


RETRY = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1))


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (RETRY,)),
        (grpc.StatusCode.ABORTED, ()),
        (grpc.StatusCode.UNAVAILABLE, ()),
    ],
)
async def test_what_passes_is_waited_for(ask, scripted, code, details):
    """A server that is full, a chat whose other turn runs, a server that starts."""
    Breaking(scripted.service)
    refuse_once(scripted.service, "follow", code, *details)
    reply, error = await ask()
    assert (None, "".join(ANSWER)) == (error, reply.text)


async def test_a_limit_that_does_not_pass_in_time_is_told(ask, scripted):
    """Itself, with its time to come back; the loss is its cause."""
    Breaking(scripted.service)
    later = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=99))
    refuse_once(scripted.service, "follow", grpc.StatusCode.RESOURCE_EXHAUSTED, later)
    _, error = await ask()
    assert (LimitReached, 99) == (type(error), error.retry_after_seconds)
    assert isinstance(error.__cause__, ServerUnavailable)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, AuthenticationFailed),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitReached),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, ServerFailed),
    ],
)
async def test_what_does_not_pass_is_told_itself(ask, scripted, code, kind):
    """Not as the loss before it, which is its cause."""
    script = Breaking(scripted.service)
    refuse_once(scripted.service, "follow", code)
    reply, error = await ask()
    assert (kind, ServerUnavailable) == (type(error), type(error.__cause__))
    assert ("A red ", 1) == (reply.text, len(script.calls))


async def test_a_chat_that_is_gone_with_its_server_is_told(ask, scripted):
    """Neither the turn nor the question that is asked again finds it."""
    script = Breaking(scripted.service, forgotten=(SERVER_ENDED,))

    def answer(request, context):
        if script.calls:
            abort(context, grpc.StatusCode.NOT_FOUND, "there is no such chat")
        yield from script.answer(request, context)

    scripted.service.answer = answer
    _, error = await ask()
    assert (NotFound, "There is no such chat.") == (type(error), str(error))


async def test_a_deadline_that_passes_in_the_waiting_is_told(ask, scripted):
    """As anywhere else: an error that is a TimeoutError, and not that of the lost connection."""
    # On a busy machine a deadline may pass before the first word.
    for seconds in (0.7, 2.0, 8.0, 32.0):
        Breaking(scripted.service, breaks=(1, *[0] * 99))
        reply, error = await ask(timeout_seconds=seconds)
        assert isinstance(error, DeadlineExceeded)
        if reply.text:
            break
    assert "A red " == reply.text


@pytest.fixture
def waits(scripted, monkeypatch):
    """Break an answer and ask for a minute; set once a client has taken that in."""
    Breaking(scripted.service)
    waits, usual, plan = threading.Event(), scripted.service.answer, Resumption.plan

    def answer(request, context):
        parts = usual(request, context)
        yield next(parts)
        yield next(parts)
        later = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=60))
        abort(context, grpc.StatusCode.UNAVAILABLE, "the server is stopping", later)

    def plan_and_tell(*arguments):
        planned = plan(*arguments)
        waits.set()
        return planned

    monkeypatch.setattr(Resumption, "plan", plan_and_tell)
    scripted.service.answer = answer
    return waits


async def test_closing_ends_the_waiting_for_another_try(scripted, waits):
    """Of the twin, at once."""
    async with AsyncClient(scripted.address, resume_seconds=99) as client:
        reply = client.start(None, "What?")
        reading = asyncio.create_task(reply.read())
        assert await asyncio.to_thread(waits.wait, PATIENCE_SECONDS)
        reply.close()
        done, _ = await asyncio.wait({reading}, timeout=PATIENCE_SECONDS)
        assert ["A red "] == [task.result() for task in done]


def test_closing_ends_the_waiting_of_a_thread(scripted, waits):
    """As of its twin."""
    with Client(scripted.address, resume_seconds=99) as client, ThreadPoolExecutor(1) as pool:
        reply = client.start(None, "What?")
        reading = pool.submit(reply.read)
        assert waits.wait(PATIENCE_SECONDS)
        reply.close()
        assert "A red " == reading.result(PATIENCE_SECONDS)
