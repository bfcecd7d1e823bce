"""Calls that have ended leave nothing behind in the client, however they ended."""

import gc
import threading

import grpc
import pytest
from llavachat import Client, InvalidRequest
from scripted_service import abort, deltas, started

PATIENCE_SECONDS = 30.0


def count_calls() -> int:
    """Calls of streams by threads that gRPC's core still holds, by the class that it has for one;
    nothing else tells."""
    gc.collect()
    return sum(type(each).__name__ == "_CallState" for each in gc.get_objects())


def call_again(client: Client) -> None:
    """Call once more, and wait for what is let go of meanwhile."""
    client.server_info()
    letting_go = client._channel._ended._thread
    letting_go.join(PATIENCE_SECONDS)
    assert not letting_go.is_alive()


def go_on(_, context):
    """An answer that ends with its call."""
    has_ended = threading.Event()
    yield started()
    yield from deltas("So far")
    if context.add_callback(has_ended.set):
        has_ended.wait(PATIENCE_SECONDS)


def leave_block(client: Client) -> None:
    """An answer that is stopped in the middle."""
    with client.start(None, "Go on.") as reply:
        next(iter(reply))


def forget(client: Client) -> None:
    """An answer of which a part is read."""
    next(iter(client.start(None, "Go on.")))


def read_nothing(client: Client) -> None:
    """A question whose answer nobody looks at."""
    client.start(None, "Go on.")


def close_elsewhere(client: Client) -> None:
    """An answer that one thread reads and another closes."""
    reply = client.start(None, "Go on.")
    has_begun = threading.Event()

    def read() -> None:
        for _ in reply:
            has_begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert has_begun.wait(PATIENCE_SECONDS)
    reply.close()
    reader.join(PATIENCE_SECONDS)


ENDS = [leave_block, forget, read_nothing, close_elsewhere]


@pytest.mark.parametrize("end", ENDS)
def test_grpc_lets_go_of_an_ended_stream(end, client, service):
    """gRPC itself would keep each until the process ends, with the question's pictures."""
    service.answer = go_on
    before = count_calls()
    running = client.start(None, "Go on.")
    next(iter(running))
    assert before + 1 == count_calls()
    for _ in range(3):
        end(client)
    call_again(client)
    assert before + 1 == count_calls()
    running.close()
    del running
    call_again(client)
    assert before == count_calls()


def test_grpc_lets_go_of_a_refused_stream(client, service):
    """Whoever is told why nothing comes has read the end."""

    def refuse(_, context):
        abort(context, grpc.StatusCode.INVALID_ARGUMENT, "no")
        yield

    service.answer = refuse
    before = count_calls()
    with pytest.raises(InvalidRequest):
        client.start(None, "What is this?").read()
    assert before == count_calls()


def test_a_closed_client_leaves_no_stream(scripted, service):
    """Also of an answer that somebody had until then, and that nobody reads to its end."""
    service.answer = go_on
    before = count_calls()
    with Client(scripted.address) as client:
        reply = client.start(None, "Go on.")
        next(iter(reply))
    del reply
    assert before == count_calls()
    client.close()
