"""The store on SQLite: the contract, and what only a file can do."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from app_in_process import until
from held_writer import hold_writer
from llavachat_server.chats.errors import ChatFull, StoreFull
from llavachat_server.chats.record import Turn, TurnState
from llavachat_server.chats.sql import schema, writer, writing
from llavachat_server.chats.sql.database import StoreError, alembic_config
from llavachat_server.chats.sql.reading import CutTurn
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery
from llavachat_server.values import FinishReason
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import IntegrityError
from store_contract import StoreContract
from store_machine import compare_with_memory
from store_records import MODEL, NOON, end, make_chat, make_import, make_picture, make_turn


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that does not exist yet, in a folder that does not either."""
    return f"sqlite:///{tmp_path}/state/chats.db"


class TestSqlite(StoreContract):
    """The contract, in a file."""


async def test_a_second_opening_finds_everything(url: str, store: SqlStore) -> None:
    """What was kept is there for the next process."""
    picture, chat = make_picture(1), make_chat()
    turn = make_turn(images=(picture.info,))
    await store.begin_chat(chat, turn, (picture,), None)
    await store.finish_turn("ada", chat.id, end(turn))
    store.close()
    again = SqlStore(url)
    try:
        assert () == again.cut_turns
        assert (end(turn),) == (await again.get_chat("ada", chat.id)).turns
        kept = await again.get_picture("ada", picture.info.id)
        assert picture.pixels.tobytes() == kept.pixels.tobytes()
    finally:
        again.close()


async def test_a_turn_that_ran_is_cancelled_at_the_next_opening(url: str, store: SqlStore) -> None:
    """A turn whose process died does not block its chat."""
    chat = make_chat()
    await store.begin_chat(chat, make_turn(), (), None)
    store.close()
    again = SqlStore(url)
    try:
        (turn,) = (await again.get_chat("ada", chat.id)).turns
        assert (CutTurn("ada", chat.id, turn.id),) == again.cut_turns
        assert (TurnState.CANCELLED, FinishReason.SHUTDOWN) == (turn.state, turn.finish_reason)
        await again.begin_turn("ada", chat.id, make_turn(), (), None)
    finally:
        again.close()


async def test_no_turn_is_cut_before_it_began(url: str, store: SqlStore) -> None:
    """Though the clock was put back between two servers."""
    late = datetime.now(UTC) + timedelta(hours=1)
    chats = [make_chat(), make_chat()]
    await store.begin_chat(chats[0], make_turn(created_at=late), (), None)
    await store.begin_chat(chats[1], make_turn(), (), None)
    store.close()
    again = SqlStore(url)
    try:
        ends = [(await again.get_chat("ada", chat.id)).turns[0].finished_at for chat in chats]
        assert late == ends[0]
        assert ends[1] is not None
        assert NOON <= ends[1] < max(late, NOON + timedelta(1))
    finally:
        again.close()


def test_another_process_is_refused(url: str, store: SqlStore) -> None:
    """Two servers on one file would end each other's turns."""
    program = (
        "import sys; from llavachat_server.chats.sql.store import SqlStore\n"
        "try: SqlStore(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True)
    assert told.stdout.startswith("StoreError store: another server uses"), told


@pytest.fixture
async def tight(url: str, store: SqlStore) -> AsyncIterator[tuple[SqlStore, str, Turn]]:
    """A store whose file has room for little more; a chat in it; its turn that has ended.

    Ended with more than there is room for, that is.
    """
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    store.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        num_pages = file.execute("PRAGMA page_count").fetchone()[0]
    full = SqlStore(url, max_bytes=(num_pages + 2) * 4096)
    running = make_turn("Another question")
    await full.begin_turn("ada", chat.id, running, (), None)
    with pytest.raises(StoreFull):
        await full.begin_chat(make_chat(), make_turn("x" * 200_000), (), None)
    long_end = end(running, "y" * 200_000)
    with pytest.raises(StoreFull):
        await full.finish_turn("ada", chat.id, long_end)
    yield full, chat.id, long_end
    full.close()


async def test_a_full_store_refuses_recovers_and_loses_nothing(
    tight: tuple[SqlStore, str, Turn],
) -> None:
    """New turns are refused, reads go on, a turn's end is kept once there is room again."""
    store, chat_id, long_end = tight
    with pytest.raises(StoreFull):
        # Small enough, but what is owed goes first.
        await store.begin_chat(make_chat(), make_turn(), (), None)
    kept = await store.get_chat("ada", chat_id)
    assert TurnState.RUNNING is kept.turns[1].state
    assert isinstance(store.explain_debt(), StoreFull)
    _grow(store)
    other = make_chat(minutes=9)
    await store.begin_chat(other, make_turn(), (), None)
    assert long_end == (await store.get_chat("ada", chat_id)).turns[1]
    assert 1 == len((await store.get_chat("ada", other.id)).turns)


async def test_who_erases_without_room_is_told_what_erasing_needs(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that no more chats can be kept: nobody asked for that."""
    chat = make_chat()
    await store.begin_chat(chat, make_turn(), (), None)

    def find_no_room(*_: object) -> None:
        raise StoreFull(5.0)

    monkeypatch.setattr(writing, "erase_chat", find_no_room)
    with pytest.raises(StoreFull, match="nothing was erased: erasing needs a little room"):
        await store.delete_chat("ada", chat.id)
    with pytest.raises(StoreFull, match="can keep no more chats"):
        await store._write(find_no_room)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is owed is tried again at once; to be asked for before a store whose writer waits."""
    monkeypatch.setattr(writer, "OWED_RETRY_SECONDS", 0.01)


@pytest.mark.usefixtures("quick_retries")
async def test_an_end_that_found_no_room_is_kept_though_nobody_writes(
    tight: tuple[SqlStore, str, Turn],
) -> None:
    """Once there is room it is written by itself, so that its chat does not stay closed."""
    store, chat_id, long_end = tight
    _grow(store)
    await until(lambda: store.get_chat("ada", chat_id), lambda chat: chat.turns[1] == long_end)


@pytest.mark.parametrize("is_retired", [False, True])
async def test_a_full_store_makes_room_by_erasing(
    url: str, store: SqlStore, is_retired: bool
) -> None:
    """Though an end is owed that finds none: it is kept as soon as there is enough."""
    old, chat, turn = make_chat(), make_chat(minutes=9), make_turn()
    await store.begin_chat(old, make_turn("x" * 300_000), (), None)
    await store.finish_turn("ada", old.id, end((await store.get_chat("ada", old.id)).turns[0]))
    store.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        num_pages = file.execute("PRAGMA page_count").fetchone()[0]
    full = SqlStore(url, max_bytes=(num_pages + 2) * 4096)
    try:
        await full.begin_chat(chat, turn, (), None)
        # More than the pages that are free, and less than they are with those of the other chat.
        long_end = end(turn, "y" * 450_000)
        with pytest.raises(StoreFull):
            await full.finish_turn("ada", chat.id, long_end)
        if is_retired:
            (idle,) = await full.find_idle(datetime.now(UTC), 9)
            assert await full.retire_chat(idle)
        else:
            await full.delete_chat("ada", old.id)
        await full.begin_chat(make_chat(), make_turn(), (), None)
        assert long_end == (await full.get_chat("ada", chat.id)).turns[0]
    finally:
        full.close()


async def test_an_import_that_is_cancelled_while_it_is_written_is_not_kept(
    url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the store is closed before it is written."""
    is_writing, may_write = threading.Event(), threading.Event()
    write = writing.add_whole_chat

    def write_slowly(*arguments: Any) -> None:
        is_writing.set()
        may_write.wait()
        write(*arguments)

    monkeypatch.setattr(writing, "add_whole_chat", write_slowly)
    chat = make_chat(turns=(end(make_turn()),))
    adding = asyncio.create_task(store.add_chat(chat, ()))
    await asyncio.to_thread(is_writing.wait)
    adding.cancel()
    await asyncio.wait({adding})
    closing = asyncio.create_task(asyncio.to_thread(store.close))
    may_write.set()
    await closing
    again = SqlStore(url)
    try:
        assert () == (await again.list_chats("ada", ChatQuery())).chats
    finally:
        again.close()


async def test_an_end_is_kept_whose_caller_was_cancelled(store: SqlStore) -> None:
    """What waits for the writer is not taken back when a server stops in a hurry."""
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    async with hold_writer(store):
        finish = asyncio.create_task(store.finish_turn("ada", chat.id, end(turn)))
        await asyncio.sleep(0)
        finish.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finish
    await store.begin_turn("ada", chat.id, make_turn(), (), None)
    assert end(turn) == (await store.get_chat("ada", chat.id)).turns[0]


async def test_a_full_store_is_opened_for_reading(
    url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that dies on a full disk starts again; the turn it ran is ended when it can be."""
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    store.close()
    is_full = True
    cancel_running = writing.cancel_running

    def cancel_if_there_is_room(connection: Connection, now: datetime) -> None:
        if is_full:
            raise StoreFull(1.0)
        cancel_running(connection, now)

    monkeypatch.setattr(writing, "cancel_running", cancel_if_there_is_room)
    again = SqlStore(url)
    try:
        assert (CutTurn("ada", chat.id, turn.id),) == again.cut_turns
        assert TurnState.RUNNING is (await again.get_chat("ada", chat.id)).turns[0].state
        assert isinstance(again.explain_debt(), StoreFull)
        with pytest.raises(StoreFull):
            await again.begin_chat(make_chat(), make_turn(), (), None)
        is_full = False
        await again.begin_turn("ada", chat.id, make_turn(), (), None)
        states = [kept.state for kept in (await again.get_chat("ada", chat.id)).turns]
        assert [TurnState.CANCELLED, TurnState.RUNNING] == states
    finally:
        again.close()


async def test_what_was_said_is_not_in_an_error(store: SqlStore) -> None:
    """Errors of the database come to the log, and SQLAlchemy's tell the values of a statement."""

    def write(connection: Connection) -> None:
        connection.execute(schema.labels.insert().values(chat_key=1, name="n", value="canary"))

    with pytest.raises(IntegrityError) as caught:
        store._writer.submit(write).result()
    assert "canary" not in str(caught.value)


def _grow(store: SqlStore) -> None:
    """What an operator does who makes room on the disk."""
    with store._database.writing.connect() as connection:
        grown = connection.exec_driver_sql("PRAGMA max_page_count = 100000").scalar()
    assert 100000 == grown


def test_a_database_of_a_newer_release_is_refused(url: str, store: SqlStore) -> None:
    """It says so, rather than to spoil the file."""
    store.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="newer llavachat"):
        SqlStore(url)


def test_a_commit_is_flushed_to_the_disk(store: SqlStore) -> None:
    """The settings that make a commit durable are in force on the connection that writes."""
    with store._database.writing.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    assert expected == found


def test_the_file_is_its_owners_alone(url: str) -> None:
    """Nobody else on the machine reads chats, nor what SQLite writes beside them."""
    path = Path(url.removeprefix("sqlite:///"))
    mask = os.umask(0o022)
    try:
        SqlStore(url).close()
    finally:
        os.umask(mask)
    assert (0o600, 0o700) == (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)


async def test_a_chat_takes_a_bounded_number_of_turns(url: str) -> None:
    """A chat that grows for ever is refused, not the others."""
    store = SqlStore(url, max_turns_per_chat=1)
    try:
        chat, turn = make_chat(), make_turn()
        await store.begin_chat(chat, turn, (), None)
        await store.finish_turn("ada", chat.id, end(turn))
        for refused in (
            store.begin_turn("ada", chat.id, make_turn(), (), None),
            store.add_chat(make_chat(turns=(end(make_turn()),) * 2), ()),
        ):
            with pytest.raises(ChatFull, match="this chat has 1 turns, the most it may have"):
                await refused
        await store.begin_chat(make_chat(), replace(turn, id="0"), (), None)
    finally:
        store.close()


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "nonsense", "sqlite://", "postgresql+oops", "sqlite:///:memory:"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """The message says what is allowed."""
    with pytest.raises(StoreError, match="allowed: memory, sqlite, or postgresql://"):
        SqlStore(url)


def test_any_history_equals_the_one_in_memory(store: SqlStore) -> None:
    """Whatever is asked of both stores, they answer alike."""
    compare_with_memory(store, max_examples=25)


async def test_a_database_of_the_first_release_is_moved_on(url: str) -> None:
    """Its turns are there, none of them an import, and its labels find it, each and all."""
    labels = {"a": "b", "é": "\0\x1a1", 'w"x': "y"}
    picture, chat = make_picture(1), make_chat(labels=labels)
    turn = end(make_turn(images=(picture.info,)))
    store = SqlStore(url)
    await store.add_chat(replace(chat, turns=(turn,)), (picture,))
    with store._database.writing.begin() as connection:
        command.downgrade(alembic_config(connection), "0001")
        columns = {column["name"] for column in inspect(connection).get_columns("turns")}
        assert "imported" not in columns
    store.close()
    again = SqlStore(url)
    try:
        # How many frames its pictures had was not known then, nor whose its token ids are.
        frameless = (replace(picture.info, num_frames=0),)
        old = replace(turn, images=frameless, tokenizer_sha256="")
        assert replace(chat, turns=(old,)) == await again.get_chat("ada", chat.id)
        for wanted in ({"a": "b"}, labels):
            listed = await again.list_chats("ada", ChatQuery(labels=wanted))
            assert [chat.id] == [found.id for found in listed.chats]
    finally:
        again.close()


async def test_erasing_forgets_what_a_chat_alone_told_of_builds(store: SqlStore) -> None:
    """A build's name may be a user's words, once chats can be imported."""
    chat = make_import(make_picture(1), make_picture(2))
    await store.begin_chat(make_chat(), make_turn(), (), None)
    await store.add_chat(chat, (make_picture(1), make_picture(2)))
    await store.delete_chat("ada", chat.id)
    with store._database.reading.begin() as connection:
        assert [MODEL.name] == list(connection.execute(select(schema.builds.c.name)).scalars())


async def test_a_whole_chat_is_kept_or_not_at_all(url: str, store: SqlStore) -> None:
    """One that finds no room leaves no turn and no picture."""
    chat = make_import(make_picture(1), make_picture(2, (300, 300)))
    long = replace(chat.turns[1], answer="y" * 200_000)
    chat = replace(chat, turns=(chat.turns[0], long, chat.turns[2]))
    store.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        num_pages = file.execute("PRAGMA page_count").fetchone()[0]
    tight = SqlStore(url, max_bytes=(num_pages + 9) * 4096)
    try:
        with pytest.raises(StoreFull):
            await tight.add_chat(chat, (make_picture(1), make_picture(2, (300, 300))))
        with tight._database.reading.begin() as connection:
            for table in schema.metadata.sorted_tables:
                assert 0 == connection.execute(select(func.count()).select_from(table)).scalar()
    finally:
        tight.close()


def test_the_migrations_make_the_tables_of_the_schema(store: SqlStore) -> None:
    """Neither knows a table, column or index that the other does not; and HEAD is the newest."""
    with store._database.writing.connect() as connection:
        context = MigrationContext.configure(connection)
        assert [] == compare_metadata(context, schema.metadata)
        scripts = ScriptDirectory.from_config(alembic_config(connection))
        assert schema.HEAD == scripts.get_current_head() == context.get_current_revision()
