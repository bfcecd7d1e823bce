"""Erasures that the audit record has: how the database lets go of them."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from app_in_process import PATIENCE_SECONDS
from held_writer import hold_writer
from llavachat_server.chats.sql import erasures
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.tombstones import ChatName
from sqlalchemy import Connection

NAMES = [("ada", f"{number:032x}") for number in range(7)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store's database that knows seven erased chats."""
    path = tmp_path / "chats.db"
    SqlStore(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path)) as database, database:
        rows = [(*name, number) for number, name in enumerate(NAMES)]
        database.executemany(
            "INSERT INTO erasures (tenant, chat_id, erased_at) VALUES (?, ?, ?)", rows
        )
    return path


@pytest.fixture
def store(file: Path) -> Iterator[SqlStore]:
    """A store on it."""
    store = SqlStore(f"sqlite:///{file}")
    yield store
    store.close()


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[set[ChatName]]:
    """What is removed name by name, at most three with an erasure."""
    removed: list[set[ChatName]] = []
    remove = erasures.remove

    def tell(connection: Connection, names: Collection[ChatName]) -> None:
        removed.append(set(names))
        remove(connection, names)

    monkeypatch.setattr(erasures, "remove", tell)
    monkeypatch.setattr(erasures, "MAX_REMOVED", 3)
    return removed


def wait(store: SqlStore) -> None:
    """Until the writer has done what was given so far."""
    store._writer.submit(lambda _: None).result(PATIENCE_SECONDS)


async def test_each_goes_once_and_some_at_a_time(
    store: SqlStore, removed: list[set[ChatName]]
) -> None:
    """However many erasures come before any is written; the end takes the rest."""
    store.erasures.settle(NAMES)
    async with hold_writer(store):
        for _ in range(2):
            store.erasures.remove_settled()
    wait(store)
    assert [3, 3] == [len(names) for names in removed]
    assert set(NAMES) - removed[0] - removed[1] == store.erasures.read().keys()
    store.close()
    assert [3, 3, 1] == [len(names) for names in removed]
    assert set(NAMES) == set[ChatName]().union(*removed)


async def test_what_could_not_be_removed_goes_later(
    store: SqlStore, removed: list[set[ChatName]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk was full."""

    def refuse(*_: object) -> None:
        raise RuntimeError("canary")

    store.erasures.settle(NAMES[:2])
    store.erasures.settle(store.erasures.read())
    with monkeypatch.context() as patch:
        patch.setattr(erasures, "remove", refuse)
        store.erasures.remove_settled()
        wait(store)
    assert set(NAMES) == store.erasures.read().keys()
    store.erasures.remove_settled()
    wait(store)
    assert {} == store.erasures.read()
    assert [set(NAMES[:2])] == removed


async def test_what_was_erased_since_stays_under_a_key_of_before(store: SqlStore) -> None:
    """SQLite gives keys again, and a removal that failed may have been done."""
    store.erasures.settle(store.erasures.read())

    def remove_all(connection: Connection) -> None:
        connection.exec_driver_sql("DELETE FROM erasures")

    store._writer.submit(remove_all).result(PATIENCE_SECONDS)
    late = ("bob", "f" * 32)
    store._writer.submit(lambda connection: erasures.note(connection, late)).result()
    store.erasures.remove_settled()
    wait(store)
    assert {late} == store.erasures.read().keys()


async def test_what_a_start_has_read_goes_at_once(
    store: SqlStore, removed: list[set[ChatName]]
) -> None:
    """By one statement, were it all that a database keeps; what was erased since then stays."""
    read = store.erasures.read()
    late = ("bob", "f" * 32)
    store._writer.submit(lambda connection: erasures.note(connection, late)).result()
    store.erasures.settle({*read, ("bob", "e" * 32)})
    store.erasures.remove_settled()
    wait(store)
    assert [{("bob", "e" * 32)}] == removed
    assert {late} == store.erasures.read().keys()
