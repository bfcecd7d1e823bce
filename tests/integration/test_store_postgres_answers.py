"""Commits that are done, and whose answers are lost with the connection to PostgreSQL."""

import asyncio
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from app_in_process import until
from chat_room import begun, collect, make_turns, text
from held_writer import hold_writer
from llavachat_server.chats import audited
from llavachat_server.chats.audit import AuditLog, list_files
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.errors import NotFound, StoreUnavailable
from llavachat_server.chats.live import LiveTurn, TurnEvent
from llavachat_server.chats.question import NewChat, Place, Question
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery
from llavachat_server.values import hash_request_id
from scripted_engine import ScriptedEngine
from sqlalchemy import Connection, event
from store_records import end, make_chat, make_import, make_picture, make_turn


def lose_answer(store: SqlStore, postgres_url: str, num_before: int = 0) -> None:
    """The next commit but so many is done, and the connection breaks before its answer comes."""
    numbers = itertools.count()

    def commit(connection: Connection) -> None:
        if next(numbers) != num_before:
            return
        driver: Any = connection.connection.driver_connection
        driver.commit()
        driver.execute("SELECT 1")
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 60000)", [driver.info.backend_pid])

    event.listen(store._database.writing, "commit", commit)


async def test_a_beginning_whose_answer_is_lost_locks_no_chat(
    postgres_url: str, store: SqlStore, tmp_path: Path
) -> None:
    """It is there, and nobody was told: it ends, and its repeat is answered anew."""
    log = AuditLog(tmp_path)
    turns = make_turns(ScriptedEngine(*["One."] * 9), AuditedStore(store, log))

    def ask(where: NewChat | Place, request_id: str) -> LiveTurn:
        return turns.ask("ada", Question(where, "What?", request_id=request_id, body_sha256="b"))

    for where in (NewChat(), Place("")):
        if isinstance(where, Place):
            where = Place((await store.list_chats("ada", ChatQuery())).chats[0].id)
        lose_answer(store, postgres_url)
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
    told = [(line["turn_id"], line["request_id_sha256"], line["finish_reason"]) for line in lines]
    ids = [hash_request_id(request_id) for request_id in ["of NewChat"] * 2 + ["of Place"] * 2]
    reasons = ["shutdown", "eos"] * 2
    assert [*zip([turn.id for turn in chat.turns], ids, reasons, strict=True)] == told


async def test_works_that_share_a_commit_whose_answer_is_lost_are_not_done_again(
    postgres_url: str, store: SqlStore
) -> None:
    """A second try would find the first one's turn, and tell its caller that another runs."""
    chats = [make_chat() for _ in range(3)]
    async with hold_writer(store):
        begins = [
            asyncio.create_task(store.begin_chat(chat, make_turn(), (), None)) for chat in chats
        ]
        await asyncio.sleep(0)
        lose_answer(store, postgres_url, num_before=1)
    errors = await asyncio.gather(*begins, return_exceptions=True)
    assert [StoreUnavailable(2.0, may_be_done=True)] * 3 == errors
    for chat in chats:
        assert TurnState.RUNNING is (await store.get_chat("ada", chat.id)).turns[0].state


async def test_an_erasure_whose_answer_is_lost_has_its_tombstone(
    postgres_url: str, store: SqlStore, tmp_path: Path
) -> None:
    """The chat is gone, or will be: the record says so."""
    log = AuditLog(tmp_path)
    chat = make_chat()
    await store.begin_chat(chat, make_turn(), (), None)
    lose_answer(store, postgres_url)
    with pytest.raises(StoreUnavailable):
        await AuditedStore(store, log).delete_chat("ada", chat.id)
    log.close()
    (line,) = (json.loads(line) for line in list_files(tmp_path)[0].read_text().splitlines())
    assert ("erased", chat.id) == (line["event"], line["chat_id"])
    with pytest.raises(NotFound):
        await store.get_chat("ada", chat.id)


async def test_a_retired_chat_whose_answer_is_lost_has_its_tombstone(
    postgres_url: str, store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the database can say that it is gone."""
    monkeypatch.setattr(audited, "FULL_RETRY_SECONDS", 0.01)
    log = AuditLog(tmp_path)
    keeping = AuditedStore(store, log)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn))
    (idle,) = await store.find_idle(datetime.max.replace(tzinfo=UTC), 1)
    lose_answer(store, postgres_url)
    with pytest.raises(StoreUnavailable):
        await keeping.retire_chat(idle)
    assert keeping._retry is not None
    await keeping._retry
    log.close()
    (line,) = (json.loads(line) for line in list_files(tmp_path)[0].read_text().splitlines())
    assert ("erased", chat.id) == (line["event"], line["chat_id"])


async def test_an_import_whose_answer_is_lost_is_not_kept(
    postgres_url: str, store: SqlStore
) -> None:
    """Its sender was told so."""
    first, second = make_picture(1), make_picture(2)
    lose_answer(store, postgres_url)
    with pytest.raises(StoreUnavailable):
        await store.add_chat(make_import(first, second), (first, second))
    await until(lambda: store.list_chats("ada", ChatQuery()), lambda page: not page.chats)
