"""A call that has ended holds its request no more, however it ended: no collector has to come.

The callers here send bytes, so that every request that is found is the server's.
"""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
from app_in_process import RunningApp, run_app, until
from google.protobuf.message import Message
from grpc import StatusCode
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.question import Question
from llavachat_server.values import EngineEvent, EngineFailed, EngineRequest
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
    """All that anything holds, but for modules, whose tables are among the rest.

    To ask asyncio's own frees what is free already (github.com/python/cpython/issues/122695, until
    Python 3.12.6), so that the tests crash or hang.
    """
    holders = [each for each in gc.get_objects() if not issubclass(type(each), ModuleType)]
    held = gc.get_referents(*holders)
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


class LateFailure(ScriptedEngine):
    """Fails once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_fail = asyncio.Event(), asyncio.Event()
        self.fails = False

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See `Engine.generate`; the first answers, for the server's start, are whole."""
        if self.fails:
            self.is_asked.set()
            await self.may_fail.wait()
            raise EngineFailed
        async for event in super().generate(request):
            yield event


def list_questions() -> list[Question]:
    """All that anything holds."""
    return [each for each in gc.get_objects() if type(each) is Question]


async def until_left(app: RunningApp) -> None:
    """Wait until nobody follows the turn that runs."""
    (live,) = app.app._turns._tasks

    async def follows() -> bool:
        return live.is_followed

    await until(follows, lambda is_followed: not is_followed)


async def until_over(app: RunningApp) -> None:
    """Wait until no turn runs."""

    async def count_turns() -> int:
        return len(app.app._turns._tasks)

    await until(count_turns, lambda number: number == 0)


async def test_a_turn_that_fails_for_nobody_lets_go() -> None:
    """Its caller left before, so that no call has its error, whose frames hold the question."""
    engine = LateFailure()
    async with run_app(engine) as app:
        engine.fails = True
        before = list_questions()
        gc.collect()
        gc.disable()
        try:
            left = call(app, "StartChat", QUESTION)
            await engine.is_asked.wait()
            left.cancel()
            await until_left(app)
            engine.may_fail.set()
            await until_over(app)
            assert len(before) == len(list_questions())
        finally:
            gc.enable()
