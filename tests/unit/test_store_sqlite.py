"""The store on SQLite: the contract, and what only a file can do."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from llavachat_server.chats.errors import StoreFull
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.sql import schema
from llavachat_server.chats.sql.database import StoreError, alembic_config
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.sql.writing import CutTurn
from llavachat_server.values import FinishReason
from sqlalchemy import func, inspect, select
from store_contract import StoreContract
from store_machine import compare_with_memory
from store_records import MODEL, end, make_chat, make_import, make_picture, make_turn


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that does not exist yet, in a folder that does not either."""
    return f"sqlite:///{tmp_path}/state/chats.db"


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    """An empty store."""
    opened = SqlStore(url)
    yield opened
    opened.close()


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


def test_another_process_is_refused(url: str, store: SqlStore) -> None:
    """Two servers on one file would end each other's turns."""
    program = (
        "import sys; from llavachat_server.chats.sql.store import SqlStore\n"
        "try: SqlStore(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True)
    assert told.stdout.startswith("StoreError store: another server uses"), told


async def test_a_full_store_refuses_recovers_and_loses_nothing(url: str, store: SqlStore) -> None:
    """New turns are refused, reads go on, a turn's end is kept once there is room again."""
    small = 40 * 4096
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    store.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        num_pages = file.execute("PRAGMA page_count").fetchone()[0]
    tight = SqlStore(url, max_bytes=max(small, (num_pages + 2) * 4096))
    try:
        running = make_turn("Another question")
        await tight.begin_turn("ada", chat.id, running, (), None)
        with pytest.raises(StoreFull):
            await tight.begin_chat(make_chat(), make_turn("x" * 200_000), (), None)
        long_end = end(running, "y" * 200_000)
        with pytest.raises(StoreFull):
            await tight.finish_turn("ada", chat.id, long_end)
        kept = await tight.get_chat("ada", chat.id)
        assert TurnState.RUNNING is kept.turns[1].state
        _grow(tight)
        other = make_chat(minutes=9)
        await tight.begin_chat(other, make_turn(), (), None)
        kept = await tight.get_chat("ada", chat.id)
        assert long_end == kept.turns[1]
        assert 1 == len((await tight.get_chat("ada", other.id)).turns)
    finally:
        tight.close()


def _grow(store: SqlStore) -> None:
    """What an operator does who makes room on the disk."""
    grown = store._writer.submit(
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 100000").scalar()
    )
    assert 100000 == grown.result()


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


def test_the_file_is_its_owners_alone(url: str, store: SqlStore) -> None:
    """Nobody else on the machine reads chats."""
    path = Path(url.removeprefix("sqlite:///"))
    assert 0o600 == path.stat().st_mode & 0o777


async def test_a_chat_takes_a_bounded_number_of_turns(url: str) -> None:
    """A chat that grows for ever is refused, not the others."""
    store = SqlStore(url, max_turns_per_chat=1)
    try:
        chat, turn = make_chat(), make_turn()
        await store.begin_chat(chat, turn, (), None)
        await store.finish_turn("ada", chat.id, end(turn))
        with pytest.raises(StoreFull):
            await store.begin_turn("ada", chat.id, make_turn(), (), None)
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
    """Its turns are there, and none of them is an import."""
    picture, chat = make_picture(1), make_chat()
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
        assert replace(chat, turns=(turn,)) == await again.get_chat("ada", chat.id)
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
