"""An erasure whose line the audit record lacks: the database knows it until the record does."""

import asyncio
import errno
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from app_in_process import PATIENCE_SECONDS
from audit_records import read
from erased_chats import ErasedChats
from llavachat_server.chats import audit, audited
from llavachat_server.chats.audit import AuditLog
from llavachat_server.chats.audit_lines import describe_erasure
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.record import Chat
from llavachat_server.chats.sql import erasures, writing
from llavachat_server.chats.sql.backup import back_up, read_erasures
from llavachat_server.chats.store import IdleChat
from llavachat_server.chats.tombstones import ERASED, RESTORED, read_last_words
from sqlalchemy import Connection
from store_records import end, make_chat, make_turn

OFF = ("--audit", "off")


@pytest.fixture
async def kept(tmp_path: Path) -> ErasedChats:
    """Three chats and a copy of them; the record has two as erased, and the third lives."""
    made = ErasedChats(tmp_path)
    await made.make()
    return made


@contextmanager
def no_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The record can be opened and takes no line inside the block."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "_write_at", refuse)
        yield


def list_noted(kept: ErasedChats) -> list[str]:
    """The chats that the database knows to be erased, in their order."""
    with closing(sqlite3.connect(kept.folder / "chats.db")) as file:
        query = "SELECT chat_id FROM erasures ORDER BY key"
        return [chat_id for (chat_id,) in file.execute(query)]


def count_erased(kept: ErasedChats, chat: Chat) -> int:
    """A chat's tombstones."""
    lines = read(kept.folder / "audit")
    return [(line["event"], line["chat_id"]) for line in lines].count(("erased", chat.id))


async def test_what_the_record_has_the_database_need_not_know(kept: ErasedChats) -> None:
    """It goes with the next erasure, and at the end: an erasure takes one commit."""
    assert [] == list_noted(kept)
    assert 0 == kept.restore("--bring-back-erased")
    with kept.opened() as store:
        for chat in kept.chats:
            await store.delete_chat(chat.tenant, chat.id)
            assert [chat.id] == list_noted(kept)
    assert [] == list_noted(kept)
    assert 2 + 3 == [line["event"] for line in read(kept.folder / "audit")].count("erased")


async def test_an_erasure_outlasts_a_record_without_room(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the server is stopped meanwhile, which tells of it; restoring knows it, and so does
    the next start."""
    last = kept.chats[2]
    with no_room(monkeypatch), kept.opened() as store:
        await store.delete_chat(last.tenant, last.id)
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "lines of the audit record are lost" == told.message
    # That a turn was cut, and that its chat was erased.
    assert {"num_lines": 2, "why": "No space left on device"} == vars(told)["fields"]
    assert last.id not in kept.read_last_words()
    assert 0 == kept.restore()
    erased_at = (read_erasures(kept.folder / "chats.db") or {})[last.tenant, last.id]
    assert set() == await kept.list_ids()
    (line,) = [line for line in read(kept.folder / "audit") if last.id == line["chat_id"]][-1:]
    assert ("erased", erased_at.isoformat()) == (line["event"], line["time"])
    assert [] == list_noted(kept)
    assert 0 == kept.restore()
    assert set() == await kept.list_ids()


async def test_a_line_that_came_late_is_as_good(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there is room the database forgets what the record has."""
    monkeypatch.setattr(audited, "FULL_RETRY_SECONDS", 0.0)
    last = kept.chats[2]
    with kept.opened() as store:
        assert isinstance(store, AuditedStore)
        with no_room(monkeypatch):
            await store.delete_chat(last.tenant, last.id)
        assert store._retry is not None
        await store._retry
        assert "erased" == kept.read_last_words()[last.id]
    assert [] == list_noted(kept)


async def test_a_line_that_comes_at_the_stop_comes_once(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start does not write it again."""
    last = kept.chats[2]
    with kept.opened() as store, no_room(monkeypatch):
        await store.delete_chat(last.tenant, last.id)
    assert [] == list_noted(kept)
    assert 1 == count_erased(kept, last)
    await kept.list_ids()
    assert 1 == count_erased(kept, last)


async def test_an_import_whose_caller_is_gone_has_one_tombstone(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a stop: what was kept and erased again is no more the database's to tell."""
    chat = make_chat(turns=(end(make_turn()),))
    is_adding, may_go_on = threading.Event(), threading.Event()
    add_whole_chat = writing.add_whole_chat

    def add(*arguments: Any) -> None:
        is_adding.set()
        assert may_go_on.wait(PATIENCE_SECONDS)
        add_whole_chat(*arguments)

    with monkeypatch.context() as patch, kept.opened() as store:
        patch.setattr(writing, "add_whole_chat", add)
        adding = asyncio.create_task(store.add_chat(chat, ()))
        assert await asyncio.to_thread(is_adding.wait, PATIENCE_SECONDS)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        may_go_on.set()
    assert [] == list_noted(kept)
    assert {kept.chats[2].id} == await kept.list_ids()
    assert 1 == count_erased(kept, chat)


async def test_a_start_without_room_in_the_record_is_one(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left is written before the next chat begins, or by a later start."""
    last = kept.chats[2]
    with kept.opened(*OFF) as store:
        await store.delete_chat(last.tenant, last.id)
    with no_room(monkeypatch):
        with kept.opened():
            pass
        assert [last.id] == list_noted(kept)
        opened = kept.opened()
        store = opened.__enter__()
    try:
        assert last.id not in kept.read_last_words()
        await store.find_claim("ada", "a request")
        assert "erased" == kept.read_last_words()[last.id]
    finally:
        opened.__exit__(None, None, None)
    assert [] == list_noted(kept)


KILLED = """
import asyncio, os, signal, sys
from llavachat_server.chats.audit import AuditLog
from llavachat_server.settings import load
from llavachat_server.stores import open_store

folder, tenant, chat_id = sys.argv[1:]
store = open_store(load(["--store", "sqlite", "--state-folder", folder])).store
AuditLog.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(store.delete_chat(tenant, chat_id))
"""
"""A server that is killed between an erasure's commit and its line in the record."""


@pytest.mark.parametrize("is_started", [False, True])
async def test_an_erasure_outlasts_its_server(kept: ErasedChats, *, is_started: bool) -> None:
    """Whether the copy is restored at once, or after another start."""
    last = kept.chats[2]
    words = (str(kept.folder), last.tenant, last.id)
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, *words])
    assert -9 == killed.returncode
    assert last.id not in kept.read_last_words()
    if is_started:
        assert set() == await kept.list_ids()
        assert "erased" == kept.read_last_words()[last.id]
    assert 0 == kept.restore()
    assert set() == await kept.list_ids()
    assert "erased" == kept.read_last_words()[last.id]


async def test_an_erasure_outlasts_its_caller(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose event loop ends while it is committed: nobody goes on to the record."""
    last = kept.chats[2]
    is_erasing, may_go_on = threading.Event(), threading.Event()
    erase_chat = writing.erase_chat

    def erase(connection: Connection, tenant: str, chat_id: str) -> None:
        erase_chat(connection, tenant, chat_id)
        is_erasing.set()
        assert may_go_on.wait(PATIENCE_SECONDS)

    with monkeypatch.context() as patch, kept.opened() as store:
        patch.setattr(writing, "erase_chat", erase)
        erasing = asyncio.create_task(store.delete_chat(last.tenant, last.id))
        assert await asyncio.to_thread(is_erasing.wait, PATIENCE_SECONDS)
        erasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await erasing
        may_go_on.set()
    assert last.id not in kept.read_last_words()
    assert set() == await kept.list_ids()
    assert "erased" == kept.read_last_words()[last.id]


async def test_what_is_erased_without_a_record_stays_so(
    kept: ErasedChats, capsys: pytest.CaptureFixture[str]
) -> None:
    """By each copy that is restored, beside what an older record says; a later one has it all."""
    last = kept.chats[2]
    with kept.opened(*OFF) as store:
        await store.delete_chat(last.tenant, last.id)
    for _ in range(2):
        assert 0 == kept.restore()
        assert "; 3 chats more of it, erased after their last use in it, stay erased" in (
            capsys.readouterr().out
        )
        assert set() == await kept.list_ids(*OFF)
    assert last.id not in kept.read_last_words()
    assert set() == await kept.list_ids()
    assert {chat.id: "erased" for chat in kept.chats} == kept.read_last_words()


async def test_what_was_erased_comes_back_without_a_record_too(
    kept: ErasedChats, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is asked for; that there is none is said, and none is begun. Undone, it is gone."""
    last = kept.chats[2]
    kept.folder = tmp_path / "another"
    assert 0 == kept.restore()
    with kept.opened(*OFF) as store:
        await store.delete_chat(last.tenant, last.id)
    capsys.readouterr()
    assert 0 == kept.restore("--bring-back-erased")
    said = capsys.readouterr().out
    assert f"; no audit record in {kept.folder}/audit tells which others of them were" in said
    assert "; 1 chat of them had been erased, and are back; what" in said
    assert {chat.id for chat in kept.chats} == await kept.list_ids(*OFF)
    assert [] == list_noted(kept)
    assert not (kept.folder / "audit").exists()
    assert 0 == kept.restore(copy=kept.folder / "chats.db.before-restore-1")
    assert 0 == kept.restore()
    assert {chat.id for chat in kept.chats[:2]} == await kept.list_ids(*OFF)


async def test_a_database_that_can_not_be_read_is_told_of(
    kept: ErasedChats, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy is put in its place all the same: that is what it was made for."""
    (kept.folder / "chats.db").write_bytes(b"damaged " * 1000)
    assert 0 == kept.restore()
    said = capsys.readouterr().out
    assert "; what lay there can not be read, and may have known of more that were erased; " in said
    assert {kept.chats[2].id} == await kept.list_ids()


async def test_what_retention_erases_is_known_as_well(kept: ErasedChats) -> None:
    """What it leaves is not."""
    last = kept.chats[2]
    with kept.opened(*OFF) as store:
        used_at = (await store.get_chat(last.tenant, last.id)).updated_at
        for num_turns, expected in ((2, []), (1, [last.id])):
            idle = IdleChat(last.tenant, last.id, used_at, num_turns)
            assert bool(expected) is await store.retire_chat(idle)
            assert expected == list_noted(kept)


@pytest.mark.parametrize("words", [(), ("--bring-back-erased",)])
async def test_a_restored_database_forgets_the_oldest_first(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """As that of before would have done."""
    chats = [make_chat() for _ in range(20)]
    with kept.opened(*OFF) as store:
        for chat in chats:
            await store.begin_chat(chat, make_turn(), (), None)
            await store.delete_chat(chat.tenant, chat.id)
    monkeypatch.setattr(erasures, "MAX_ERASURES", 15)
    assert 0 == kept.restore(*words)
    assert [chat.id for chat in chats[5:]] == list_noted(kept)


async def test_the_database_knows_the_latest_alone(
    kept: ErasedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a record that takes them over there is no end to them."""
    monkeypatch.setattr(erasures, "MAX_ERASURES", 2)
    assert 0 == kept.restore("--bring-back-erased")
    with kept.opened(*OFF) as store:
        for chat in kept.chats:
            await store.delete_chat(chat.tenant, chat.id)
    assert [chat.id for chat in kept.chats[1:]] == list_noted(kept)


async def use_later(kept: ErasedChats, chat: Chat) -> None:
    """Ask one more thing in a chat that is there, now."""
    with kept.opened() as store:
        (first,) = (await store.get_chat(chat.tenant, chat.id)).turns
        turn = make_turn("And now?", parent_id=first.id)
        turn = replace(turn, created_at=datetime.now(UTC))
        await store.begin_turn(chat.tenant, chat.id, turn, (), None)


async def test_what_a_copy_knows_of_an_older_erasure_is_not_told_again(
    kept: ErasedChats, tmp_path: Path
) -> None:
    """The record has it, and a later one: by the older one the chat would count as used since."""
    chat, with_row, with_chat = kept.chats[0], tmp_path / "row", tmp_path / "chat"
    assert 0 == kept.restore("--bring-back-erased")
    with kept.opened() as store:
        await store.delete_chat(chat.tenant, chat.id)
        back_up(kept.folder / "chats.db", with_row)
    assert chat.id in {chat_id for _, chat_id in read_erasures(with_row) or ()}
    assert 0 == kept.restore("--bring-back-erased")
    await use_later(kept, chat)
    back_up(kept.folder / "chats.db", with_chat)
    assert 0 == kept.restore(copy=with_row)
    assert [] == list_noted(kept)
    lines = read(kept.folder / "audit")
    assert chat.id not in await kept.list_ids()
    assert lines == read(kept.folder / "audit")
    assert 0 == kept.restore(copy=with_chat)
    assert chat.id not in await kept.list_ids()


async def test_the_latest_of_a_chats_tombstones_counts(kept: ErasedChats) -> None:
    """Whichever was written last, as by a start that found an older one; one after a return does
    not follow it."""
    name = (kept.chats[0].tenant, kept.chats[0].id)
    log = AuditLog(kept.folder / "audit")
    early, late = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2))
    told = [(RESTORED, late), (ERASED, late), (ERASED, early)]
    for times in (told, [(RESTORED, late), (ERASED, early)]):
        for event, time in times:
            log.append({**describe_erasure(*name, time), "event": event}).result()
        assert times[1][1] == read_last_words(kept.folder / "audit").erased[name]
    log.close()


async def test_the_later_erasure_of_two_is_gone_by(kept: ErasedChats, tmp_path: Path) -> None:
    """What the database alone knows of a chat that had come back by other means, after its
    tombstone; also by the next copies."""
    chat, copy = kept.chats[0], tmp_path / "used"
    shutil.copy(kept.copy, kept.folder / "chats.db")
    await use_later(kept, chat)
    back_up(kept.folder / "chats.db", copy)
    with kept.opened(*OFF) as store:
        await store.delete_chat(chat.tenant, chat.id)
    for _ in range(2):
        assert 0 == kept.restore(copy=copy)
        assert chat.id not in await kept.list_ids(*OFF)
        assert [chat.id] == list_noted(kept)
