"""What callers hear while the server starts and stops."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from app_in_process import PATIENCE_SECONDS, RunningApp, run_app, until
from attacker import EMPTY_MESSAGE, PREFACE, WATCH, Connection, data, join
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import Frame, PingFrame, SettingsFrame
from imports import read_export
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server import app as app_module
from llavachat_server.endings import StartError
from llavachat_server.rpc.call import Call
from pictures import red_circle
from rpc_calls import NOT_SERVING, SERVING, details, end, failure, health
from scripted_engine import Hold, ScriptedEngine


class SlowStart(ScriptedEngine):
    """An engine that loads until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.may_start = asyncio.Event()

    async def start(self) -> None:
        """Wait."""
        await self.may_start.wait()


class NeverStarted(ScriptedEngine):
    """An engine that must not be loaded."""

    async def start(self) -> None:
        """It was."""
        raise AssertionError("the model was loaded")


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


async def test_a_reader_comes_back_to_a_stopping_server() -> None:
    """Its turn is let end, so its reader is let in; and no other call that asks something."""
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", hold)) as app:
        replies = app.chat.StartChat(pb.StartChatRequest(prompt="What?"))
        begun = (await anext(aiter(replies))).event.started
        await hold.said.wait()
        ids = {"chat_id": begun.chat_id, "turn_id": begun.turn_id}
        unsent: Any = app.channel.stream_stream(
            "/llavachat.v1.ChatService/ResumeTurn",
            request_serializer=pb.ResumeTurnRequest.SerializeToString,
            response_deserializer=pb.ResumeTurnResponse.FromString,
        )()

        async def count_waiting() -> int:
            return len(app.app._gate._places.list_waiting())

        await until(count_waiting, bool)
        app.app.stop()
        await until(lambda: health(app), lambda status: status == NOT_SERVING)
        replies.cancel()
        resumed = aiter(app.chat.ResumeTurn(pb.ResumeTurnRequest(**ids)))
        assert begun.turn_id == (await anext(resumed)).event.started.turn_id
        turn = (await app.chat.GetTurn(pb.GetTurnRequest(**ids))).turn
        assert (pb.TURN_STATE_RUNNING, "So far") == (turn.state, turn.answer)
        error = await failure(app.chat.GetChat(pb.GetChatRequest(chat_id=begun.chat_id)))
        assert (StatusCode.UNAVAILABLE, "the server is stopping") == (error.code(), error.details())
        await unsent.write(pb.ResumeTurnRequest(**ids))
        await unsent.done_writing()
        assert begun.turn_id == (await unsent.read()).event.started.turn_id
        hold.release.set()
        events = [reply.event async for reply in resumed]
        assert pb.FINISH_REASON_EOS == events[-1].finished.finish_reason


async def test_a_stopping_server_does_not_wait_for_what_nobody_wants() -> None:
    """A turn that is cancelled while it has its grace period ends, and the server with it."""
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", hold), "--grace-seconds", "3600") as app:
        replies = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        begun = (await anext(replies)).event.started
        await hold.said.wait()
        app.app.stop()
        await until(lambda: health(app), lambda status: status == NOT_SERVING)
        request = pb.CancelTurnRequest(chat_id=begun.chat_id, turn_id=begun.turn_id)
        turn = (await app.chat.CancelTurn(request)).turn
        assert (pb.FINISH_REASON_CANCELLED, "So far") == (turn.finish_reason, turn.answer)
        await asyncio.wait_for(app.task, PATIENCE_SECONDS)


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


async def test_a_stopped_server_ends_late_replays_as_unavailable() -> None:
    """As it does turns: UNAVAILABLE with RetryInfo, and no more than the grace period later."""
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", "So far", hold), "--grace-seconds", "0") as app:
        chat_id = await app.start()
        turn = (await app.chat.GetChat(pb.GetChatRequest(chat_id=chat_id))).chat.turns[0]
        request = pb.ReplayTurnRequest(chat_id=chat_id, turn_id=turn.id)
        replies = aiter(app.chat.ReplayTurn(request))
        await anext(replies)
        await hold.said.wait()
        app.app.stop()
        error = await end(replies)
        assert (StatusCode.UNAVAILABLE, "the server is stopping") == (error.code(), error.details())
        assert [True] == [detail.HasField("retry_delay") for detail in details(error)]


async def test_a_stopping_server_ends_what_waits_for_its_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that has not come at once, an import after the turns; each with a time to retry."""
    monkeypatch.setattr(app_module, "_LAST_WORD_SECONDS", 0.1)
    hold = Hold("So far")
    engine = ScriptedEngine("warm", "One.", hold)
    async with run_app(engine, "--grace-seconds", "3600") as app:
        chat, _ = await read_export(app.chat, await app.start(images=[pb.Image(data=red_circle())]))
        replies = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        await anext(replies)
        await hold.said.wait()
        unsent: Any = app.channel.stream_stream("/llavachat.v1.ChatService/StartChat")()
        importing: Any = app.chat.ImportChat()
        await importing.write(pb.ImportChatRequest(chat=chat))
        importer: Any = app.app._importer

        async def count_imports() -> int:
            return len(importer._arrivals._running)

        async def count_waiting() -> int:
            return len(gate._places.list_waiting())

        gate = app.app._gate
        await until(count_imports, bool)
        await until(count_waiting, bool)
        app.app.stop()
        assert (StatusCode.UNAVAILABLE, "the server is stopping") == await status(unsent)
        assert not importing.done()
        assert not hold.release.is_set()
        hold.release.set()
        events = [reply.event async for reply in replies]
        assert pb.FINISH_REASON_EOS == events[-1].finished.finish_reason
        assert (StatusCode.UNAVAILABLE, "the server is stopping") == await status(importing)
        for call in (unsent, importing):
            assert "grpc-status-details-bin" in dict(await call.trailing_metadata())


async def test_who_asks_for_health_as_the_server_stops_is_answered() -> None:
    """A watch is told that it serves no more, and who has not sent its request yet may."""
    hold = Hold("So far")
    request = health_pb2.HealthCheckRequest()
    async with run_app(ScriptedEngine("warm", hold)) as app:
        replies = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
        await anext(replies)
        await hold.said.wait()
        watch = aiter(health_pb2_grpc.HealthStub(app.channel).Watch(request))
        assert SERVING == (await anext(watch)).status
        late: Any = app.channel.stream_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )()

        async def count_waiting() -> int:
            return len(app.app._gate._places.list_waiting())

        await until(count_waiting, bool)
        app.app.stop()
        assert NOT_SERVING == (await anext(watch)).status
        await late.write(request)
        await late.done_writing()
        assert NOT_SERVING == (await late.read()).status
        hold.release.set()
        events = [reply.event async for reply in replies]
        assert pb.FINISH_REASON_EOS == events[-1].finished.finish_reason


@asynccontextmanager
async def watch_unread(app: RunningApp) -> AsyncIterator[None]:
    """A watch whose stream has no window: it takes not one byte, and its connection is alive."""
    connection = Connection(app.address, polite=False)
    reader, writer = await asyncio.open_connection(sock=connection.socket)
    shut = SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    opened = connection.request(WATCH)
    asked = data(opened.stream_id, EMPTY_MESSAGE, ends=True)
    writer.write(PREFACE + join([shut, opened, asked]))

    async def keep_alive() -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                frame, num_bytes = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
                frame.parse_body(memoryview(await reader.readexactly(num_bytes)))
                if "ACK" in frame.flags:
                    continue
                if isinstance(frame, SettingsFrame):
                    writer.write(SettingsFrame(0, flags=["ACK"]).serialize())
                elif isinstance(frame, PingFrame):
                    writer.write(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())

    answering = asyncio.create_task(keep_alive())
    places = app.app._gate._places

    async def is_told() -> bool:
        return bool(places.list_calls()) and not places.list_waiting()

    await until(is_told, bool)
    yield
    writer.close()
    await answering


async def test_a_watch_that_is_not_read_holds_nothing_up() -> None:
    """Neither the start nor the end waits for it, and who watches beside it is told both."""
    engine = SlowStart()
    async with run_app(engine, wait=False) as app, watch_unread(app):
        request = health_pb2.HealthCheckRequest()
        watch = health_pb2_grpc.HealthStub(app.channel).Watch(request)
        assert NOT_SERVING == (await watch.read()).status
        engine.may_start.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await app.app.serving
            assert SERVING == (await watch.read()).status
            app.app.stop()
            assert NOT_SERVING == (await watch.read()).status
            assert (StatusCode.UNAVAILABLE, "the server is stopping") == await status(watch)
            await app.task


async def test_who_leaves_a_watch_unread_leaves_no_stack(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody needs a key for it: the log would be everybody's to fill."""
    async with run_app(ScriptedEngine()) as app:
        async with watch_unread(app):
            pass

        async def list_calls() -> list[Call]:
            return app.app._gate._places.list_calls()

        await until(list_calls, lambda calls: not calls)
    assert [] == [each for each in caplog.records if each.exc_info]


async def status(call: Any) -> tuple[StatusCode, str]:
    """How a call has ended that nobody reads."""
    return await call.code(), await call.details()


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


async def test_a_busy_port_is_told(tmp_path: Path) -> None:
    """A second server on the port does not start, and does not share it."""
    async with run_app(ScriptedEngine()) as app:
        with pytest.raises(StartError, match="another program may use it"):
            async with run_app(ScriptedEngine(), "--listen", app.address):
                pass


@pytest.mark.parametrize("setting", ["listen", "metrics_listen"])
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nosuch.invalid:0", "no address is known for its name"),
        ("192.0.2.1:0", "it is not an address of this machine"),
    ],
)
async def test_an_address_that_is_none_of_ours_is_told(
    setting: str, address: str, why: str
) -> None:
    """Nobody looks for another program then."""
    flag = f"--{setting.replace('_', '-')}"
    with pytest.raises(StartError) as caught:
        async with run_app(ScriptedEngine(), flag, address, "--allow-open-network"):
            pass
    assert f"{setting}: '{address}' can not be opened; {why}" == str(caught.value)


async def test_a_model_that_does_not_answer_ends_the_start_with_a_sentence() -> None:
    """No stack is needed to see that a machine is too slow, or an answer empty."""
    with pytest.raises(StartError) as caught:
        async with run_app(ScriptedEngine("")):
            pass
    expected = "the model does not answer about a first picture: its answer was empty"
    assert expected == str(caught.value)


async def test_a_unix_socket_without_its_folder_is_told(tmp_path: Path) -> None:
    """Likewise."""
    listen = f"unix:{tmp_path}/none/socket"
    with pytest.raises(StartError, match="its folder is not there"):
        async with run_app(ScriptedEngine(), "--listen", listen):
            pass


async def test_a_ready_file_that_was_left_behind_says_nothing(tmp_path: Path) -> None:
    """Who waits for the file waits for this server."""
    ready = tmp_path / "ready"
    ready.write_text("127.0.0.1:1\n")
    engine = SlowStart()
    async with run_app(engine, "--ready-file", str(ready), wait=False) as app:
        assert not ready.exists()
        engine.may_start.set()
        address = await app.app.serving
        assert f"{address}\n" == ready.read_text()


async def test_a_server_without_a_port_leaves_another_s_ready_file(tmp_path: Path) -> None:
    """Who serves goes on saying so."""
    ready = tmp_path / "ready"
    async with run_app(ScriptedEngine(), "--ready-file", str(ready)) as app:
        with pytest.raises(StartError, match="another program may use it"):
            async with run_app(
                ScriptedEngine(), "--ready-file", str(ready), "--listen", app.address
            ):
                pass
        assert f"{app.address}\n" == ready.read_text()


@pytest.mark.parametrize(
    ("name", "why"), [("no/ready", "No such file or directory"), ("", "it is a folder")]
)
async def test_a_ready_file_that_can_not_be_written_is_told(
    tmp_path: Path, name: str, why: str
) -> None:
    """In one sentence, before the model is loaded."""
    path = tmp_path / name
    with pytest.raises(StartError) as caught:
        async with run_app(NeverStarted(), "--ready-file", str(path)):
            pass
    assert f"ready_file: {str(path)!r} can not be written: {why}" == str(caught.value)


async def test_a_ready_file_whose_folder_goes_meanwhile_is_told(tmp_path: Path) -> None:
    """The server ends in order."""
    folder = tmp_path / "run"
    folder.mkdir()
    engine = SlowStart()

    async def serve() -> None:
        async with run_app(engine, "--ready-file", str(folder / "ready"), wait=False) as app:
            folder.rmdir()
            engine.may_start.set()
            await app.task

    with pytest.raises(StartError, match="can not be written: No such file or directory"):
        await serve()


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
async def test_a_running_servers_socket_stays_its_own(tmp_path: Path, form: str) -> None:
    """A second server on the path does not start, and the first one's callers still find it."""
    listen = form.format(tmp_path / "socket")
    async with run_app(ScriptedEngine(), "--listen", listen):
        with pytest.raises(StartError, match="another program uses it"):
            async with run_app(ScriptedEngine(), "--listen", listen):
                pass
        async with grpc.aio.insecure_channel(listen) as channel:
            stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
            await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=PATIENCE_SECONDS)


async def test_a_dead_servers_socket_is_replaced(tmp_path: Path) -> None:
    """One that nobody listens on any more."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    async with run_app(ScriptedEngine(), "--listen", f"unix:{path}") as app:
        await app.chat.GetServerInfo(pb.GetServerInfoRequest(), timeout=PATIENCE_SECONDS)


async def test_a_path_that_can_hold_no_socket_is_told(tmp_path: Path) -> None:
    """In one sentence, and nothing is taken away."""
    listen = f"unix:{tmp_path / ('x' * 200)}"
    with pytest.raises(StartError, match="can not be opened: AF_UNIX path too long"):
        async with run_app(ScriptedEngine(), "--listen", listen):
            pass
