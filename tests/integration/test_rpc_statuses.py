"""The contract's table of statuses, row by row, over a real socket."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from app_in_process import run_app, until
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.importer import MAX_FILE_BYTES
from llavachat_server.values import ContextFull, EngineUnavailable, QueueFull
from pictures import red_circle
from rpc_calls import details, end, failure
from scripted_engine import Hold, ScriptedEngine

UNKNOWN = "0" * 32


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


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_turn_that_went_with_its_server_is_told_from_an_erased_one(
    store: str, tmp_path: Path
) -> None:
    """By when its server started, which one tells that keeps chats in its memory."""
    flags = ("--store", store, "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine("warm", "A circle."), *flags) as app:
        request = pb.StartChatRequest(prompt="What is this?")
        events = [reply.event async for reply in app.chat.StartChat(request)]
        begun = events[0].started
        info = await app.chat.GetServerInfo(pb.GetServerInfoRequest())
        expected = info.start_time if store == "memory" else Timestamp()
        assert expected == begun.server_start_time
        resume = pb.ResumeTurnRequest(chat_id=begun.chat_id, turn_id=begun.turn_id)
        resume.server_start_time.CopyFrom(info.start_time)
        await app.chat.DeleteChat(pb.DeleteChatRequest(chat_id=begun.chat_id))
        kinds = []
        for seconds in (0, 1):
            resume.server_start_time.seconds -= seconds
            error = await failure(app.chat.ResumeTurn(resume))
            assert StatusCode.NOT_FOUND is error.code()
            kinds.append([type(detail).__name__ for detail in details(error)])
        assert [["ResourceInfo"], ["ResourceInfo", "PreconditionFailure"]] == kinds
        resume.ClearField("server_start_time")
        error = await failure(app.chat.ResumeTurn(resume))
        assert ["ResourceInfo"] == [type(detail).__name__ for detail in details(error)]


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


async def test_a_full_chat_fails_its_precondition(tmp_path: Path) -> None:
    """However long one waits: no time to come back is told, and another chat can be begun."""
    for store in ("memory", "sqlite"):
        flags = ("--store", store, "--state-folder", str(tmp_path), "--max-turns-per-chat", "1")
        async with run_app(ScriptedEngine(*["Yes."] * 4), *flags) as app:
            chat_id = await app.start()
            request = pb.ContinueChatRequest(chat_id=chat_id, prompt="And?")
            error = await failure(app.chat.ContinueChat(request))
            expected = "this chat has 1 turns, the most it may have; start a new one"
            assert (StatusCode.FAILED_PRECONDITION, expected) == (error.code(), error.details())
            ((violation,),) = [detail.violations for detail in details(error)]
            assert ("CHAT_FULL", "chat_id") == (violation.type, violation.subject)
            assert await app.start()


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


async def test_long_ids_are_told_as_wrong() -> None:
    """However long: the answer is our own words, which fit into a status."""
    long = "z" * 9000
    async with run_app(ScriptedEngine()) as app:
        chat_id = await app.start()
        names = {"chat_id": chat_id, "turn_id": long}
        image = pb.Image(image_id=long)
        for call, field in (
            (
                app.chat.ContinueChat(
                    pb.ContinueChatRequest(chat_id=chat_id, prompt="?", parent_turn_id=long)
                ),
                "parent_turn_id",
            ),
            (
                app.chat.CountTokens(
                    pb.CountTokensRequest(chat_id=chat_id, prompt="?", parent_turn_id=long)
                ),
                "parent_turn_id",
            ),
            (app.chat.GetChat(pb.GetChatRequest(chat_id=long)), "chat_id"),
            (app.chat.GetTurn(pb.GetTurnRequest(**names)), "turn_id"),
            (app.chat.CancelTurn(pb.CancelTurnRequest(**names)), "turn_id"),
            (app.chat.ResumeTurn(pb.ResumeTurnRequest(**names)), "turn_id"),
            (app.chat.ReplayTurn(pb.ReplayTurnRequest(**names)), "turn_id"),
            (app.chat.DeleteChat(pb.DeleteChatRequest(chat_id=long)), "chat_id"),
            (app.chat.GetImage(pb.GetImageRequest(image_id=long)), "image_id"),
            (
                app.chat.StartChat(pb.StartChatRequest(prompt="?", images=[image])),
                "images[0].image_id",
            ),
            (
                app.chat.StartChat(pb.StartChatRequest(prompt="?", request_id=long)),
                "request_id",
            ),
            (app.chat.ListChats(pb.ListChatsRequest(page_token=long)), "page_token"),
            (app.chat.ListChats(pb.ListChatsRequest(labels={long: long})), "labels"),
        ):
            error = await failure(call)
            assert StatusCode.INVALID_ARGUMENT is error.code(), (field, error.details())
            assert [field] == [each.field for each in details(error)[0].field_violations]


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


async def test_a_chat_whose_pictures_fill_the_context_is_at_its_end() -> None:
    """Turns may be left out, and nothing is advised that would not help."""
    async with run_app(ScriptedEngine("warm", context_tokens=200)) as app:
        chat_id = await app.start(images=[pb.Image(data=red_circle())])
        more = pb.ContinueChatRequest(
            chat_id=chat_id,
            prompt="And?",
            images=[pb.Image(data=red_circle())] * 2,
            overflow_policy=pb.OVERFLOW_POLICY_DROP_OLDEST_TURNS,
        )
        error = await failure(app.chat.ContinueChat(more))
        assert StatusCode.FAILED_PRECONDITION is error.code()
        expected = "; the chat's pictures take 192 of 200 tokens; start a new chat with fewer"
        assert error.details().endswith(expected)


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
    deadlines = (0.5, 2.0, 8.0, 32.0)
    async with run_app(ScriptedEngine("warm", *(Hold("So far") for _ in deadlines))) as app:
        for seconds in deadlines:
            # On a busy machine one may pass before the turn has begun.
            call = app.chat.StartChat(pb.StartChatRequest(prompt="What?"), timeout=seconds)
            replies = aiter(call)
            with suppress(grpc.aio.AioRpcError):
                started = (await anext(replies)).event.started
                break
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
    """What is larger than any picture that goes in or out is not taken in."""
    flags = ("--max-image-bytes", "2048", "--max-images-per-turn", "1")
    async with run_app(ScriptedEngine(), *flags) as app:
        images = [pb.Image(data=bytes(MAX_FILE_BYTES + 1_000_000))]
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="?", images=images)))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
        images = [pb.Image(data=b"x" * 3000)]
        error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="?", images=images)))
        assert StatusCode.INVALID_ARGUMENT is error.code()
        assert "3,000 bytes; at most 2,048" in (error.details() or "")


async def test_a_tiny_temperature_is_told_as_what_was_used() -> None:
    """The params of TurnStarted say 0."""
    request = pb.StartChatRequest(prompt="?", params=pb.GenerationParams(temperature=1e-45))
    engine = ScriptedEngine()
    async with run_app(engine) as app:
        events = [reply.event async for reply in app.chat.StartChat(request)]
        assert 0.0 == events[0].started.params.temperature
        assert 0.0 == engine.requests[-1].sampling.temperature
