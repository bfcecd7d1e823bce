"""Large replies to callers who do not read: of a tenant's a few are in memory, and no more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from app_in_process import RunningApp, run_app, until
from attacker import Connection, data
from grpc import StatusCode
from imports import endless, read_chat
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.errors import StoreUnavailable
from llavachat_server.images.picture import ImageInfo
from llavachat_server.rpc import replies
from llavachat_server.rpc.auth import OPEN_TENANT
from llavachat_server.rpc.replies import PLACES_PER_TENANT
from rpc_calls import bearer, details, end, failure, write_keys
from scripted_engine import ScriptedEngine
from store_records import end as end_turn
from store_records import make_chat, make_turn

IMAGE_ID = "0" * 64
ANNA, BEN = bearer("k1"), bearer("k2")
UNARY = {
    "GetChat": lambda chat_id: pb.GetChatRequest(chat_id=chat_id),
    "ListChats": lambda _: pb.ListChatsRequest(),
}


READS = {"GetChat": "get_chat", "ListChats": "list_chats"}
"""What each asks of the store."""


class File(bytes):
    """A file that tells when it is let go; nothing refers weakly to bytes."""

    is_gone: Callable[[], None]

    def __del__(self) -> None:
        self.is_gone()


class LargePictures:
    """A store's pictures, more of each than gRPC takes of who does not read."""

    def __init__(self) -> None:
        self.num_read = self.num_kept = self.max_kept = 0

    def _let_go(self) -> None:
        self.num_kept -= 1

    async def get_png(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """In the place of the store's."""
        self.num_read += 1
        self.num_kept += 1
        self.max_kept = max(self.max_kept, self.num_kept)
        file = File(16 * 1024**2)
        file.is_gone = self._let_go
        return ImageInfo(image_id, 1, 1, "image/png"), file


@asynccontextmanager
async def run(folder: Path) -> AsyncIterator[tuple[RunningApp, LargePictures]]:
    """A server with two tenants, all of whose pictures are large."""
    keys, pictures = write_keys(folder, anna="k1", ben="k2"), LargePictures()
    async with run_app(ScriptedEngine(), "--keys-file", keys) as app:
        store: Any = app.app._service.desk.store
        store.get_png = pictures.get_png
        yield app, pictures


def ask_for_picture(app: RunningApp, metadata: Any) -> Any:
    """A call that is not read yet."""
    return app.chat.GetImage(pb.GetImageRequest(image_id=IMAGE_ID), metadata=metadata)


async def test_pictures_that_nobody_reads_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each after its time, whereupon the next ones come; the callers are told why."""
    monkeypatch.setattr(replies, "WRITE_SECONDS", 0.2)
    num_calls = 3 * PLACES_PER_TENANT
    async with run(tmp_path) as (app, pictures):
        calls = [ask_for_picture(app, ANNA) for _ in range(num_calls)]

        async def count() -> tuple[int, int]:
            return pictures.num_read, pictures.num_kept

        await until(count, lambda counts: counts == (num_calls, 0))
        assert PLACES_PER_TENANT == pictures.max_kept
        for call in calls:
            error = await end(call)
            assert StatusCode.DEADLINE_EXCEEDED is error.code()
            assert "a part of the reply was not read within 0.2 s" == error.details()
            assert ["RetryInfo"] == [type(detail).__name__ for detail in details(error)]


async def test_a_write_for_who_has_left_leaves_no_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC says so now and then; one caller could fill the log with errors not the server's."""

    failed = asyncio.Event()

    async def fail(*_: object) -> bool:
        failed.set()
        raise grpc.aio.InternalError("Failed grpc_call_start_batch")

    monkeypatch.setattr(replies, "write_all", fail)
    async with run(tmp_path) as (app, _):
        call = ask_for_picture(app, ANNA)
        await failed.wait()

        async def count_calls() -> int:
            return len(app.app._gate._places.list_calls())

        await until(count_calls, lambda num_calls: num_calls == 0)
        call.cancel()
    assert [] == [each for each in caplog.records if each.exc_info]


async def test_who_does_not_read_pictures_keeps_its_own_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody else's; it has its places again once it has given its calls up."""
    monkeypatch.setattr(replies, "WAIT_SECONDS", 0.05)
    async with run(tmp_path) as (app, pictures):
        calls = [ask_for_picture(app, ANNA) for _ in range(PLACES_PER_TENANT)]

        async def count() -> int:
            return pictures.num_read

        await until(count, lambda count: count == PLACES_PER_TENANT)
        error = await failure(ask_for_picture(app, ANNA))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
        assert (error.details() or "").startswith("4 pictures are being put together or sent")
        assert 16 * 1024**2 == await read(ask_for_picture(app, BEN))
        assert not (await app.chat.ListChats(pb.ListChatsRequest(), metadata=ANNA)).chats
        for call in calls:
            call.cancel()
        await until(lambda: ask_or_fail(app), lambda num_bytes: num_bytes == 16 * 1024**2)


async def read(call: Any) -> int:
    """How many bytes a picture has."""
    return sum([len(part.data) async for part in call])


async def ask_or_fail(app: RunningApp) -> int:
    """How many bytes come; 0 where the call is refused."""
    try:
        return await read(ask_for_picture(app, ANNA))
    except Exception:
        return 0


@pytest.mark.parametrize("method", UNARY)
async def test_who_waits_behind_a_slow_store_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What is being put together is nobody's fault who reads."""
    monkeypatch.setattr(replies, "WAIT_SECONDS", 0.5)
    async with run_app(ScriptedEngine()) as app:
        store: Any = app.app._service.desk.store
        chat = make_chat(OPEN_TENANT, turns=(end_turn(make_turn("x" * 100_000)),))
        await store.add_chat(chat, ())
        read = getattr(store, READS[method])

        async def read_slowly(*arguments: Any) -> Any:
            await asyncio.sleep(0.7)
            return await read(*arguments)

        monkeypatch.setattr(store, READS[method], read_slowly)
        ask = getattr(app.chat, method)
        calls = [ask(UNARY[method](chat.id)) for _ in range(2 * PLACES_PER_TENANT)]
        assert len(calls) == len(await asyncio.gather(*calls))


@pytest.mark.parametrize("method", UNARY)
async def test_a_store_that_is_away_is_told_to_all_who_wait(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """They do not wait for it one after the other, and are not told of replies."""
    monkeypatch.setattr(replies, "WAIT_SECONDS", 0.05)
    num_calls, num_asked, is_away = 2 * PLACES_PER_TENANT, 0, asyncio.Event()

    async def fail(*_: Any) -> None:
        nonlocal num_asked
        num_asked += 1
        await is_away.wait()
        raise StoreUnavailable(2.0)

    async with run_app(ScriptedEngine()) as app:
        monkeypatch.setattr(app.app._service.desk.store, READS[method], fail)
        ask = getattr(app.chat, method)
        calls = [
            asyncio.create_task(failure(ask(UNARY[method]("0" * 32)))) for _ in range(num_calls)
        ]
        waits = app.app._service._messages._waits

        async def count() -> int:
            return num_asked + sum(map(len, waits.values()))

        await until(count, lambda count: count == num_calls)
        num_began = num_asked
        is_away.set()
        errors = await asyncio.gather(*calls)
        assert [StatusCode.UNAVAILABLE] * num_calls == [error.code() for error in errors]
        assert num_began == num_asked


def count_places(app: RunningApp) -> int:
    """How many messages to a tenant are on their way."""
    return app.app._service._messages._line._inside["anna"]


async def test_an_import_has_a_place_before_it_is_kept(tmp_path: Path) -> None:
    """Its reply is the whole chat, and none that was kept may go without one."""
    async with run(tmp_path) as (app, _):
        chat = make_chat("anna", turns=(end_turn(make_turn()),))
        await app.app._service.desk.store.add_chat(chat, ())
        told = await read_chat(app.chat, chat.id, metadata=ANNA)

        async def count() -> int:
            return count_places(app)

        await until(count, lambda count: count == 0)
        coming = app.chat.ImportChat(endless(told), metadata=ANNA)
        await until(count, lambda count: count == 1)
        coming.cancel()
        await until(count, lambda count: count == 0)


@pytest.mark.parametrize("method", UNARY)
async def test_a_message_that_nobody_reads_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """As long as gRPC holds it: until its connection ends; another tenant's are sent meanwhile."""
    async with run(tmp_path) as (app, _):
        store, chat_ids = app.app._service.desk.store, {}
        for tenant in ("anna", "ben"):
            # More than the first window of a connection, which is 64 KiB.
            turns = (end_turn(make_turn("x" * 200_000)),)
            chat = make_chat(tenant, system_prompt="x" * 200_000, turns=turns)
            await store.add_chat(chat, ())
            chat_ids[tenant] = chat.id
        silent = await asyncio.to_thread(Connection, app.address)
        for _ in range(PLACES_PER_TENANT):
            opened = silent.request(f"/llavachat.v1.ChatService/{method}", extra=ANNA)
            request = UNARY[method](chat_ids["anna"]).SerializeToString()
            body = b"\0" + len(request).to_bytes(4, "big") + request
            silent.send(opened.serialize() + data(opened.stream_id, body, ends=True).serialize())

        async def count() -> int:
            return count_places(app)

        await until(count, lambda count: count == PLACES_PER_TENANT)
        monkeypatch.setattr(replies, "WAIT_SECONDS", 0.05)

        def ask(tenant: str, metadata: Any) -> Any:
            return getattr(app.chat, method)(UNARY[method](chat_ids[tenant]), metadata=metadata)

        error = await failure(ask("anna", ANNA))
        assert StatusCode.RESOURCE_EXHAUSTED is error.code()
        assert "4 chats and lists of chats are being put together or sent" in (
            error.details() or ""
        )
        assert 200_000 < (await ask("ben", BEN)).ByteSize()
        none = pb.ListChatsRequest(labels={"of": "nothing"})
        assert not (await app.chat.ListChats(none, metadata=ANNA)).chats, "small, and no place"
        assert PLACES_PER_TENANT == await count()
        silent.close()
        await until(count, lambda count: count == 0)
        assert 200_000 < (await ask("anna", ANNA)).ByteSize()
