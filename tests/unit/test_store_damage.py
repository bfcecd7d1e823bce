"""A database that is not as it was written: known at the start and at work, and told in a line."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from app_in_process import PATIENCE_SECONDS, until
from llavachat_server.chats.errors import StoreDamaged
from llavachat_server.chats.record import Chat, Turn
from llavachat_server.chats.sources import use_kept
from llavachat_server.chats.sql import writer, writing
from llavachat_server.chats.sql.database import StoreError, sqlite_url
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery
from llavachat_server.images.intake import Picture
from llavachat_server.values import EngineFailed
from store_records import end, make_chat, make_picture, make_turn

PAGE_BYTES = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is, or will be."""
    return tmp_path / "chats.db"


@pytest.fixture
async def kept(path: Path) -> tuple[Chat, Turn, Picture]:
    """What a server has written that has ended: a chat, its turn, its picture."""
    store = SqlStore(sqlite_url(path))
    picture, chat = make_picture(1), make_chat(labels={"a": "b"})
    turn = make_turn(images=(picture.info,))
    await store.begin_chat(chat, turn, (picture,), None)
    await store.finish_turn("ada", chat.id, end(turn))
    store.close()
    return chat, turn, picture


def smash(path: Path, name: str) -> None:
    """Write over the first page of a table or an index."""
    with closing(sqlite3.connect(path)) as file:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = file.execute(query, (name,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xaa" * PAGE_BYTES)


@pytest.mark.parametrize("place", ["ix_turns_running", "alembic_version"])
def test_a_damaged_database_is_known_at_the_start(
    path: Path, kept: tuple[Chat, Turn, Picture], place: str
) -> None:
    """In a sentence that says what to do, if a start meets it; nobody holds the file then."""
    smash(path, place)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            SqlStore(sqlite_url(path))
        assert (
            f"store: {path} is damaged; keep it, and restore a backup: see "
            '"Backup and restore" in docs/store.md'
        ) == str(caught.value)


def test_what_is_no_database_is_damaged(path: Path) -> None:
    """As a file that another program has written in its place."""
    path.write_text("chats " * 1000)
    with pytest.raises(StoreError, match=r"chats\.db is damaged; keep it"):
        SqlStore(sqlite_url(path))


def test_a_database_without_its_version_is_not_begun_anew(
    path: Path, kept: tuple[Chat, Turn, Picture]
) -> None:
    """Its tables are there already; the sentence does not speak of them."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("DELETE FROM alembic_version")
    with pytest.raises(StoreError, match=r"chats\.db is not whole.*restore a backup"):
        SqlStore(sqlite_url(path))


Work = Callable[[SqlStore, Chat], Awaitable[object]]


@pytest.mark.parametrize(
    ("place", "work"),
    [
        ("chats", lambda store, _: store.list_chats("ada", ChatQuery(limit=9))),
        ("chats", lambda store, chat: store.get_chat("ada", chat.id)),
        ("chats", lambda store, chat: store.delete_chat("ada", chat.id)),
        ("labels", lambda store, chat: store.begin_chat(chat, make_turn(), (), None)),
    ],
)
async def test_damage_is_told_to_who_meets_it(
    path: Path,
    kept: tuple[Chat, Turn, Picture],
    caplog: pytest.LogCaptureFixture,
    place: str,
    work: Work,
) -> None:
    """Who reads and who writes; one line in the log for each, without a stack."""
    smash(path, place)
    store = SqlStore(sqlite_url(path))
    try:
        with pytest.raises(StoreDamaged, match="its operator can restore a backup"):
            await work(store, make_chat(labels={"a": "b"}) if place == "labels" else kept[0])
        (record,) = (each for each in caplog.records if each.levelno >= logging.ERROR)
        assert ("the store is damaged", None) == (record.message, record.exc_info)
        assert "malformed" in record.__dict__["fields"]["why"]
    finally:
        store.close()


async def test_a_text_that_is_none_is_damage(
    path: Path, kept: tuple[Chat, Turn, Picture], caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite's pages are whole then, and what was said is not for the log."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE turns SET prompt = CAST(x'63616e617279ff' AS TEXT)")
    store = SqlStore(sqlite_url(path))
    try:
        with pytest.raises(StoreDamaged):
            await store.get_chat("ada", kept[0].id)
        (record,) = (each for each in caplog.records if each.levelno >= logging.ERROR)
        assert "Could not decode to UTF-8 column 'prompt'" == record.__dict__["fields"]["why"]
    finally:
        store.close()


async def test_an_end_that_met_damage_is_kept_once_that_is_mended(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again and again, told once, and nobody waits for it but its own chat."""
    monkeypatch.setattr(writer, "OWED_RETRY_SECONDS", 0.01)
    end_turn, num_tries = writing.end_turn, 0

    def count(*args: Any) -> None:
        nonlocal num_tries
        num_tries += 1
        end_turn(*args)

    monkeypatch.setattr(writing, "end_turn", count)
    store, chat, turn = SqlStore(sqlite_url(path)), make_chat(), make_turn()
    try:
        await store.begin_chat(chat, turn, (), None)
        with closing(sqlite3.connect(path)) as file:
            (used,) = file.execute("SELECT updated_at FROM chats").fetchone()
            with file:
                file.execute("UPDATE chats SET updated_at = CAST(x'ff' AS TEXT)")
            with pytest.raises(StoreDamaged):
                await store.finish_turn("ada", chat.id, end(turn))
            assert StoreDamaged() == store.explain_debt()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while num_tries < 4:
                    await store.begin_chat(make_chat(), make_turn(), (), None)
            with file:
                file.execute("UPDATE chats SET updated_at = ? WHERE id = ?", (used, chat.id))
        await until(lambda: store.get_turn("ada", chat.id, turn.id), lambda kept: kept == end(turn))
        await store.begin_turn("ada", chat.id, make_turn(), (), None)
    finally:
        store.close()
    told = [each.message for each in caplog.records if each.levelno >= logging.ERROR]
    assert ["the store is damaged"] == told


async def test_damaged_pixels_are_named(path: Path, kept: tuple[Chat, Turn, Picture]) -> None:
    """To who asks with the picture, and to who goes on in its chat."""
    image_id = kept[2].info.id
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE pictures SET png = CAST(substr(png, 1, 45) AS BLOB)")
    store = SqlStore(sqlite_url(path))
    try:
        expected = f"the picture {image_id} is damaged on the server"
        with pytest.raises(StoreDamaged, match=expected):
            await store.get_picture("ada", image_id)
        read = use_kept(store, "ada", image_id).pixels
        assert callable(read)
        with pytest.raises(EngineFailed, match=expected):
            await read()
    finally:
        store.close()
