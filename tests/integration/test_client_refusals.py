"""What gRPC refuses by itself, before llavachat's code has a say, each by a real server over a real
socket, and the sentence that the client makes of it: the table of docs/security.md."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import grpc.aio
import pytest
from app_in_process import RunningApp, run_app, until
from llavachat import (
    AsyncClient,
    CannotConnect,
    DeadlineExceeded,
    LimitReached,
    NotSupported,
    ServerUnavailable,
)
from llavachat._wire.status import read_rpc_error
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server import listener
from llavachat_server.chats.errors import StoreUnavailable
from llavachat_server.rpc import limits, service
from scripted_engine import Hold, ScriptedEngine

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

Patch = pytest.MonkeyPatch
ABSENT = "This server does not have this method."


def shorten(patch: Patch, name: str, value: int) -> None:
    """Another value for one of gRPC's arguments."""
    changed = [replace(a, value=value) if a.name == name else a for a in limits.ARGUMENTS]
    assert tuple(changed) != limits.ARGUMENTS
    patch.setattr(limits, "ARGUMENTS", tuple(changed))


@asynccontextmanager
async def answering(app: RunningApp, hold: Hold) -> AsyncIterator[None]:
    """While an answer is under way on a connection of its own."""
    async with AsyncClient(app.address) as client:
        reading = asyncio.create_task(client.start(None, "What?").read())
        await hold.said.wait()
        yield
        reading.cancel()
        await asyncio.wait({reading})


async def long_message(app: RunningApp, _: Hold) -> None:
    """A question of 60 MB."""
    async with AsyncClient(app.address) as client:
        await client.count_tokens(None, "a" * 60_000_000)


async def long_once_unpacked(app: RunningApp, _: Hold) -> None:
    """A question of 60 MB, packed to 60 kB."""
    request = pb.CountTokensRequest(prompt="a" * 60_000_000)
    await app.chat.CountTokens(request, compression=grpc.Compression.Gzip)


async def much_metadata(app: RunningApp, _: Hold) -> None:
    """A header of 20 kB."""
    async with AsyncClient(app.address, metadata={"x-much": "a" * 20_000}) as client:
        await client.server_info()


async def too_many_calls(app: RunningApp, hold: Hold) -> None:
    """A second call where the server takes one."""
    async with answering(app, hold), AsyncClient(app.address) as client:
        await client.server_info()


async def too_many_streams(app: RunningApp, hold: Hold) -> None:
    """A second call on a connection that may have one: gRPC waits for the first to end."""
    async with AsyncClient(app.address) as client:
        reading = asyncio.create_task(client.start(None, "What?").read())
        await hold.said.wait()
        try:
            await client.server_info(timeout_seconds=0.5)
        finally:
            reading.cancel()
            await asyncio.wait({reading})


async def too_many_connections(app: RunningApp, _: Hold) -> None:
    """A second connection where the server takes one."""
    assert (await app.chat.GetServerInfo(pb.GetServerInfoRequest())).device
    async with AsyncClient(app.address) as client:
        await client.server_info(timeout_seconds=30)


async def unknown_method(app: RunningApp, _: Hold) -> None:
    """As a client of a later release would call it."""
    await app.channel.unary_unary("/llavachat.v1.ChatService/Sing")(b"")  # type: ignore[type-var]


async def unknown_service(app: RunningApp, _: Hold) -> None:
    """Something else than llavachat is looked for."""
    await app.channel.unary_unary("/another.Service/Sing")(b"")  # type: ignore[type-var]


async def too_many_pings(app: RunningApp, hold: Hold) -> None:
    """A client that asks every second whether the server lives, while it waits for an answer."""
    options = [
        ("grpc.keepalive_time_ms", 1_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(app.address, options) as channel:
        request = pb.StartChatRequest(prompt="What?")
        async for _ in chat_pb2_grpc.ChatServiceStub(channel).StartChat(request):
            pass


async def no_answer_in_time(app: RunningApp, _: Hold) -> None:
    """An answer that does not come to its end."""
    async with AsyncClient(app.address) as client:
        await client.start(None, "What?", timeout_seconds=0.5).read()


def set_none(_: Patch) -> None:
    """As it is."""


def set_calls(patch: Patch) -> None:
    """One call at a time."""
    patch.setattr(listener, "MAX_RUNNING_CALLS", 1)


def set_connections(patch: Patch) -> None:
    """One connection at a time."""
    patch.setattr(limits, "count_connections", lambda: 1)


LOST = (
    r"^The connection to ADDRESS was lost: the server was asked too often .+ keepalive_seconds\.$"
)
CLOSED = (
    r"^No llavachat server answers at ADDRESS \(it closed the connection at once; .+ too many\)"
)
REFUSALS = [
    (long_message, set_none, LimitReached, r"^A message of 60,000,\d+ bytes is over the limit of "),
    (long_once_unpacked, set_none, LimitReached, "^The message is over .+ once it is unpacked; "),
    (
        much_metadata,
        set_none,
        LimitReached,
        r"^The call's metadata is too large; send less of it\.$",
    ),
    (too_many_calls, set_calls, LimitReached, "^The server answers as many calls as it can; try "),
    (
        too_many_streams,
        lambda patch: shorten(patch, "grpc.max_concurrent_streams", 1),
        DeadlineExceeded,
        r"^The answer did not come within timeout_seconds\.$",
    ),
    (too_many_connections, set_connections, CannotConnect, CLOSED),
    (unknown_method, set_none, NotSupported, f"^{ABSENT}$"),
    (unknown_service, set_none, NotSupported, f"^{ABSENT}$"),
    (
        too_many_pings,
        lambda patch: shorten(patch, "grpc.http2.max_ping_strikes", 1),
        ServerUnavailable,
        LOST,
    ),
    (no_answer_in_time, set_none, DeadlineExceeded, r"^The answer did not come within timeout_sec"),
]


@pytest.mark.parametrize(
    ("provoke", "change", "kind", "sentence"), REFUSALS, ids=[each[0].__name__ for each in REFUSALS]
)
async def test_each_refusal_is_a_sentence(provoke, change, kind, sentence, monkeypatch) -> None:
    """Of the class that fits; and the server answers the next call."""
    change(monkeypatch)
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", hold, "More"), "--abandon-grace-seconds", "0") as app:
        with pytest.raises((kind, grpc.RpcError)) as caught:
            await provoke(app, hold)
        error = caught.value
        if isinstance(error, grpc.RpcError):
            error = read_rpc_error(error, address=app.address)
        assert kind is type(error)
        assert error.details is not None
        with pytest.raises(kind, match=sentence.replace("ADDRESS", app.address)):
            raise error
        # Once the call that took the place has ended there, too.
        assert await until(lambda: is_serving(app), bool)


async def is_serving(app: RunningApp) -> bool:
    """Whether the server's health is answered now, as that it serves."""
    try:
        answer: bytes = await app.channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    except grpc.RpcError:
        return False
    return answer == b"\x08\x01"


async def test_an_idle_connection_s_end_is_not_noticed(monkeypatch: Patch) -> None:
    """The server takes back what is not used; the next call opens another, and says nothing."""
    shorten(monkeypatch, "grpc.max_connection_idle_ms", 300)
    async with run_app(ScriptedEngine()) as app, AsyncClient(app.address) as client:
        assert (await client.server_info()).device
        await client._channel._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert (await client.server_info()).device


@pytest.mark.parametrize(("waited_seconds", "num_calls"), [(0.0, 1), (60.0, 4)])
async def test_what_the_server_has_waited_for_is_not_tried_again(
    monkeypatch: Patch, waited_seconds: float, num_calls: int
) -> None:
    """By its own word: each try would wait as long again. A store that fails at once is tried."""
    monkeypatch.setattr(service, "WAITED_SECONDS", waited_seconds)
    calls: list[str] = []

    async def fail(tenant: str, _: object) -> None:
        calls.append(tenant)
        raise StoreUnavailable(2.0)

    async with run_app(ScriptedEngine()) as app, AsyncClient(app.address) as client:
        monkeypatch.setattr(app.app._service.desk.store, "list_chats", fail)
        with pytest.raises(ServerUnavailable) as caught:
            [chat async for chat in client.chats()]
    assert num_calls == len(calls)
    assert 2.0 == caught.value.retry_after_seconds
