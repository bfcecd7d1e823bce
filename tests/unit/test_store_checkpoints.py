"""What was erased leaves SQLite's files while the store is open: the write-ahead log as well."""

import asyncio
import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from app_in_process import PATIENCE_SECONDS, until
from held_writer import hold_writer
from llavachat_server.chats.pixels import write_png
from llavachat_server.chats.record import Chat
from llavachat_server.chats.sql import checkpoints
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import IdleChat
from store_records import end, make_chat, make_picture, make_turn

WORDS = b"canary"


@pytest.fixture(autouse=True)
def quick_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pause."""
    monkeypatch.setattr(checkpoints, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """An empty store, opened after `quick_checkpoints`."""
    opened = SqlStore(f"sqlite:///{tmp_path}/chats.db")
    yield opened
    opened.close()


def read_files(folder: Path) -> bytes:
    """All that the database keeps in files."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("chats.db*")))


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Somebody reads meanwhile, as a backup does: the log can not be emptied."""
    with closing(sqlite3.connect(folder / "chats.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM turns").fetchone()
        yield
        reader.execute("COMMIT")


async def until_so(is_so: Callable[[], bool]) -> None:
    """Wait until it is; a file has no event."""

    async def read() -> bool:
        return is_so()

    await until(read, bool)


async def keep_chat(store: SqlStore) -> Chat:
    """A chat that has the words wherever a caller's words may be."""
    words = WORDS.decode()
    chat = make_chat(system_prompt=words, labels={words: words})
    picture = make_picture(1, (64, 48))
    turn = make_turn(words * 1000, images=(picture.info,))
    await store.begin_chat(chat, turn, (picture,), None)
    await store.finish_turn("ada", chat.id, end(turn))
    return chat


@pytest.mark.parametrize("is_retired", [False, True])
async def test_an_erased_chat_leaves_the_files_of_an_open_store(
    tmp_path: Path, store: SqlStore, is_retired: bool
) -> None:
    """Its words and its picture's bytes, from the database and from its log."""
    chat = await keep_chat(store)
    png = write_png(make_picture(1, (64, 48)).pixels)
    assert WORDS in read_files(tmp_path)
    assert png in read_files(tmp_path)
    if is_retired:
        (idle,) = await store.find_idle(make_chat(minutes=1000).created_at, 1)
        assert isinstance(idle, IdleChat)
        assert await store.retire_chat(idle)
    else:
        await store.delete_chat("ada", chat.id)
    await until_so(lambda: not (tmp_path / "chats.db-wal").stat().st_size)
    assert WORDS not in read_files(tmp_path)
    assert png not in read_files(tmp_path)


async def test_a_reader_that_needs_the_log_is_not_waited_for(
    tmp_path: Path,
    store: SqlStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Others write on, the log has it, and the words go once the reader has gone."""
    monkeypatch.setattr(checkpoints, "TELL_SECONDS", 0.0)
    chat = await keep_chat(store)
    with reading(tmp_path):
        with caplog.at_level(logging.WARNING):
            await store.delete_chat("ada", chat.id)
            await until_so(lambda: "what was erased is in the write-ahead log still" in caplog.text)
        other = make_chat()
        await store.begin_chat(other, make_turn(), (), None)
        assert WORDS in read_files(tmp_path)
    await until_so(lambda: WORDS not in read_files(tmp_path))
    assert other.id == (await store.get_chat("ada", other.id)).id


async def test_many_erasures_take_one_checkpoint(
    tmp_path: Path, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that gather before it is made: the writer is not held up by each."""
    asked: list[Future[bool]] = []
    has_asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    assert store._checkpoints is not None
    in_line = store._checkpoints._in_line

    def count(work: Callable[[], bool]) -> "Future[bool]":
        asked.append(in_line(work))
        loop.call_soon_threadsafe(has_asked.set)
        return asked[-1]

    monkeypatch.setattr(store._checkpoints, "_in_line", count)
    chats = [await keep_chat(store) for _ in range(20)]
    async with hold_writer(store):
        erasures = [asyncio.create_task(store.delete_chat("ada", chat.id)) for chat in chats]
        store._checkpoints.note_erasure()
        await has_asked.wait()
    await asyncio.gather(*erasures)
    await until_so(lambda: WORDS not in read_files(tmp_path))
    assert len(asked) <= 2


async def test_a_killed_servers_log_is_emptied_at_the_next_start(
    tmp_path: Path, store: SqlStore
) -> None:
    """It may have died between an erasure and the checkpoint."""
    chat = await keep_chat(store)
    copy = tmp_path / "copy"
    copy.mkdir()
    with reading(tmp_path):
        await store.delete_chat("ada", chat.id)
        for name in ("chats.db", "chats.db-wal"):
            shutil.copy(tmp_path / name, copy / name)
    assert WORDS in read_files(copy)
    again = SqlStore(f"sqlite:///{copy}/chats.db")
    try:
        await until_so(lambda: WORDS not in read_files(copy))
    finally:
        again.close()


@contextmanager
def for_hours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever waits for a checkpoint's time, or for its end, waits till long after the test."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "PAUSE_SECONDS", 36_000.0)
        patch.setattr("llavachat_server.chats.sql.store.CLOSE_SECONDS", 36_000.0)
        yield


def close_at_once(store: SqlStore) -> None:
    """Close it in a thread, which a failure leaves behind."""
    thread = threading.Thread(target=store.close, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert store._checkpoints is not None
    assert not store._checkpoints._thread.is_alive()


async def test_a_store_that_is_closed_waits_for_no_checkpoint(
    tmp_path: Path, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was asked for just before is done by the closing itself."""
    chat = await keep_chat(store)
    with for_hours(monkeypatch):
        await store.delete_chat("ada", chat.id)
        close_at_once(store)
    assert WORDS not in read_files(tmp_path)


async def test_an_idle_store_is_closed_at_once(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was erased, and what would make a checkpoint waits for that."""
    with for_hours(monkeypatch):
        close_at_once(store)


async def test_a_store_that_is_closed_waits_for_no_reader(
    tmp_path: Path,
    store: SqlStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who keeps the log from being emptied, as a backup, would keep the server from ending."""
    monkeypatch.setattr(checkpoints, "TELL_SECONDS", 0.0)
    chat = await keep_chat(store)
    with reading(tmp_path):
        await store.delete_chat("ada", chat.id)
        await until_so(lambda: "what was erased is in the write-ahead log still" in caplog.text)
        with for_hours(monkeypatch):
            close_at_once(store)
    # The last one who has it open empties it.
    assert WORDS not in read_files(tmp_path)
