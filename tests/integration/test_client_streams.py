"""How an answer streams to `Client`: pieces, events, ends, failures and cancellation."""

import math
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from llavachat import (
    ContextTrimmed,
    Delta,
    Finished,
    FinishReason,
    IncompleteReply,
    LimitReached,
    Queued,
    ServerUnavailable,
    Started,
)
from llavachat.v1 import chat_pb2, error_details_pb2
from PIL import Image
from scripted_service import (
    abort,
    answer_until_cancelled,
    deltas,
    finished,
    queued,
    started,
)

RED = Image.new("RGB", (8, 8), "red")


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


def test_a_place_in_the_line_is_told_once(client, service):
    """A server tells it again every few seconds, which is no news."""

    def answer(request, context):
        yield started()
        yield from (queued(2), queued(2), queued(1), queued(1))
        yield from deltas("Yes.")
        yield finished()

    service.answer = answer
    events = client.start(None, "Is it?").events()
    assert [2, 1] == [event.position for event in events if isinstance(event, Queued)]


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


def test_closing_early_cancels_the_call(client, service):
    """Leaving the block stops the server, and what came is kept."""
    service.answer = answer_until_cancelled(service)
    with client.start(None, "Go on.") as reply:
        next(iter(reply))
    assert service.cancelled.wait(60)
    assert FinishReason.CANCELLED is reply.finish_reason
    assert "more " == reply.text


def test_closing_from_another_thread_ends_the_iteration(client, service):
    """What a Ctrl-C handler does: the loop just ends, without an error."""
    service.answer = answer_until_cancelled(service)
    reply = client.start(None, "Go on.")
    closer = threading.Thread(target=reply.close)
    texts: list[str] = []
    for text in reply:
        if not texts:
            closer.start()
        texts.append(text)
    closer.join()
    assert {"more "} == set(texts)
    assert FinishReason.CANCELLED is reply.finish_reason
    assert service.cancelled.wait(60)


def test_forgetting_a_reply_cancels_the_call(client, service):
    """A reply that nobody holds does not keep the server busy."""
    service.answer = answer_until_cancelled(service)
    reply = client.start(None, "Go on.")
    next(iter(reply))
    del reply
    assert service.cancelled.wait(60)


def test_a_stream_without_its_last_event_is_told(client, service):
    """An answer that just ends may be cut short, and is not passed off as whole."""
    service.answer = lambda request, context: iter([started(), *deltas("A red")])
    reply = client.start(None, "What?")
    with pytest.raises(IncompleteReply):
        reply.read()
    assert "A red" == reply.text


@pytest.mark.parametrize("tell", ["send_initial_metadata", "set_trailing_metadata"])
def test_an_answer_s_metadata_are_not_the_call_s(client, service, tell):
    """Too much of them is told, and not as if the caller had sent it."""

    def answer(request, context):
        getattr(context, tell)((("x-much", "a" * 20_000),))
        yield started()
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    service.answer = answer
    sentence = r"^The server's answer came with more metadata than can be taken\.$"
    with pytest.raises(LimitReached, match=sentence):
        client.start(None, "What?").read()
    with pytest.raises(LimitReached, match=sentence):
        client.start(None, "What?", metadata={"x": "little"}).read()


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


def test_no_deadline_means_none(client, service):
    """`math.inf` sends no deadline; a number sends that one."""
    left = []

    def answer(request, context):
        left.append(context.time_remaining())
        yield started()
        yield finished()

    service.answer = answer
    client.start(None, "What?", timeout_seconds=math.inf).read()
    client.start(None, "What?", timeout_seconds=200).read()
    client.start(None, "What?").read()
    assert left[0] is None or left[0] > 1e6
    assert 100 < left[1] < 201
    assert 0 < left[2] < 21


def test_the_deadline_ends_a_slow_answer(client, service):
    """DeadlineExceeded is a TimeoutError, and what came is kept."""
    service.answer = answer_until_cancelled(service)
    # On a busy machine a deadline may pass before the first word.
    for seconds in (0.3, 2.0, 8.0, 32.0):
        began = time.monotonic()
        reply = client.start(None, "Go on.", timeout_seconds=seconds)
        with pytest.raises(TimeoutError, match="timeout_seconds"):
            reply.read()
        assert time.monotonic() - began < seconds + 30
        if reply.text:
            break
    assert reply.text.startswith("more ")
