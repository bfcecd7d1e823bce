"""A PostgreSQL that breaks off, stands still, can only be read, or is taken over by another."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import psycopg
import pytest
from alembic import command
from app_in_process import run_app, until
from held_writer import hold_writer
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.errors import StoreUnavailable
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.sql import lanes, postgresql, writer
from llavachat_server.chats.sql import store as store_module
from llavachat_server.chats.sql.database import StoreError, alembic_config
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery
from llavachat_server.endings import StoreLost
from llavachat_server.values import FinishReason
from postgres import Postgres
from rpc_calls import end as end_of
from rpc_calls import failure
from scripted_engine import Hold, ScriptedEngine
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from store_records import end, make_chat, make_turn


def end_sessions(postgres_url: str) -> None:
    """What a restart of PostgreSQL does to all that are connected to a database."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_a_database_is_owned_again_after_a_restart(
    postgres_url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next write: a second server is refused as before, and ends nobody's turn."""
    monkeypatch.setattr(postgresql, "OWNER_SECONDS", 0.0)
    end_sessions(postgres_url)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    with pytest.raises(StoreError, match="another server uses"):
        SqlStore(postgres_url)
    assert (turn,) == (await store.get_chat("ada", chat.id)).turns


async def test_a_session_that_is_lost_here_and_lives_there_owns_nothing(
    postgres_url: str, store: SqlStore
) -> None:
    """The network has dropped it, and PostgreSQL would keep its lock for hours: it is ended."""
    with store._database.writing.connect() as lost:
        lost.detach()
        await store.begin_chat(make_chat(), make_turn(), (), None)
        with pytest.raises(OperationalError):
            lost.exec_driver_sql("SELECT 1")
    assert not store.lost.done()


async def test_nothing_is_written_to_a_database_that_another_has_taken(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even once it is free again: the other has ended the turns of this one."""
    monkeypatch.setattr(postgresql, "OWNER_SECONDS", 0.0)
    store = SqlStore(postgres_url)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    end_sessions(postgres_url)
    other = SqlStore(postgres_url)
    try:
        with pytest.raises(StoreUnavailable):
            await store.finish_turn("ada", chat.id, end(turn))
        assert "another server has taken this one's database over" == store.lost.result()
    finally:
        other.close()
    with pytest.raises(StoreUnavailable):
        await store.begin_chat(make_chat(), make_turn(), (), None)
    store.close()
    again = SqlStore(postgres_url)
    try:
        (cut,) = (await again.get_chat("ada", chat.id)).turns
        assert (TurnState.CANCELLED, FinishReason.SHUTDOWN) == (cut.state, cut.finish_reason)
    finally:
        again.close()


async def test_a_server_whose_database_another_has_taken_ends(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, without the grace period; its callers are told to come back."""
    monkeypatch.setattr(postgresql, "OWNER_SECONDS", 0.0)
    hold = Hold("So far")
    flags = ("--store", postgres_url, "--state-folder", str(tmp_path), "--grace-seconds", "3600")

    async def serve() -> None:
        async with run_app(ScriptedEngine("warm", hold), *flags) as app:
            replies = aiter(app.chat.StartChat(pb.StartChatRequest(prompt="What?")))
            await anext(replies)
            await hold.said.wait()
            end_sessions(postgres_url)
            other = await asyncio.to_thread(SqlStore, postgres_url)
            error = await failure(app.chat.StartChat(pb.StartChatRequest(prompt="And?")))
            assert grpc.StatusCode.UNAVAILABLE is error.code()
            assert grpc.StatusCode.UNAVAILABLE is (await end_of(replies)).code()
            other.close()

    with pytest.raises(StoreLost, match="another server has taken"):
        await serve()


@contextmanager
def read_only(postgres_url: str) -> Iterator[None]:
    """The whole server can only be read inside the block, as after a failover to a standby."""

    def switch(word: str) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {word}")
            connection.execute("SELECT pg_reload_conf()")

    switch("on")
    try:
        yield
    finally:
        switch("off")


async def test_a_turn_ends_though_the_database_was_read_only(
    postgres_url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
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

    with read_only(postgres_url):
        await until(begin, bool)  # a session takes a changed setting up by and by
        with pytest.raises(StoreUnavailable):
            await store.finish_turn("ada", chat.id, end(turn))
        assert isinstance(store.explain_debt(), StoreUnavailable)
        assert TurnState.RUNNING is (await store.get_chat("ada", chat.id)).turns[0].state
    await until(lambda: store.get_chat("ada", chat.id), lambda kept: kept.turns == (end(turn),))
    await store.begin_turn("ada", chat.id, make_turn(), (), None)


async def test_a_database_that_stands_still_is_not_waited_for(
    postgres_url: str, postgres: Postgres, store: SqlStore, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.undo()
    await until(store.count_bytes, bool)
    await store.begin_turn("ada", chat.id, make_turn(), (), None)
    assert end(turn) == (await store.get_chat("ada", chat.id)).turns[0]


async def test_who_waits_to_read_is_told_in_time(
    postgres_url: str, postgres: Postgres, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are before it: two read at a time, and each gives up by itself."""
    monkeypatch.setattr(lanes, "READ_SECONDS", 0.3)
    with postgres.frozen():
        reads = (store.find_claim("ada", "r") for _ in range(40))
        errors = await asyncio.gather(*reads, return_exceptions=True)
    assert [StoreUnavailable(2.0)] * 40 == errors
    monkeypatch.undo()
    await until(lambda: store.find_claim("ada", "r"), lambda claim: claim is None)


async def test_a_server_ends_though_its_database_stands_still(
    postgres_url: str,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It says so; the turn that could not be ended is cut for the next one."""
    monkeypatch.setattr(store_module, "CLOSE_SECONDS", 0.3)
    store = SqlStore(postgres_url)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    with postgres.frozen():
        ending = asyncio.create_task(store.finish_turn("ada", chat.id, end(turn)))
        await asyncio.sleep(0)
        await asyncio.to_thread(store.close)
        assert "the store is left as it is" in caplog.text
        assert not ending.done()
    await asyncio.wait({ending})


def bound_statements(store: SqlStore, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on a statement has so long; a session is told when it begins."""
    monkeypatch.setattr(postgresql, "STATEMENT_SECONDS", seconds)
    store._database.writing.dispose()


def unbound_statements(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement has its usual time again."""
    monkeypatch.undo()
    store._database.writing.dispose()


async def test_what_waits_for_a_lock_is_ended_by_the_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's open transaction holds the table: who writes is refused for now."""
    store = SqlStore(postgres_url)
    try:
        bound_statements(store, monkeypatch, 0.2)
        with psycopg.connect(postgres_url) as other:
            other.execute("LOCK TABLE chats IN SHARE MODE")
            with pytest.raises(StoreUnavailable):
                await store.begin_chat(make_chat(), make_turn(), (), None)
        unbound_statements(store, monkeypatch)
        await store.begin_chat(make_chat(), make_turn(), (), None)
    finally:
        store.close()


async def test_what_waits_for_a_lock_waits_together(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each one for itself after the other, for as long as a statement may take."""
    store, begins = SqlStore(postgres_url), []
    event.listen(store._database.writing, "begin", begins.append)
    try:
        bound_statements(store, monkeypatch, 0.2)
        with psycopg.connect(postgres_url) as other:
            async with hold_writer(store):
                works = [
                    asyncio.create_task(store.begin_chat(make_chat(), make_turn(), (), None))
                    for _ in range(8)
                ]
                await store.count_bytes()  # by then each has been given to the writer
                other.execute("LOCK TABLE builds IN SHARE MODE")
                begins.clear()
            errors = await asyncio.gather(*works, return_exceptions=True)
        assert [StoreUnavailable(2.0)] * 8 == errors
        assert 1 == len(begins)
        unbound_statements(store, monkeypatch)
        await store.begin_chat(make_chat(), make_turn(), (), None)
        assert 1 == len((await store.list_chats("ada", ChatQuery())).chats)
    finally:
        store.close()


async def test_a_migration_has_the_time_that_it_takes(
    postgres_url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large table is changed by one statement, far beyond what any other may take."""
    with store._database.writing.begin() as connection:
        command.downgrade(alembic_config(connection), "0003")
    store.close()
    monkeypatch.setattr(postgresql, "STATEMENT_SECONDS", 1.0)
    monkeypatch.setattr(postgresql, "SILENCE_SECONDS", 2.0)
    waiting = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query_start < clock_timestamp() - interval '3 s'"""
    with psycopg.connect(postgres_url, autocommit=True) as other, other.transaction():
        other.execute("LOCK TABLE turns IN SHARE MODE")
        opening = asyncio.create_task(asyncio.to_thread(SqlStore, postgres_url))

        async def count_waiting() -> int:
            assert not opening.done()
            with psycopg.connect(postgres_url, autocommit=True) as third:
                row = third.execute(waiting).fetchone()
            return row[0] if row else 0

        await until(count_waiting, bool)
    (await opening).close()
