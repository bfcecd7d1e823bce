"""Who has no key is told nothing, and who has one sees nobody else's chats."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from app_in_process import run_app, until
from grpc import StatusCode
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from imports import endless, import_chat, read_chat
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats import arrivals
from llavachat_server.rpc import gate
from llavachat_server.rpc.places import Places
from pictures import red_circle
from rpc_calls import SERVING, bearer, failure, health, write_keys
from scripted_engine import Hold, ScriptedEngine

UNKNOWN = "0" * 32


async def test_every_method_asks_for_the_key(tmp_path: Path) -> None:
    """Walk the contract: no method answers without a right key; health does."""
    keys = write_keys(tmp_path, anna="k1")
    async with run_app(ScriptedEngine(), "--keys-file", keys, "--reflection") as app:
        service = pb.DESCRIPTOR.services_by_name["ChatService"]
        headers: list[Any] = [None, bearer("wrong"), (*bearer("k1"), *bearer("k1"))]
        for method in service.methods:
            request = getattr(pb, method.input_type.name)()
            for metadata in headers:
                sent = iter([request]) if method.client_streaming else request
                call = getattr(app.chat, method.name)(sent, metadata=metadata)
                assert StatusCode.UNAUTHENTICATED is (await failure(call)).code(), method.name
        reflection = reflection_pb2_grpc.ServerReflectionStub(app.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        error = await failure(reflection.ServerReflectionInfo(iter([asked])))
        assert StatusCode.UNAUTHENTICATED is error.code()
        unknown = app.channel.unary_unary("/llavachat.v1.ChatService/NoSuchMethod")
        assert StatusCode.UNAUTHENTICATED is (await failure(unknown(b""))).code()
        assert SERVING == await health(app)
        info = await app.chat.GetServerInfo(pb.GetServerInfoRequest(), metadata=bearer("k1"))
        assert "shapes" == info.model.profile


async def test_a_tenant_has_its_share_of_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over it is refused at the gate, and told of whom; the neighbour is let in."""
    monkeypatch.setattr(gate, "Places", partial(Places, max_of_tenant=1))
    keys = write_keys(tmp_path, anna="k1", ben="k2")
    reasons: list[str] = []
    hold = Hold()

    async def read_reasons() -> list[str]:
        return list(reasons)

    async with run_app(ScriptedEngine("warm", hold), "--keys-file", keys) as app:
        observe = app.app._gate._observe
        app.app._gate._observe = lambda report: (reasons.append(report.reason), observe(report))
        anna, ben = bearer("k1"), bearer("k2")
        running = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?"), metadata=anna))
        await anext(running)
        error = await failure(app.chat.ListChats(pb.ListChatsRequest(), metadata=anna))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
        assert "at most 1 calls of one tenant run side by side" == error.details()
        # A call is reported once it is done, which its caller may hear of before.
        assert ["tenant_calls"] == await until(read_reasons, bool)
        await app.chat.ListChats(pb.ListChatsRequest(), metadata=ben)
        hold.release.set()
        async for _ in running:
            pass

        async def ask_again() -> StatusCode:
            call = app.chat.ListChats(pb.ListChatsRequest(), metadata=anna)
            return await call.code()

        await until(ask_again, lambda code: code is StatusCode.OK)


async def test_tenants_are_apart(tmp_path: Path) -> None:
    """A chat of one tenant is to another exactly like one that never was."""
    keys = write_keys(tmp_path, anna="k1", ben="k2")
    async with run_app(ScriptedEngine(), "--keys-file", keys) as app:
        anna, ben = bearer("k1"), bearer("k2")
        start = pb.StartChatRequest(prompt="What?", images=[pb.Image(data=red_circle())])
        events = [reply.event async for reply in app.chat.StartChat(start, metadata=anna)]
        chat_id, image_id = events[0].started.chat_id, events[0].started.images[0].id
        hers = await app.chat.ListChats(pb.ListChatsRequest(), metadata=anna)
        his = await app.chat.ListChats(pb.ListChatsRequest(), metadata=ben)
        assert ([chat_id], []) == ([c.id for c in hers.chats], [c.id for c in his.chats])
        for request in (
            pb.GetChatRequest(chat_id=chat_id),
            pb.CancelTurnRequest(chat_id=chat_id, turn_id=events[0].started.turn_id),
            pb.DeleteChatRequest(chat_id=chat_id),
            pb.ContinueChatRequest(chat_id=chat_id, prompt="?"),
        ):
            method = getattr(app.chat, type(request).__name__.removesuffix("Request"))
            theirs = await failure(method(request, metadata=ben))
            request.chat_id = UNKNOWN
            nobodys = await failure(method(request, metadata=ben))
            assert (nobodys.code(), nobodys.details()) == (theirs.code(), theirs.details())
            assert StatusCode.NOT_FOUND is theirs.code()
        turn_id = events[0].started.turn_id
        for turn_request in (
            pb.GetTurnRequest(chat_id=chat_id, turn_id=turn_id),
            pb.CancelTurnRequest(chat_id=chat_id, turn_id=turn_id),
            pb.ResumeTurnRequest(chat_id=chat_id, turn_id=turn_id),
            pb.ReplayTurnRequest(chat_id=chat_id, turn_id=turn_id),
        ):
            method = getattr(app.chat, type(turn_request).__name__.removesuffix("Request"))
            theirs = await failure(method(turn_request, metadata=ben))
            turn_request.chat_id, turn_request.turn_id = UNKNOWN, UNKNOWN
            nobodys = await failure(method(turn_request, metadata=ben))
            assert (nobodys.code(), nobodys.details()) == (theirs.code(), theirs.details())
            assert StatusCode.NOT_FOUND is theirs.code()
        theirs = await failure(
            app.chat.GetImage(pb.GetImageRequest(image_id=image_id), metadata=ben)
        )
        nobodys = await failure(
            app.chat.GetImage(pb.GetImageRequest(image_id="0" * 64), metadata=ben)
        )
        assert (nobodys.code(), nobodys.details()) == (theirs.code(), theirs.details())
        assert StatusCode.NOT_FOUND is theirs.code()
        hers_again = app.chat.GetImage(pb.GetImageRequest(image_id=image_id), metadata=anna)
        assert b"\x89PNG" == b"".join([part.data async for part in hers_again])[:4]
        named = pb.StartChatRequest(prompt="What?", images=[pb.Image(image_id=image_id)])
        assert (
            StatusCode.NOT_FOUND is (await failure(app.chat.StartChat(named, metadata=ben))).code()
        )
        again = [reply.event async for reply in app.chat.StartChat(named, metadata=anna)]
        assert events[0].started.images[0].id == again[0].started.images[0].id


async def test_imports_that_do_not_come_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tenants hold all places with a first message each; a third one's chat comes in."""
    monkeypatch.setattr(arrivals, "LATE_SECONDS", 1e-9)
    keys = write_keys(tmp_path, anna="k1", ben="k2", carl="k3")
    async with run_app(ScriptedEngine(), "--keys-file", keys) as app:
        request = pb.StartChatRequest(prompt="What?")
        carl = bearer("k3")
        replies = [reply async for reply in app.chat.StartChat(request, metadata=carl)]
        chat = await read_chat(app.chat, replies[0].event.started.chat_id, metadata=carl)
        running = app.app._importer._arrivals._running
        held = []
        for number, key in enumerate(("k1", "k2"), 1):
            held.append(app.chat.ImportChat(endless(chat), metadata=bearer(key)))

            async def count() -> int:
                return sum(arrival.count_late_seconds() > 0 for arrival in running.values())

            await until(count, lambda count, number=number: count == number)
        taken = await import_chat(app.chat, chat, metadata=carl)
        error = await failure(held[0])
        held[1].cancel()
    assert 1 == len(taken.turns)
    assert StatusCode.DEADLINE_EXCEEDED is error.code()
