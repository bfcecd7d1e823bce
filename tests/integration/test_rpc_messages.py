"""Requests that are none: unreadable, missing, late. Each is told in our words."""

import asyncio
from typing import Any

import grpc.aio
import later_shield
import pytest
from app_in_process import run_app, until
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.rpc import access, limits
from rpc_calls import SERVING, details, failure
from scripted_engine import ScriptedEngine

SERVICE = pb.DESCRIPTOR.services_by_name["ChatService"]
TRUNCATED = b"\x0a\xff"
"""A field of 255 bytes that are not there."""


@pytest.mark.parametrize("body", [TRUNCATED, b"\x00", b"\xff" * 100])
async def test_what_is_no_message_is_told(body: bytes) -> None:
    """INVALID_ARGUMENT for every method, with the field, and never an exception's text."""
    async with run_app(ScriptedEngine()) as app:
        for method in SERVICE.methods:
            call = app.channel.stream_stream(f"/{SERVICE.full_name}/{method.name}")
            error = await failure(call(iter([body])))
            assert StatusCode.INVALID_ARGUMENT is error.code(), (method.name, error.details())
            assert ["request"] == [v.field for v in details(error)[0].field_violations]
            for word in ("DecodeError", "Error parsing", "Unexpected", "Traceback"):
                assert word not in (error.details() or "")


async def test_no_message_at_all_is_told() -> None:
    """A request that ends before it began."""
    async with run_app(ScriptedEngine()) as app:
        for method in SERVICE.methods:
            call = app.channel.stream_stream(f"/{SERVICE.full_name}/{method.name}")
            error = await failure(call(iter(())))
            assert StatusCode.INVALID_ARGUMENT is error.code(), (method.name, error.details())


async def test_health_answers_in_our_words_too() -> None:
    """An unreadable check is no exception's business."""
    async with run_app(ScriptedEngine()) as app:
        check = app.channel.unary_unary("/grpc.health.v1.Health/Check")
        error = await failure(check(TRUNCATED))
        assert StatusCode.INVALID_ARGUMENT is error.code()
        assert "DecodeError" not in (error.details() or "")


async def test_what_is_too_long_for_its_method_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused by its length, health checks too, and counts as a call that came to nothing."""
    spoilt: list[str] = []
    monkeypatch.setattr(
        "llavachat_server.rpc.floods.Floods.note", lambda _, peer: spoilt.append(peer)
    )
    small = {name: rule for name, rule in access.RULES.items() if rule.max_request_bytes}
    reflection = {name for name in small if "Reflection" in name}
    assert {4096, 65_536} == {rule.max_request_bytes for rule in small.values()}
    async with run_app(ScriptedEngine()) as app:
        for name in small.keys() - reflection:
            most = small[name].max_request_bytes or 0
            call = app.channel.stream_stream(name)
            # A number that nobody knows, again and again, which protobuf would read.
            body = b"\xc0\x3e\x00" * (most // 3 + 1)
            error = await failure(call(iter([body])))
            assert StatusCode.INVALID_ARGUMENT is error.code(), (name, error.details())
            assert f"request: has {len(body):,} bytes; at most {most:,} here" == error.details()
        assert len(small) - len(reflection) == len(spoilt)


@pytest.mark.parametrize("name", [name for name, rule in access.RULES.items() if rule.unpacked])
async def test_what_would_take_much_memory_is_not_read(name: str) -> None:
    """Two million empty entries are refused before they are made."""
    async with run_app(ScriptedEngine()) as app:
        call = app.channel.stream_stream(name)
        error = await failure(call(iter([b"\xc2\x3e\x00" * 2_000_000])))
        assert StatusCode.INVALID_ARGUMENT is error.code()
        assert "request: has far more fields than any that is taken" == error.details()


async def test_a_request_that_never_comes_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is opened and left so gives its place back, and strangers fill no log by it."""
    # Of Python 3.14, which tells the event loop of errors that nobody waits for any more.
    monkeypatch.setattr(asyncio, "shield", later_shield.shield)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    name = f"/{SERVICE.full_name}/GetChat"
    monkeypatch.setitem(access.RULES, name, access.Rule(access.RULES[name].scopes, False, 0.2))
    forever = asyncio.Event()

    async def say_nothing() -> Any:
        await forever.wait()
        yield b""

    async with run_app(ScriptedEngine()) as app:
        call = app.channel.stream_stream(name)
        error = await failure(call(say_nothing(), timeout=20))
        assert StatusCode.DEADLINE_EXCEEDED is error.code()
        assert "the request was not here within 0.2 s" == error.details()
        forever.set()
    # The server has stopped, and its calls with it.
    assert [] == told


async def test_watches_of_health_do_not_take_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """They need no key and never end: above a number they are refused; checks go on."""
    monkeypatch.setattr("llavachat_server.rpc.gate.MAX_HEALTH_WATCHES", 3)
    assert limits.MAX_HEALTH_WATCHES < limits.MAX_RUNNING_CALLS / 2
    async with run_app(ScriptedEngine()) as app:
        stub = health_pb2_grpc.HealthStub(app.channel)
        request = health_pb2.HealthCheckRequest()
        watches = [stub.Watch(request) for _ in range(3)]
        assert [SERVING] * 3 == [(await anext(aiter(watch))).status for watch in watches]
        error = await failure(stub.Watch(request))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
        assert SERVING == (await stub.Check(request)).status
        watches[0].cancel()

        async def watch_once() -> StatusCode:
            watch = stub.Watch(request)
            try:
                await anext(aiter(watch))
            except grpc.aio.AioRpcError as refused:
                return refused.code()
            watch.cancel()
            return StatusCode.OK

        await until(watch_once, lambda code: code is StatusCode.OK)
        for watch in watches:
            watch.cancel()
