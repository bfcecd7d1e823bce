"""A copy's chats that were erased since: they stay erased, unless they are asked for."""

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from audit_records import read
from erased_chats import ErasedChats
from llavachat_server.chats import audit, returning, tombstones
from llavachat_server.chats.audit import AuditLog, verify
from llavachat_server.chats.sql import backup
from llavachat_server.chats.sql.backup import back_up
from store_records import make_turn


@pytest.fixture
async def erasures(tmp_path: Path) -> ErasedChats:
    """See `ErasedChats`."""
    made = ErasedChats(tmp_path)
    await made.make()
    return made


async def test_what_was_erased_since_a_copy_stays_erased(
    erasures: ErasedChats, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, and neither rows nor pictures nor bytes of it come back; the record stands."""
    record = read(erasures.folder / "audit")
    assert 0 == erasures.restore()
    said = capsys.readouterr().out
    assert said.startswith(f"1 chat of {erasures.copy} in ")
    assert "; 2 chats more of it, erased after their last use in it, stay erased" in said
    file = (erasures.folder / "chats.db").read_bytes()
    assert b"canary" in file
    for chat in erasures.chats[:2]:
        assert chat.id.encode() not in file
    assert record == read(erasures.folder / "audit")
    assert {"audit", "chats.db", "chats.db.before-restore-1"} == {
        path.name for path in erasures.folder.iterdir() if path.suffix != ".lock"
    }
    with closing(sqlite3.connect(erasures.folder / "chats.db")) as file:
        assert [("ada",)] == file.execute("SELECT tenant FROM pictures").fetchall()
        assert ("delete",) == file.execute("PRAGMA journal_mode").fetchone()
    assert {erasures.chats[2].id} == await erasures.list_ids()


async def test_who_erased_by_mistake_brings_it_back(
    erasures: ErasedChats, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a flag; the record tells it, and a later copy's restoring takes them for there."""
    assert 0 == erasures.restore("--bring-back-erased")
    said = capsys.readouterr().out
    assert said.startswith(f"3 chats of {erasures.copy} in ")
    assert "; 2 chats of them had been erased, and are back; what" in said
    expected = {chat.id for chat in erasures.chats}
    assert expected == await erasures.list_ids()
    lines = read(erasures.folder / "audit")
    restored = {line["chat_id"] for line in lines if "restored" == line["event"]}
    assert {chat.id for chat in erasures.chats[:2]} == restored
    assert verify(erasures.folder / "audit").fault is None
    assert 0 == erasures.restore()
    assert capsys.readouterr().out.startswith(f"3 chats of {erasures.copy} in ")
    assert expected == await erasures.list_ids()


def stop(*_: object) -> None:
    """As Ctrl-C in that moment."""
    raise KeyboardInterrupt


def refuse(*_: object) -> None:
    """As a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


WITHOUT_ROOM = """
import errno, os, sys
from llavachat_server.__main__ import main
from llavachat_server.chats import audit

def refuse(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

audit._write_at = refuse
sys.exit(main(sys.argv[1:]))
"""
"""The command, where the record takes no line; its log is its own."""


@pytest.mark.parametrize(("failure", "code"), [(stop, 130), (refuse, 1)])
async def test_what_could_not_be_brought_back_is_erased_still(
    erasures: ErasedChats, monkeypatch: pytest.MonkeyPatch, failure: object, code: int
) -> None:
    """In the record, too: the next restoring would bring it back unasked and without a word."""
    expected = {chat.id: "erased" for chat in erasures.chats[:2]}
    with monkeypatch.context() as patch:
        patch.setattr(backup, "_put_aside", failure)
        assert code == erasures.restore("--bring-back-erased")
    assert expected == erasures.read_last_words()
    assert {erasures.chats[2].id} == await erasures.list_ids()
    assert 0 == erasures.restore()
    assert {erasures.chats[2].id} == await erasures.list_ids()


async def test_what_is_back_stays_back_though_the_last_step_fails(
    erasures: ErasedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are changed by then."""
    with monkeypatch.context() as patch:
        patch.setattr(backup, "flush_folder", refuse)
        assert 1 == erasures.restore("--bring-back-erased")
    assert {chat.id: "restored" for chat in erasures.chats[:2]} == erasures.read_last_words()
    assert {chat.id for chat in erasures.chats} == await erasures.list_ids()


async def test_who_undoes_a_bringing_back_has_them_erased(erasures: ErasedChats) -> None:
    """By what was put aside, as the documents show; no copy brings them back unasked then."""
    assert 0 == erasures.restore("--bring-back-erased")
    assert 0 == erasures.restore(copy=erasures.folder / "chats.db.before-restore-1")
    assert {chat.id: "erased" for chat in erasures.chats[:2]} == erasures.read_last_words()
    assert 0 == erasures.restore()
    assert {erasures.chats[2].id} == await erasures.list_ids()


async def test_what_was_back_and_in_use_is_no_erased_chat(
    erasures: ErasedChats, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of it brings it back: it had come by other means, which no record tells of."""
    shutil.copy(erasures.copy, erasures.folder / "chats.db")
    back = erasures.chats[0]
    with erasures.opened() as store:
        (first,) = (await store.get_chat("ada", back.id)).turns
        turn = make_turn("And now?", parent_id=first.id)
        turn = replace(turn, created_at=datetime.now(UTC) + timedelta(minutes=1))
        await store.begin_turn("ada", back.id, turn, (), None)
    erasures.copy = erasures.folder.with_name("another")
    assert 3 == back_up(erasures.folder / "chats.db", erasures.copy)
    for flags, expected in (
        ((), {back.id, erasures.chats[2].id}),
        (("--bring-back-erased",), {chat.id for chat in erasures.chats}),
    ):
        assert 0 == erasures.restore(*flags)
        said = capsys.readouterr().out
        assert "; 1 chat of them had been erased, were used after that, and stay; what" in said
        assert expected == await erasures.list_ids()
    assert {back.id: "erased", erasures.chats[1].id: "restored"} == erasures.read_last_words()


async def test_a_record_that_finds_no_room_stays_its_owners(
    erasures: ErasedChats, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that root has begun is given back, or the server could not open its record."""
    given: set[Path] = set()
    monkeypatch.setattr(returning, "give_to_owner", lambda file, _: given.add(file))
    monkeypatch.setattr(tombstones, "AuditLog", partial(AuditLog, max_file_bytes=1))
    monkeypatch.setattr(audit, "_write_at", refuse)
    assert 1 == erasures.restore("--bring-back-erased")
    assert "No space left" in capsys.readouterr().err
    names = ["audit-000001.jsonl", "audit-000002.jsonl", "lock"]
    assert names == sorted(path.name for path in (erasures.folder / "audit").iterdir())
    assert names == sorted(path.name for path in given)
    assert {erasures.chats[2].id} == await erasures.list_ids()


async def test_a_record_that_finds_no_room_is_told_of_once(erasures: ErasedChats) -> None:
    """By the refusal: no line is lost, as a stopping server's would be, whose log says so."""
    words = ["store", "restore", str(erasures.copy), "--state-folder", str(erasures.folder)]
    refused = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", WITHOUT_ROOM, *words, "--bring-back-erased"],
        capture_output=True,
        text=True,
    )
    told = f"llavachat-server: {os.strerror(errno.ENOSPC)}\n"
    assert (1, "", told) == (refused.returncode, refused.stdout, refused.stderr)


async def test_without_a_record_nobody_knows_what_was_erased(
    erasures: ErasedChats, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a new folder: that is said."""
    erasures.folder = tmp_path / "another"
    assert 0 == erasures.restore()
    said = capsys.readouterr().out
    assert f"; no audit record in {tmp_path}/another/audit tells which of them were" in said


async def test_a_damaged_tombstone_is_not_passed_by(
    erasures: ErasedChats, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a chat brought back for want of it; nothing is changed."""
    (file,) = (erasures.folder / "audit").glob("*.jsonl")
    file.write_text(file.read_text().replace('"chat_id"', '"chat"'))
    before = (erasures.folder / "chats.db").read_bytes()
    assert 1 == erasures.restore()
    assert "is damaged; see llavachat-server audit verify" in capsys.readouterr().err
    assert before == (erasures.folder / "chats.db").read_bytes()


async def test_what_was_erased_is_erased_from_an_older_releases_copy(erasures: ErasedChats) -> None:
    """Which is brought to today's form for that."""
    with closing(sqlite3.connect(erasures.copy)) as file, file:
        file.execute("DROP TABLE erasures")
        file.execute("ALTER TABLE builds DROP COLUMN tokenizer_sha256")
        file.execute("ALTER TABLE turns DROP COLUMN num_trimmed_turns")
        file.execute("ALTER TABLE turns ADD COLUMN trimmed_turn_ids TEXT NOT NULL DEFAULT '[]'")
        file.execute("UPDATE alembic_version SET version_num = '0007'")
    assert 0 == erasures.restore()
    assert {erasures.chats[2].id} == await erasures.list_ids()


async def test_a_copy_that_can_not_be_brought_to_todays_form_leaves_nothing(
    erasures: ErasedChats, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is anything changed; it says that it is older than it is."""
    with closing(sqlite3.connect(erasures.copy)) as file, file:
        file.execute("UPDATE alembic_version SET version_num = '0007'")
    before = {path.name for path in erasures.folder.iterdir()}
    assert 1 == erasures.restore()
    assert "what was erased can not be erased from the copy" in capsys.readouterr().err
    assert before == {path.name for path in erasures.folder.iterdir()}
