"""The contract's table of statuses, row by row, over a real socket."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from app_in_process import RunningApp, run_app, until
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.values import ContextFull, EngineUnavailable, QueueFull
from pictures import red_circle
from scripted_engine import Hold, ScriptedEngine

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = "0" * 32


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (anext(aiter(call)) if hasattr(call, "__aiter__") else call)
    return caught.value


async def end(replies: Any) -> grpc.aio.AioRpcError:
    """The error that a stream ends with, whatever comes before it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [reply async for reply in replies]
    return caught.value


def details(error: grpc.aio.AioRpcError) -> list[Any]:
    """The google.rpc details of an error."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            found = []
            for box in status_pb2.Status.FromString(value).details:
                kind = getattr(error_details_pb2, box.type_url.rpartition(".")[2])()
                assert box.Unpack(kind)
                found.append(kind)
            return found
    return []


async def health(app: RunningApp, service: str = "") -> int:
    """What a health check says."""
    stub = health_pb2_grpc.HealthStub(app.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_invalid_arguments_name_their_field() -> None:
    """A wrong field comes back with its path and what would be right."""
    async with run_app(ScriptedEngine()) as app:
        request = pb.StartChatRequest(prompt="What?", params=pb.GenerationParams(top_p=2))
        error = await failure(app.chat.StartChat(request))
        assert StatusCode.INVALID_ARGUMENT is error.code()
        ((violation,),) = [detail.field_violations for detail in details(error)]
        assert "params.top_p" == violation.field
        assert "allowed: over 0.0 to 1.0" in violation.description


async def test_bad_pictures_are_invalid_arguments() -> None:
    """What is no picture is named, with its place in the request."""
    async with run_app(ScriptedEngine()) as app:
        images = [pb.Image(data=red_circle()), pb.Image(data=b"%PDF-1.7")]
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="?", images=images)))
        assert StatusCode.INVALID_ARGUMENT is error.code()
        ((violation,),) = [detail.field_violations for detail in details(error)]
        assert "images[1].data" == violation.field
        assert "this is a PDF; send a JPEG, PNG, WebP or GIF file" == violation.description


@pytest.mark.parametrize(
    ("method", "request_", "kind"),
    [
        ("GetChat", pb.GetChatRequest(chat_id=UNKNOWN), "chat"),
        ("GetTurn", pb.GetTurnRequest(chat_id=UNKNOWN, turn_id=UNKNOWN), "chat"),
        ("CancelTurn", pb.CancelTurnRequest(chat_id=UNKNOWN, turn_id=UNKNOWN), "chat"),
        ("DeleteChat", pb.DeleteChatRequest(chat_id=UNKNOWN), "chat"),
        ("ContinueChat", pb.ContinueChatRequest(chat_id=UNKNOWN, prompt="?"), "chat"),
        ("CountTokens", pb.CountTokensRequest(chat_id=UNKNOWN, prompt="?"), "chat"),
        (
            "StartChat",
            pb.StartChatRequest(prompt="?", images=[pb.Image(image_id="0" * 64)]),
            "image",
        ),
    ],
)
async def test_unknown_things_are_not_found(method: str, request_: Any, kind: str) -> None:
    """Every method says NOT_FOUND in the same words, with what was not found."""
    async with run_app(ScriptedEngine()) as app:
        error = await failure(getattr(app.chat, method)(request_))
        assert (StatusCode.NOT_FOUND, f"there is no such {kind}") == (error.code(), error.details())
        assert [kind] == [detail.resource_type for detail in details(error)]


async def test_an_unknown_turn_is_not_found() -> None:
    """A chat that exists does not have every turn."""
    async with run_app(ScriptedEngine()) as app:
        chat_id = await app.start()
        for call in (
            app.chat.GetTurn(pb.GetTurnRequest(chat_id=chat_id, turn_id="x")),
            app.chat.CancelTurn(pb.CancelTurnRequest(chat_id=chat_id, turn_id="x")),
        ):
            error = await failure(call)
            expected = (StatusCode.NOT_FOUND, "there is no such turn")
            assert expected == (error.code(), error.details())


async def test_a_full_context_fails_its_precondition() -> None:
    """The counts come as a PreconditionFailure."""
    async with run_app(ScriptedEngine("warm", context_tokens=200)) as app:
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="word " * 300)))
        assert StatusCode.FAILED_PRECONDITION is error.code()
        ((violation,),) = [detail.violations for detail in details(error)]
        assert "CONTEXT_FULL" == violation.type
        assert "and the model's context holds 200" in violation.description


async def test_a_second_turn_in_a_chat_is_aborted() -> None:
    """While a turn runs, the next one is refused; GetTurn shows the running one meanwhile."""
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", "A circle.", hold)) as app:
        chat_id = await app.start()
        running = app.chat.ContinueChat(pb.ContinueChatRequest(chat_id=chat_id, prompt="One?"))
        replies = aiter(running)
        turn_id = (await anext(replies)).event.started.turn_id
        await hold.said.wait()
        second = app.chat.ContinueChat(pb.ContinueChatRequest(chat_id=chat_id, prompt="Two?"))
        assert StatusCode.ABORTED is (await failure(second)).code()
        read = await app.chat.GetTurn(pb.GetTurnRequest(chat_id=chat_id, turn_id=turn_id))
        assert (pb.TURN_STATE_RUNNING, "So far") == (read.turn.state, read.turn.answer)
        hold.release.set()
        events = [reply.event async for reply in replies]
        assert pb.FINISH_REASON_EOS == events[-1].finished.finish_reason


async def test_a_request_id_with_another_body_exists_already() -> None:
    """The same id with the same body gets the same turn; with another one it is refused."""
    async with run_app(ScriptedEngine()) as app:
        request = pb.StartChatRequest(prompt="What?", request_id="r1")
        first = [reply.event async for reply in app.chat.StartChat(request)]
        again = [reply.event async for reply in app.chat.StartChat(request)]
        assert first[0] == again[0]
        assert first[-1] == again[-1]
        texts = ["".join(event.delta.text for event in events) for events in (first, again)]
        assert texts[0] == texts[1]
        request.prompt = "Who?"
        assert StatusCode.ALREADY_EXISTS is (await failure(app.chat.StartChat(request))).code()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QueueFull(1.5), StatusCode.RESOURCE_EXHAUSTED),
        (EngineUnavailable(1.5), StatusCode.UNAVAILABLE),
    ],
)
async def test_what_is_full_or_away_says_when_to_come_back(
    error: Exception, code: StatusCode
) -> None:
    """The engine's refusals carry RetryInfo, and no event came before them."""
    async with run_app(ScriptedEngine("warm", error)) as app:
        refused = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        assert code is refused.code()
        assert 1_500_000_000 == details(refused)[0].retry_delay.ToNanoseconds()


async def test_an_engine_that_counts_for_itself_is_believed() -> None:
    """A ContextFull of the engine's own is told like ours."""
    async with run_app(ScriptedEngine("warm", ContextFull(5, 0, 4))) as app:
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        assert StatusCode.FAILED_PRECONDITION is error.code()


async def test_an_unknown_error_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The caller learns that it failed, the log learns why."""
    async with run_app(ScriptedEngine("warm", RuntimeError("/secret/path"))) as app:
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="a secret question")))
        assert StatusCode.INTERNAL is error.code()
        assert "the server failed on this call" == error.details()
        assert [] == details(error)
    assert "/secret/path" in caplog.text
    assert "a secret question" not in caplog.text


async def test_a_deadline_keeps_the_partial_turn() -> None:
    """A caller whose deadline passes finds what came, marked as cancelled."""
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", hold)) as app:
        call = app.chat.StartChat(pb.StartChatRequest(prompt="What?"), timeout=0.5)
        replies = aiter(call)
        started = (await anext(replies)).event.started
        assert StatusCode.DEADLINE_EXCEEDED is (await end(replies)).code()
        request = pb.GetTurnRequest(chat_id=started.chat_id, turn_id=started.turn_id)
        read = await until(
            lambda: app.chat.GetTurn(request),
            lambda reply: reply.turn.state != pb.TURN_STATE_RUNNING,
        )
        assert (pb.TURN_STATE_CANCELLED, "So far") == (read.turn.state, read.turn.answer)
        assert pb.FINISH_REASON_CANCELLED == read.turn.finish_reason


async def test_a_turn_is_cancelled_by_name() -> None:
    """Its reader is told `finished`, the caller gets the turn as it is kept."""
    hold = Hold("So far")
    engine = ScriptedEngine("warm", hold)
    async with run_app(engine) as app:
        replies = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        started = (await anext(replies)).event.started
        await hold.said.wait()
        request = pb.CancelTurnRequest(chat_id=started.chat_id, turn_id=started.turn_id)
        turn = (await app.chat.CancelTurn(request)).turn
        assert (pb.TURN_STATE_CANCELLED, "So far") == (turn.state, turn.answer)
        assert [started.turn_id] == list(engine.cancelled)
        events = [reply.event async for reply in replies]
        assert pb.FINISH_REASON_CANCELLED == events[-1].finished.finish_reason
        kept = pb.GetTurnRequest(chat_id=started.chat_id, turn_id=started.turn_id)
        assert (
            turn == (await app.chat.GetTurn(kept)).turn == (await app.chat.CancelTurn(request)).turn
        )


async def test_a_cancelled_call_ends_its_turn() -> None:
    """A caller who cancels ends the engine's work, and the chat is free again."""
    hold = Hold("So far")
    engine = ScriptedEngine("warm", hold, "Again.")
    async with run_app(engine) as app:
        call = app.chat.StartChat(pb.StartChatRequest(prompt="What?"))
        replies = aiter(call)
        started = (await anext(replies)).event.started
        await hold.said.wait()
        call.cancel()
        request = pb.GetTurnRequest(chat_id=started.chat_id, turn_id=started.turn_id)
        await until(
            lambda: app.chat.GetTurn(request),
            lambda reply: reply.turn.state == pb.TURN_STATE_CANCELLED,
        )
        assert [started.turn_id] == list(engine.cancelled)
        again = pb.ContinueChatRequest(chat_id=started.chat_id, prompt="Again?")
        events = [reply.event async for reply in app.chat.ContinueChat(again)]
        assert not events[0].started.HasField("parent_turn_id")


async def test_an_ended_turn_is_followed_and_replayed() -> None:
    """ResumeTurn tells it from a character on; ReplayTurn says that it comes out the same."""
    async with run_app(ScriptedEngine(*["A red circle."] * 3)) as app:
        chat_id = await app.start()
        turn = (await app.chat.GetChat(pb.GetChatRequest(chat_id=chat_id))).chat.turns[0]
        request = pb.ResumeTurnRequest(chat_id=chat_id, turn_id=turn.id, char_offset=6)
        events = [reply.event async for reply in app.chat.ResumeTurn(request)]
        kinds = [event.WhichOneof("event") for event in events]
        assert ["started", "delta", "finished"] == kinds
        assert ("circle.", 6) == (events[1].delta.text, events[1].delta.char_offset)
        replay = app.chat.ReplayTurn(pb.ReplayTurnRequest(chat_id=chat_id, turn_id=turn.id))
        replies = [reply async for reply in replay]
        assert "A red circle." == "".join(reply.delta.text for reply in replies)
        verdict = replies[-1].verdict
        assert verdict.identical
        assert not verdict.HasField("first_difference_token")


async def test_wrong_places_to_follow_and_replay_are_refused() -> None:
    """No ids, unknown ids, and offsets that can not be."""
    async with run_app(ScriptedEngine("Red.")) as app:
        chat_id = await app.start()
        turn = (await app.chat.GetChat(pb.GetChatRequest(chat_id=chat_id))).chat.turns[0]
        resume, replay = app.chat.ResumeTurn, app.chat.ReplayTurn
        known = {"chat_id": chat_id, "turn_id": turn.id}
        unknown = {"chat_id": chat_id, "turn_id": "0" * 32}
        for call, code in (
            (resume(pb.ResumeTurnRequest()), StatusCode.INVALID_ARGUMENT),
            (resume(pb.ResumeTurnRequest(**known, char_offset=-1)), StatusCode.INVALID_ARGUMENT),
            (resume(pb.ResumeTurnRequest(**known, char_offset=99)), StatusCode.INVALID_ARGUMENT),
            (resume(pb.ResumeTurnRequest(**unknown)), StatusCode.NOT_FOUND),
            (replay(pb.ReplayTurnRequest()), StatusCode.INVALID_ARGUMENT),
            (replay(pb.ReplayTurnRequest(**unknown)), StatusCode.NOT_FOUND),
        ):
            assert code is (await failure(call)).code()


class SlowStart(ScriptedEngine):
    """An engine that loads until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.may_start = asyncio.Event()

    async def start(self) -> None:
        """Wait."""
        await self.may_start.wait()


async def test_a_starting_server_says_so() -> None:
    """Before the first picture was answered: NOT_SERVING, and UNAVAILABLE with RetryInfo."""
    engine = SlowStart()
    async with run_app(engine, wait=False) as app:
        assert [NOT_SERVING] * 2 == [
            await health(app),
            await health(app, "llavachat.v1.ChatService"),
        ]
        error = await failure(app.chat.GetServerInfo(pb.GetServerInfoRequest()))
        assert (StatusCode.UNAVAILABLE, "the server is starting") == (error.code(), error.details())
        assert [True] == [detail.HasField("retry_delay") for detail in details(error)]
        engine.may_start.set()
        await app.app.serving
        assert 1 == len(engine.requests)
        assert 1 == len(engine.requests[0].images)
        assert [SERVING] * 2 == [await health(app), await health(app, "llavachat.v1.ChatService")]
        assert (await app.chat.GetServerInfo(pb.GetServerInfoRequest())).server_version


async def test_a_stopping_server_refuses_and_lets_turns_end() -> None:
    """While it drains: NOT_SERVING, UNAVAILABLE for new calls, the running answer goes on."""
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", hold)) as app:
        replies = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        await anext(replies)
        await hold.said.wait()
        app.app.stop()
        await until(lambda: health(app), lambda status: status == NOT_SERVING)
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="Too late?")))
        assert (StatusCode.UNAVAILABLE, "the server is stopping") == (error.code(), error.details())
        assert [True] == [detail.HasField("retry_delay") for detail in details(error)]
        hold.release.set()
        events = [reply.event async for reply in replies]
        assert pb.FINISH_REASON_EOS == events[-1].finished.finish_reason


async def test_a_stopped_server_ends_late_turns_as_unavailable() -> None:
    """After the grace period a stream ends UNAVAILABLE with RetryInfo; never CANCELLED."""
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", hold), "--grace-seconds", "0") as app:
        replies = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        await anext(replies)
        await hold.said.wait()
        app.app.stop()
        error = await end(replies)
        assert StatusCode.UNAVAILABLE is error.code()
        assert [True] == [detail.HasField("retry_delay") for detail in details(error)]


async def test_no_call_is_lost_when_the_server_ends() -> None:
    """Calls that run, that wait, and that still come in as it stops: each ends UNAVAILABLE."""
    script = ["warm", *(Hold() for _ in range(120))]
    async with run_app(ScriptedEngine(*script), "--grace-seconds", "0") as app:
        request = pb.StartChatRequest(prompt="What?")
        first = aiter(app.chat.StartChat(request, timeout=30))
        await anext(first)
        calls = [app.chat.StartChat(request, timeout=30) for _ in range(60)]
        app.app.stop()
        calls += [app.chat.StartChat(request, timeout=30) for _ in range(60)]
        errors = await asyncio.gather(*[end(call) for call in (first, *calls)])
        assert {StatusCode.UNAVAILABLE} == {error.code() for error in errors}


def write_keys(folder: Path, **keys: str) -> str:
    """A file of keys, one for each tenant; its path."""
    path = folder / "keys"
    lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}" for name, key in keys.items()]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """The header that carries a key."""
    return (("authorization", f"Bearer {key}"),)


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


async def test_reflection_is_off_unless_switched_on() -> None:
    """Reflection answers only where the operator asked for it."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with run_app(ScriptedEngine()) as app:
        stub = reflection_pb2_grpc.ServerReflectionStub(app.channel)
        error = await failure(stub.ServerReflectionInfo(iter([asked])))
        assert StatusCode.UNIMPLEMENTED is error.code()
    async with run_app(ScriptedEngine(), "--reflection") as app:
        stub = reflection_pb2_grpc.ServerReflectionStub(app.channel)
        reply = await anext(aiter(stub.ServerReflectionInfo(iter([asked]))))
        names = {service.name for service in reply.list_services_response.service}
        assert {"llavachat.v1.ChatService", "grpc.health.v1.Health"} <= names


async def test_a_message_over_the_limit_is_refused() -> None:
    """What is larger than its pictures may be is not taken in."""
    flags = ("--max-image-bytes", "2048", "--max-images-per-turn", "1")
    async with run_app(ScriptedEngine(), *flags) as app:
        images = [pb.Image(data=b"x" * 80_000)]
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="?", images=images)))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
        images = [pb.Image(data=b"x" * 3000)]
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="?", images=images)))
        assert StatusCode.INVALID_ARGUMENT is error.code()
        assert "3,000 bytes; at most 2,048" in (error.details() or "")


async def test_a_busy_port_is_told(tmp_path: Path) -> None:
    """A second server on the port does not start, and does not share it."""
    async with run_app(ScriptedEngine()) as app:
        from llavachat_server.app import StartError

        with pytest.raises(StartError, match="another program may use it"):
            async with run_app(ScriptedEngine(), "--listen", app.address):
                pass
