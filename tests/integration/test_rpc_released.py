"""A call that has ended holds its request no more, however it ended: no collector has to come.

The callers here send bytes, so that every request that is found is the server's.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from app_in_process import RunningApp, run_app
from google.protobuf.message import Message
from grpc import StatusCode
from llavachat.v1 import chat_pb2 as pb
from rpc_calls import end, failure
from scripted_engine import Hold, ScriptedEngine

SERVICE = pb.DESCRIPTOR.services_by_name["ChatService"]
METHODS = [method.name for method in SERVICE.methods if method.name != "GetServerInfo"]
REFUSED = {
    "ImportChat": pb.ImportChatRequest(chat=pb.Chat(turns=[pb.Turn()])).SerializeToString(),
    "ListChats": pb.ListChatsRequest(page_size=-1).SerializeToString(),
}
"""What is wrong for these two; for the others a request without any field is."""
QUESTION = pb.StartChatRequest(prompt="What is this?").SerializeToString()


@contextmanager
def collecting_nothing() -> Iterator[list[Message]]:
    """Afterwards the list has the requests that came meanwhile and are still held."""
    found: list[Message] = []
    before = list_requests()
    gc.collect()
    gc.disable()
    try:
        yield found
        found += [each for each in list_requests() if all(each is not one for one in before)]
    finally:
        gc.enable()


def list_requests() -> list[Message]:
    """All that anything holds."""
    held = gc.get_referents(*gc.get_objects())
    return [each for each in held if issubclass(type(each), Message) and is_request(each)]


def is_request(message: Message) -> bool:
    """Whether a call begins with it."""
    return message.DESCRIPTOR.file is pb.DESCRIPTOR and message.DESCRIPTOR.name.endswith("Request")


def call(app: RunningApp, name: str, request: bytes) -> object:
    """Call a method."""
    return app.channel.unary_stream(f"/{SERVICE.full_name}/{name}")(request)


@pytest.mark.parametrize("name", METHODS)
async def test_a_refused_call_lets_go(name: str) -> None:
    """Of its request, which may be four pictures."""
    with collecting_nothing() as held:
        async with run_app(ScriptedEngine()) as app:
            error = await failure(call(app, name, REFUSED.get(name, b"")))
            assert StatusCode.INVALID_ARGUMENT is error.code()
    assert [] == held


async def test_a_call_for_what_is_not_there_lets_go() -> None:
    """Its refusal comes from the store, in whose frames the request is not."""
    request = pb.GetChatRequest(chat_id="nowhere").SerializeToString()
    with collecting_nothing() as held:
        async with run_app(ScriptedEngine()) as app:
            error = await failure(call(app, "GetChat", request))
            assert StatusCode.NOT_FOUND is error.code()
    assert [] == held


async def test_a_call_that_failed_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error that nobody foresaw."""
    # pytest would keep what is logged, with the error's frames.
    monkeypatch.setattr(logging.root, "handlers", [])
    with collecting_nothing() as held:
        engine = ScriptedEngine()
        async with run_app(engine) as app:
            engine.script.append(RuntimeError("no model"))
            error = await end(call(app, "StartChat", QUESTION))
            assert StatusCode.INTERNAL is error.code()
    assert [] == held


async def test_a_call_that_was_left_lets_go() -> None:
    """Its caller cancels it in the middle of an answer."""
    hold = Hold()
    with collecting_nothing() as held:
        engine = ScriptedEngine()
        async with run_app(engine) as app:
            engine.script.append(hold)
            left = app.channel.unary_stream(f"/{SERVICE.full_name}/StartChat")(QUESTION)
            await hold.said.wait()
            left.cancel()
            hold.release.set()
    assert [] == held
