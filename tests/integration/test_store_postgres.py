"""The store on a real PostgreSQL."""

from pathlib import Path

import grpc
import grpc.aio
import pytest
from app_in_process import run_app
from imports import import_chat, read_export, strip_ids
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.sql import postgresql
from llavachat_server.chats.sql.database import StoreError
from llavachat_server.chats.sql.store import SqlStore
from pictures import draw_shape, encode, red_circle
from retention_history import (
    check_retention,
    check_sizes_of_an_older_database,
    check_trimmed_turns_of_an_older_database,
)
from scripted_engine import ScriptedEngine
from sqlalchemy.engine import make_url
from store_contract import StoreContract
from store_machine import compare_with_memory
from store_records import end, make_chat, make_turn


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


async def test_an_older_database_has_its_left_out_turns_counted(store: SqlStore) -> None:
    """Instead of named in each turn, which took more room than all else."""
    (await check_trimmed_turns_of_an_older_database(store)).close()


async def test_a_second_opening_cancels_what_ran(postgres_url: str, store: SqlStore) -> None:
    """As on SQLite."""
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn))
    await store.begin_turn("ada", chat.id, make_turn(), (), None)
    store.close()
    again = SqlStore(postgres_url)
    try:
        turns = (await again.get_chat("ada", chat.id)).turns
        assert [TurnState.FINISHED, TurnState.CANCELLED] == [turn.state for turn in turns]
        assert end(turn) == turns[0]
    finally:
        again.close()


async def test_an_erasure_is_known_until_the_record_has_it(
    postgres_url: str, store: SqlStore
) -> None:
    """As on SQLite: the next opening has those whose lines are not known to be written."""
    chats = [make_chat("ada\0"), make_chat()]
    for chat in chats:
        await store.begin_chat(chat, make_turn(), (), None)
        await store.delete_chat(chat.tenant, chat.id)
    names = [(chat.tenant, chat.id) for chat in chats]
    assert names == list(store.erasures.read())
    store.erasures.settle({names[0]})
    store.close()
    again = SqlStore(postgres_url)
    try:
        assert names[1:] == list(again.erasures.read())
    finally:
        again.close()


def test_another_server_is_refused(
    postgres_url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on one database would end each other's turns."""
    monkeypatch.setattr(postgresql, "OWNER_SECONDS", 0.0)
    with pytest.raises(StoreError, match="another server uses"):
        SqlStore(postgres_url)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    """The operator's sentence holds no secret."""
    with pytest.raises(StoreError) as caught:
        SqlStore("postgresql://ada:secret@127.0.0.1:1/chats")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1/chats can not be opened" in str(caught.value)


def test_an_address_says_how_long_is_waited() -> None:
    """What it names stays; the rest is bounded."""
    url = make_url("postgresql://ada@db/chats?connect_timeout=60&keepalives_idle=9")
    assert {"keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000} == (
        postgresql.choose_arguments(url)
    )


async def test_a_chat_goes_out_and_comes_in_over_the_wire(
    postgres_url: str, tmp_path: Path
) -> None:
    """Words that PostgreSQL can not hold as they are, two pictures, and a refused import."""
    words = "A star \0 \x1a0 and </s>."
    flags = ("--store", postgres_url, "--state-folder", str(tmp_path))
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
