"""Calls that have ended leave nothing behind in the client, however they ended."""

import gc
import logging
import signal
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from llavachat import CallCancelled, Client, InvalidRequest, ServerFailed
from llavachat._wire.ended import EndedCalls
from scripted_service import abort, deltas, started

PATIENCE_SECONDS = 30.0


def count_calls() -> int:
    """Calls of streams by threads that gRPC's core still holds, by the class that it has for one;
    nothing else tells."""
    gc.collect()
    return sum(type(each).__name__ == "_CallState" for each in gc.get_objects())


def call_again(client: Client) -> None:
    """Call once more, and wait for what is let go of meanwhile."""
    ended = client._channel._ended
    client.server_info()
    ended._thread.join(PATIENCE_SECONDS)
    while ended._readers:  # it was just ending
        client.server_info()
        ended._thread.join(PATIENCE_SECONDS)
    assert not ended._thread.is_alive()


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


class Ended:
    """An ended call of which something is left."""

    def __init__(self, empty=lambda: None):
        self.is_empty = False
        self._empty = empty

    def empty(self):
        """Take what is left."""
        self._empty()
        self.is_empty = True


def test_a_call_that_ends_while_the_others_are_done_is_let_go_of():
    """The thread that found nothing left is there still, and another is not begun."""
    has_looked, go_on = threading.Event(), threading.Event()

    class Readers(deque):
        def popleft(self):
            try:
                return super().popleft()
            except IndexError:
                has_looked.set()
                go_on.wait(PATIENCE_SECONDS)
                raise

    ended, late = EndedCalls(), Ended()
    ended._readers = Readers([Ended()])
    ended.release()
    assert has_looked.wait(PATIENCE_SECONDS)
    ended.add(late)
    ended.release()
    go_on.set()
    ended.close()
    assert late.is_empty


def test_ended_calls_may_be_closed_where_they_were_just_let_go_of():
    """From Python 3.12 on the garbage collection may run when all is taken and the thread is there
    still."""
    ended, errors, is_kept = EndedCalls(), [], threading.Event()

    class Taking:
        def __init__(self):
            self._lock = threading.Lock()
            self.locked = self._lock.locked

        def __enter__(self):
            self._lock.acquire()

        def __exit__(self, *_):
            self._lock.release()
            is_kept.wait(PATIENCE_SECONDS)
            try:
                ended.close()
            except RuntimeError as error:
                errors.append(error)

    ended._taking = Taking()
    ended.add(Ended())
    ended.release()
    is_kept.set()
    ended._thread.join(PATIENCE_SECONDS)
    assert [] == errors


def test_a_finalizer_may_close_a_client_where_ended_calls_are_let_go_of(client, service):
    """The garbage collection runs it on whichever thread is there."""
    service.answer = go_on
    before = count_calls()
    running = client.start(None, "Go on.")
    next(iter(running))
    ended, errors, may_close = client._channel._ended, [], threading.Event()

    def close() -> None:
        may_close.wait(PATIENCE_SECONDS)
        try:
            client.close()
        except RuntimeError as error:
            errors.append(error)

    ended.add(Ended(close))
    ended.release()
    forget(client)
    may_close.set()
    ended._thread.join(PATIENCE_SECONDS)
    assert [] == errors
    with pytest.raises(ValueError, match="closed channel"):
        client._channel._channel.unary_unary("/any")(b"")
    with pytest.raises(CallCancelled, match="closed"):
        running.read()
    del running
    assert before == count_calls()


def test_a_message_that_can_not_be_read_is_told_at_once(monkeypatch):
    """Its call goes on at the server: who waited for its end would wait for the deadline."""
    has_ended = threading.Event()

    class Garbled(grpc.GenericRpcHandler):
        def service(self, _):
            def answer(_, context):
                context.add_callback(has_ended.set)
                yield b"\xff\xff"
                has_ended.wait(PATIENCE_SECONDS)

            return grpc.unary_stream_rpc_method_handler(answer)

    # A captured record would hold the call by its frames.
    monkeypatch.setattr(logging.getLogger("grpc._common"), "disabled", True)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Garbled()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    before = count_calls()
    with Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(ServerFailed, match="deserializing"):
            client.start(None, "Hi", timeout_seconds=2 * PATIENCE_SECONDS).read()
        # By the client, which is open still.
        assert has_ended.wait(PATIENCE_SECONDS / 2)
        assert before == count_calls()
    server.stop(None).wait()


def test_a_client_is_closed_where_no_thread_can_be_begun(scripted, service, monkeypatch):
    """As by atexit, where Python begins none any more."""

    def refuse(_) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    service.answer = go_on
    client = Client(scripted.address)
    reply = client.start(None, "Go on.")
    next(iter(reply))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    client.close()
    with pytest.raises(CallCancelled, match="closed"):
        client.start(None, "Go on.")


def test_a_signals_handler_may_close_a_client_that_begins_a_call(scripted, service, monkeypatch):
    """It runs within whatever its thread does just then, locks and all."""
    service.answer = go_on
    begin = threading.Thread.start
    client = Client(scripted.address)
    forget(client)
    before = signal.signal(signal.SIGUSR1, lambda *_: client.close())

    def begin_and_close(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", begin)
        signal.raise_signal(signal.SIGUSR1)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", begin_and_close)
    try:
        with pytest.raises(CallCancelled, match="closed"):
            client.start(None, "Go on.").read()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_reply_that_a_signal_interrupted_is_cancelled(client, service):
    """gRPC has let go of its call, and to ask it for more ended in an error of its own."""
    service.answer = go_on
    reply = client.start(None, "Go on.")
    events = iter(reply)
    next(events)

    def interrupt(_, frame) -> None:
        # Not before gRPC is asked: it is raised again until then.
        if frame.f_code.co_name == "_consume_next_event":
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        # gRPC lets handlers run when it has waited for 0.2 s, and begins to count anew at a signal.
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
        with pytest.raises(KeyboardInterrupt):
            for _ in events:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(CallCancelled):
        reply.read()
