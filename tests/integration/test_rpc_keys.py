"""Keys at work: scopes, limits, coming and going while the server runs; over real sockets."""

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from app_in_process import RunningApp, run_app, until
from google.rpc import error_details_pb2
from grpc import StatusCode
from llavachat import AsyncClient, AuthenticationFailed, LimitReached, PermissionDenied
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server import app as app_module
from llavachat_server.keys_command import run as run_keys
from llavachat_server.rpc.gate import Gate, GateState
from llavachat_server.rpc.key_file import KeyFiles
from rpc_calls import bearer, details, failure
from scripted_engine import Hold, ScriptedEngine

SERVICE = pb.DESCRIPTOR.services_by_name["ChatService"]
REVOKED_SECONDS = 30.0


class Keys:
    """The keys of a server, changed as an operator would."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.flags = ("--state-folder", str(folder))
        self._file = str(folder / "keys")
        self.capsys = capsys

    def add(self, name: str, *flags: str) -> str:
        """Make a key; its secret."""
        assert 0 == run_keys(["add", name, "--file", self._file, *flags])
        return self.capsys.readouterr().out.strip()

    def revoke(self, name: str) -> None:
        """Take a key away."""
        assert 0 == run_keys(["revoke", name, "--file", self._file])


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    """No key yet."""
    return Keys(tmp_path, capsys)


def calls(app: RunningApp, metadata: Any) -> dict[str, Any]:
    """A call of every method of the contract, empty requests all."""
    found = {}
    for method in SERVICE.methods:
        request: Any = getattr(pb, method.input_type.name)()
        if method.client_streaming:
            request = iter([request])
        found[method.name] = getattr(app.chat, method.name)(request, metadata=metadata)
    return found


async def code_of(call: Any) -> StatusCode:
    """The status that a call ends with, its replies read."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


async def test_what_has_no_rule_is_closed() -> None:
    """On an open server, with handlers for all methods: none of them is ever asked."""
    asked = []

    class Service(chat_pb2_grpc.ChatServiceServicer):
        """Notes who gets through."""

        def __getattribute__(self, name: str) -> Any:
            async def answer(*_: Any) -> None:
                asked.append(name)

            return answer

    gate = Gate(lambda: None, rules={})
    gate.state = GateState.OPEN
    server = grpc.aio.server(interceptors=[gate])
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in SERVICE.methods:
            call = channel.unary_unary(f"/{SERVICE.full_name}/{method.name}")
            assert StatusCode.UNIMPLEMENTED is (await failure(call(b""))).code(), method.name
    await server.stop(0)
    assert [] == asked


async def test_a_scope_opens_its_own_and_nothing_else(keys: Keys) -> None:
    """A key for figures asks for none of the chats; it learns which scope would."""
    metadata = bearer(keys.add("monitor", "--scopes", "metrics"))
    async with run_app(ScriptedEngine(), *keys.flags) as app:
        codes = {name: await code_of(call) for name, call in calls(app, metadata).items()}
        assert StatusCode.OK is codes.pop("GetServerInfo")
        assert {StatusCode.PERMISSION_DENIED} == set(codes.values())
        error = await failure(app.chat.GetChat(pb.GetChatRequest(), metadata=metadata))
        assert "this key lacks the scope chat" == error.details()
        (detail,) = details(error)
        assert "needs the scope chat" == detail.description
        async with AsyncClient(app.address, api_key=metadata[0][1][len("Bearer ") :]) as client:
            with pytest.raises(PermissionDenied, match=r"^This key lacks the scope chat\.$"):
                await client.start(None, "What?").read()


async def test_no_method_answers_without_a_key(keys: Keys) -> None:
    """Not one that streams its request, either."""
    keys.add("anna")
    async with run_app(ScriptedEngine(), *keys.flags) as app:
        codes = {await code_of(call) for call in calls(app, None).values()}
        assert {StatusCode.UNAUTHENTICATED} == codes
        error = await failure(app.chat.GetChat(pb.GetChatRequest()))
        assert ["authorization"] == [v.field for v in details(error)[0].field_violations]


async def test_a_key_opens_while_the_server_runs(keys: Keys) -> None:
    """Without a restart, and the first one ends the time of open doors."""
    async with run_app(ScriptedEngine(), *keys.flags) as app:
        await app.start()
        secret = keys.add("anna", "--scopes", "chat,admin")
        request = pb.GetServerInfoRequest()
        await until(
            lambda: code_of(app.chat.GetServerInfo(request)),
            lambda code: code is StatusCode.UNAUTHENTICATED,
        )
        info = app.chat.GetServerInfo(pb.GetServerInfoRequest(), metadata=bearer(secret))
        assert "shapes" == (await info).model.profile


async def test_a_revoked_key_ends_its_running_streams(keys: Keys) -> None:
    """As UNAUTHENTICATED, within seconds; the neighbour's answer goes on to its end."""
    anna, ben = bearer(keys.add("anna")), bearer(keys.add("ben"))
    hers, his = Hold("So far"), Hold("And so")
    engine = ScriptedEngine("warm", hers, his)
    async with run_app(engine, *keys.flags, "--abandon-grace-seconds", "0") as app:
        request = pb.StartChatRequest(prompt="What?")
        first = aiter(app.chat.StartChat(request, metadata=anna))
        await anext(first)
        await hers.said.wait()
        second = aiter(app.chat.StartChat(request, metadata=ben))
        await anext(second)
        await his.said.wait()
        keys.revoke("anna")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(REVOKED_SECONDS):
                [event async for event in first]
        assert StatusCode.UNAUTHENTICATED is caught.value.code()
        again = await failure(app.chat.ListChats(pb.ListChatsRequest(), metadata=anna))
        assert StatusCode.UNAUTHENTICATED is again.code()
        his.release.set()
        events = [reply.event async for reply in second]
        assert pb.FINISH_REASON_EOS == events[-1].finished.finish_reason
        assert 1 == len(engine.cancelled)


async def test_the_watch_outlives_what_it_can_not_read(
    tmp_path: Path, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    """A hidden folder is told once, the keys of before stay, and a key can be revoked later."""
    folder = tmp_path / "state"
    keys = Keys(folder, keys.capsys)
    anna, ben = bearer(keys.add("anna")), bearer(keys.add("ben"))
    request = pb.ListChatsRequest()

    async def count_told() -> int:
        return sum(r.getMessage() == "the keys of before stay in force" for r in caplog.records)

    async with run_app(ScriptedEngine(), *keys.flags) as app:
        folder.rename(tmp_path / "hidden")
        folder.symlink_to("x" * 300)
        assert 1 == await until(count_told, bool)
        assert StatusCode.OK is await code_of(app.chat.ListChats(request, metadata=anna))
        folder.unlink()
        (tmp_path / "hidden").rename(folder)
        keys.revoke("anna")
        await until(
            lambda: code_of(app.chat.ListChats(request, metadata=anna)),
            lambda code: code is StatusCode.UNAUTHENTICATED,
        )
        assert StatusCode.OK is await code_of(app.chat.ListChats(request, metadata=ben))


async def test_the_watch_outlives_a_defect_of_ours(
    keys: Keys, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reading raises: with its stack in the log, once, and a key can be revoked later."""
    anna = bearer(keys.add("anna"))
    keys.add("ben")
    num_read = 0

    class BrokenFiles(KeyFiles):
        """Fails twice in the same way."""

        def refresh(self) -> bool:
            """See `KeyFiles`."""
            nonlocal num_read
            num_read += 1
            if num_read <= 2:
                raise RuntimeError("broken")
            return super().refresh()

    monkeypatch.setattr(app_module, "KeyFiles", BrokenFiles)
    async with run_app(ScriptedEngine(), *keys.flags) as app:
        keys.revoke("anna")
        await until(
            lambda: code_of(app.chat.ListChats(pb.ListChatsRequest(), metadata=anna)),
            lambda code: code is StatusCode.UNAUTHENTICATED,
        )
    (told,) = [r for r in caplog.records if r.getMessage() == "the keys of before stay in force"]
    assert told.exc_info is not None
    assert "RuntimeError('broken')" == told.fields["why"]  # type: ignore[attr-defined]


async def test_the_client_says_that_a_key_was_revoked(keys: Keys) -> None:
    """In a sentence, and it does not try to go on."""
    hold = Hold("So far")
    secret = keys.add("anna")
    async with (
        run_app(ScriptedEngine("warm", hold), *keys.flags) as app,
        AsyncClient(app.address, api_key=secret) as client,
    ):
        asked = asyncio.create_task(client.start(None, "What?").read())
        await hold.said.wait()
        keys.revoke("anna")
        with pytest.raises(AuthenticationFailed, match=r"does not know this key"):
            await asyncio.wait_for(asked, REVOKED_SECONDS)


@pytest.mark.parametrize(
    ("flag", "subject"),
    [
        ("--requests-per-minute", "key:anna/requests_per_minute"),
        ("--tokens-per-minute", "key:anna/tokens_per_minute"),
    ],
)
async def test_a_key_has_a_rate_of_its_own(keys: Keys, flag: str, subject: str) -> None:
    """What is over it is refused with the limit's name and a time; the neighbour's is whole."""
    anna, ben = bearer(keys.add("anna", flag, "1")), bearer(keys.add("ben", flag, "1"))
    request = pb.StartChatRequest(prompt="What?")
    async with run_app(ScriptedEngine(), *keys.flags) as app:
        assert StatusCode.OK is await code_of(app.chat.StartChat(request, metadata=anna))
        error = await failure(app.chat.StartChat(request, metadata=anna))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
        retry, quota = details(error)
        assert 0 < retry.retry_delay.ToTimedelta().total_seconds()
        assert [subject] == [violation.subject for violation in quota.violations]
        assert StatusCode.OK is await code_of(app.chat.StartChat(request, metadata=ben))
        async with AsyncClient(app.address, api_key=anna[0][1][len("Bearer ") :]) as client:
            with pytest.raises(LimitReached, match=r"^This key may .* a minute\.$") as caught:
                await client.start(None, "What?").read()
        assert (caught.value.retry_after_seconds or 0) > 0


async def test_a_key_has_its_own_number_of_calls(keys: Keys) -> None:
    """Side by side; when one ends, the next may come."""
    metadata = bearer(keys.add("anna", "--max-concurrent", "1"))
    hold = Hold()
    async with run_app(ScriptedEngine("warm", hold), *keys.flags) as app:
        request = pb.StartChatRequest(prompt="What?")
        first = aiter(app.chat.StartChat(request, metadata=metadata))
        await anext(first)
        await hold.said.wait()
        error = await failure(app.chat.StartChat(request, metadata=metadata))
        quota = details(error)[1]
        assert isinstance(quota, error_details_pb2.QuotaFailure)
        assert ["key:anna/max_concurrent"] == [each.subject for each in quota.violations]
        hold.release.set()
        [event async for event in first]
        await until(
            lambda: code_of(app.chat.StartChat(request, metadata=metadata)),
            lambda code: code is StatusCode.OK,
        )


async def test_a_turn_counts_that_goes_on_without_its_call(keys: Keys) -> None:
    """Who leaves may not ask more meanwhile, but come back, ask in the same chat, or cancel."""
    metadata = bearer(keys.add("anna", "--max-concurrent", "1"))
    holds = [Hold("One"), Hold("Two")]
    script = ["warm", "Zero.", *holds, "Three."]
    flags = (*keys.flags, "--abandon-grace-seconds", "3600")
    async with run_app(ScriptedEngine(*script), *flags) as app:

        async def count_calls() -> int:
            return sum(quota.num_running for quota in app.app._gate.quotas._quotas.values())

        async def leave(call: Any) -> Any:
            started = (await anext(aiter(call))).event.started
            call.cancel()
            await until(count_calls, lambda number: number == 0)
            return started

        request = pb.StartChatRequest(prompt="What?", request_id="r")
        replies = app.chat.StartChat(pb.StartChatRequest(prompt="Before?"), metadata=metadata)
        events = [reply.event async for reply in replies]
        before = events[0].started
        await until(count_calls, lambda number: number == 0)
        left = await leave(app.chat.StartChat(request, metadata=metadata))
        replay = pb.ReplayTurnRequest(chat_id=before.chat_id, turn_id=before.turn_id)
        for call in (
            app.chat.StartChat(pb.StartChatRequest(prompt="And?"), metadata=metadata),
            app.chat.ReplayTurn(replay, metadata=metadata),
        ):
            error = await failure(call)
            assert ["key:anna/max_concurrent"] == [
                each.subject for each in details(error)[1].violations
            ]
            await until(count_calls, lambda number: number == 0)
        named = {"chat_id": left.chat_id, "turn_id": left.turn_id}
        resume = pb.ResumeTurnRequest(**named)
        assert left == await leave(app.chat.ResumeTurn(resume, metadata=metadata))
        assert left == await leave(app.chat.StartChat(request, metadata=metadata))
        other = pb.ContinueChatRequest(chat_id=left.chat_id, prompt="Or this?")
        second = await leave(app.chat.ContinueChat(other, metadata=metadata))
        named["turn_id"] = second.turn_id
        await app.chat.CancelTurn(pb.CancelTurnRequest(**named), metadata=metadata)
        await until(count_calls, lambda number: number == 0)
        third = app.chat.StartChat(pb.StartChatRequest(prompt="At last?"), metadata=metadata)
        assert StatusCode.OK is await code_of(third)


async def test_a_changed_limit_holds_while_an_older_call_runs(
    tmp_path: Path, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    """What the older call uses does not bring its limit back, nor the new one's allowance."""
    metadata = bearer(keys.add("anna", "--requests-per-minute", "1000"))
    listing = pb.ListChatsRequest()

    async def is_told() -> bool:
        return "keys changed" in [record.getMessage() for record in caplog.records]

    caplog.set_level("INFO", "llavachat")
    hold = Hold()
    async with run_app(ScriptedEngine("warm", hold), *keys.flags) as app:
        request = pb.StartChatRequest(prompt="What?")
        first = aiter(app.chat.StartChat(request, metadata=metadata))
        await anext(first)
        await hold.said.wait()
        file = tmp_path / "keys"
        file.write_text(file.read_text().replace("=1000", "=1"))
        await until(is_told, bool)
        assert StatusCode.OK is await code_of(app.chat.ListChats(listing, metadata=metadata))
        hold.release.set()
        [event async for event in first]
        error = await failure(app.chat.ListChats(listing, metadata=metadata))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()


async def test_who_leaves_early_pays_all_the_same(keys: Keys) -> None:
    """Tokens are counted where they are made, not where they are read."""
    metadata = bearer(keys.add("anna", "--tokens-per-minute", "5"))
    hold = Hold()
    async with run_app(ScriptedEngine("warm", hold), *keys.flags) as app:
        request = pb.StartChatRequest(prompt="What?")
        call = app.chat.StartChat(request, metadata=metadata)
        await anext(aiter(call))
        await hold.said.wait()
        call.cancel()
        error = await failure(app.chat.StartChat(request, metadata=metadata))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
