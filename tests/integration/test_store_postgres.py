"""The store on a real PostgreSQL."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg
import pytest
from alembic import command
from app_in_process import run_app, until
from chat_room import begun, collect, make_turns, text
from imports import import_chat, read_export, strip_ids
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.audit import AuditLog, list_files
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.errors import StoreUnavailable
from llavachat_server.chats.live import LiveTurn, TurnEvent
from llavachat_server.chats.question import NewChat, Place, Question
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.sql import database, postgresql, writer
from llavachat_server.chats.sql import store as store_module
from llavachat_server.chats.sql.database import StoreError, alembic_config
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery
from pictures import draw_shape, encode, red_circle
from postgres import Postgres, find_programs, run_postgres
from retention_history import check_retention, check_sizes_of_an_older_database
from scripted_engine import ScriptedEngine
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from store_contract import StoreContract
from store_machine import compare_with_memory
from store_records import end, make_chat, make_import, make_picture, make_turn

pytestmark = pytest.mark.skipif(
    find_programs() is None, reason="PostgreSQL is not installed (apt-get install postgresql)"
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server for this file."""
    programs = find_programs()
    assert programs is not None
    with run_postgres(programs) as server:
        yield server


@pytest.fixture
def url(postgres: Postgres) -> str:
    """A new database."""
    return postgres.make_database()


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    """An empty store."""
    opened = SqlStore(url)
    yield opened
    opened.close()


class TestPostgres(StoreContract):
    """The contract, on PostgreSQL."""


def test_any_history_equals_the_one_in_memory(store: SqlStore) -> None:
    """Whatever is asked of both stores, they answer alike."""
    compare_with_memory(store, max_examples=25)


def test_the_oldest_go_until_it_is_enough(store: SqlStore) -> None:
    """Retention by size, as on SQLite."""
    check_retention(store, max_examples=15)


async def test_an_older_database_is_measured(store: SqlStore) -> None:
    """By the migration, as it would have been kept."""
    (await check_sizes_of_an_older_database(store)).close()


async def test_a_second_opening_cancels_what_ran(url: str, store: SqlStore) -> None:
    """As on SQLite."""
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn))
    await store.begin_turn("ada", chat.id, make_turn(), (), None)
    store.close()
    again = SqlStore(url)
    try:
        turns = (await again.get_chat("ada", chat.id)).turns
        assert [TurnState.FINISHED, TurnState.CANCELLED] == [turn.state for turn in turns]
        assert end(turn) == turns[0]
    finally:
        again.close()


def test_another_server_is_refused(
    url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on one database would end each other's turns."""
    monkeypatch.setattr(database, "_OWNER_SECONDS", 0.0)
    with pytest.raises(StoreError, match="another server uses"):
        SqlStore(url)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    """The operator's sentence holds no secret."""
    with pytest.raises(StoreError) as caught:
        SqlStore("postgresql://ada:secret@127.0.0.1:1/chats")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1/chats can not be opened" in str(caught.value)


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """The whole server can only be read inside the block, as after a failover to a standby."""

    def switch(word: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {word}")
            connection.execute("SELECT pg_reload_conf()")

    switch("on")
    try:
        yield
    finally:
        switch("off")


async def test_a_turn_ends_though_the_database_was_read_only(
    url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is new is refused for now, and the end is kept once it can be; its chat goes on."""
    monkeypatch.setattr(writer, "OWED_RETRY_SECONDS", 0.05)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)

    async def begin() -> Exception | None:
        try:
            await store.begin_chat(make_chat(), make_turn(), (), None)
        except StoreUnavailable as error:
            return error
        return None

    with read_only(url):
        await until(begin, bool)  # a session takes a changed setting up by and by
        with pytest.raises(StoreUnavailable):
            await store.finish_turn("ada", chat.id, end(turn))
        assert TurnState.RUNNING is (await store.get_chat("ada", chat.id)).turns[0].state
    await until(lambda: store.get_chat("ada", chat.id), lambda kept: kept.turns == (end(turn),))
    await store.begin_turn("ada", chat.id, make_turn(), (), None)


async def test_a_database_that_stands_still_is_not_waited_for(
    url: str, postgres: Postgres, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads, begins or ends is refused for now, and the end is kept afterwards."""
    monkeypatch.setattr(postgresql, "SILENCE_SECONDS", 0.3)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    with postgres.frozen():
        errors = await asyncio.gather(
            store.get_chat("ada", chat.id),
            store.find_claim("ada", "r"),
            store.list_chats("ada", ChatQuery()),
            store.begin_chat(make_chat(), make_turn(), (), None),
            store.finish_turn("ada", chat.id, end(turn)),
            return_exceptions=True,
        )
        assert [StoreUnavailable] * 5 == [type(error) for error in errors]
    await until(store.count_bytes, bool)
    await store.begin_turn("ada", chat.id, make_turn(), (), None)
    assert end(turn) == (await store.get_chat("ada", chat.id)).turns[0]


async def test_who_waits_to_read_is_told_in_time(
    url: str, postgres: Postgres, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are before it: two read at a time, and each gives up by itself."""
    monkeypatch.setattr(store_module, "READ_SECONDS", 0.3)
    with postgres.frozen():
        reads = (store.find_claim("ada", "r") for _ in range(40))
        errors = await asyncio.gather(*reads, return_exceptions=True)
    assert [StoreUnavailable(2.0)] * 40 == errors
    await until(lambda: store.find_claim("ada", "r"), lambda claim: claim is None)


async def test_a_server_ends_though_its_database_stands_still(
    url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so; the turn that could not be ended is cut for the next one."""
    monkeypatch.setattr(store_module, "CLOSE_SECONDS", 0.3)
    store = SqlStore(url)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    with postgres.frozen():
        ending = asyncio.create_task(store.finish_turn("ada", chat.id, end(turn)))
        await asyncio.sleep(0)
        await asyncio.to_thread(store.close)
        assert "the store is left as it is" in caplog.text
        assert not ending.done()
    await asyncio.wait({ending})


async def test_what_waits_for_a_lock_is_ended_by_the_database(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's open transaction holds the table: who writes is refused for now."""
    monkeypatch.setattr(postgresql, "STATEMENT_SECONDS", 0.2)
    store = SqlStore(url)
    try:
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE chats IN SHARE MODE")
            with pytest.raises(StoreUnavailable):
                await store.begin_chat(make_chat(), make_turn(), (), None)
        await store.begin_chat(make_chat(), make_turn(), (), None)
    finally:
        store.close()


async def test_a_migration_has_the_time_that_it_takes(
    url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large table is changed by one statement, far beyond what any other may take."""
    with store._database.writing.begin() as connection:
        command.downgrade(alembic_config(connection), "0003")
    store.close()
    monkeypatch.setattr(postgresql, "STATEMENT_SECONDS", 0.1)
    monkeypatch.setattr(postgresql, "SILENCE_SECONDS", 0.2)
    waiting = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query_start < clock_timestamp() - interval '0.5 s'"""
    with psycopg.connect(url, autocommit=True) as other, other.transaction():
        other.execute("LOCK TABLE turns IN SHARE MODE")
        opening = asyncio.create_task(asyncio.to_thread(SqlStore, url))

        async def count_waiting() -> int:
            assert not opening.done()
            with psycopg.connect(url, autocommit=True) as third:
                row = third.execute(waiting).fetchone()
            return row[0] if row else 0

        await until(count_waiting, bool)
    (await opening).close()


def test_an_address_says_how_long_is_waited() -> None:
    """What it names stays; the rest is bounded."""
    url = make_url("postgresql://ada@db/chats?connect_timeout=60&keepalives_idle=9")
    assert {"keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000} == (
        postgresql.choose_arguments(url)
    )


def lose_answer(store: SqlStore, url: str, num_before: int = 0) -> None:
    """The next commit but so many is done, and the connection breaks before its answer comes."""
    numbers = itertools.count()

    def commit(connection: Connection) -> None:
        if next(numbers) != num_before:
            return
        driver: Any = connection.connection.driver_connection
        driver.commit()
        driver.execute("SELECT 1")
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 60000)", [driver.info.backend_pid])

    event.listen(store._database.writing, "commit", commit)


async def test_a_beginning_whose_answer_is_lost_locks_no_chat(
    url: str, store: SqlStore, tmp_path: Path
) -> None:
    """It is there, and nobody was told: it ends, and its repeat is answered anew."""
    log = AuditLog(tmp_path)
    turns = make_turns(ScriptedEngine(*["One."] * 9), AuditedStore(store, log))

    def ask(where: NewChat | Place, request_id: str) -> LiveTurn:
        return turns.ask("ada", Question(where, "What?", request_id=request_id, body_sha256="b"))

    for where in (NewChat(), Place("")):
        if isinstance(where, Place):
            where = Place((await store.list_chats("ada", ChatQuery())).chats[0].id)
        lose_answer(store, url)
        request_id = f"of {type(where).__name__}"
        with pytest.raises(StoreUnavailable):
            await collect(ask(where, request_id), [])
        events: list[TurnEvent] = []
        await collect(ask(where, request_id), events)
        assert "One." == text(events)
    chat = await turns.get_chat("ada", begun(events).chat_id)
    assert ["cancelled", "finished"] * 2 == [turn.state.value for turn in chat.turns]
    log.close()
    lines = [json.loads(line) for line in list_files(tmp_path)[0].read_text().splitlines()]
    told = [(line["turn_id"], line["request_id"], line["finish_reason"]) for line in lines]
    ids, reasons = ["of NewChat"] * 2 + ["of Place"] * 2, ["shutdown", "eos"] * 2
    assert [*zip([turn.id for turn in chat.turns], ids, reasons, strict=True)] == told


async def test_works_that_share_a_commit_whose_answer_is_lost_are_not_done_again(
    url: str, store: SqlStore
) -> None:
    """A second try would find the first one's turn, and tell its caller that another runs."""
    chats = [make_chat() for _ in range(3)]
    holding, free = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        holding.set()
        free.wait()

    held = store._writer.submit(hold)
    await asyncio.to_thread(holding.wait)
    begins = [asyncio.create_task(store.begin_chat(chat, make_turn(), (), None)) for chat in chats]
    await asyncio.sleep(0)
    lose_answer(store, url, num_before=1)
    free.set()
    held.result()
    errors = await asyncio.gather(*begins, return_exceptions=True)
    assert [StoreUnavailable(2.0, may_be_done=True)] * 3 == errors
    for chat in chats:
        assert TurnState.RUNNING is (await store.get_chat("ada", chat.id)).turns[0].state


async def test_an_import_whose_answer_is_lost_is_not_kept(url: str, store: SqlStore) -> None:
    """Its sender was told so."""
    first, second = make_picture(1), make_picture(2)
    lose_answer(store, url)
    with pytest.raises(StoreUnavailable):
        await store.add_chat(make_import(first, second), (first, second))
    await until(lambda: store.list_chats("ada", ChatQuery()), lambda page: not page.chats)


async def test_a_chat_goes_out_and_comes_in_over_the_wire(url: str, tmp_path: Path) -> None:
    """Words that PostgreSQL can not hold as they are, two pictures, and a refused import."""
    words = "A star \0 \x1a0 and </s>."
    flags = ("--store", url, "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine("warm", words, "No."), *flags) as app:
        images = [pb.Image(data=red_circle()), pb.Image(data=encode(draw_shape("star", "blue")))]
        chat, pictures = await read_export(app.chat, await app.start(images=images))
        assert words == chat.turns[0].answer
        taken = await import_chat(app.chat, chat, pictures)
        again, same_pictures = await read_export(app.chat, taken.id)
        assert strip_ids(chat) == strip_ids(again)
        assert pictures == same_pictures
        with pytest.raises(grpc.aio.AioRpcError, match="did not come"):
            await import_chat(app.chat, chat, pictures[1:])
        assert 2 == len((await app.chat.ListChats(pb.ListChatsRequest())).chats)
