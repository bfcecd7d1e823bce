"""Random chats that take room, and what retention must leave of them; for every database."""

import asyncio
import itertools
import json
from dataclasses import dataclass, replace

from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llavachat_server.chats.retention import Retention
from llavachat_server.chats.sql.database import alembic_config
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import IdleChat
from llavachat_server.values import FinishReason
from sqlalchemy import text
from store_records import end, make_chat, make_picture, make_turn

_histories = itertools.count()


@dataclass(frozen=True)
class Kept:
    """A chat to keep: its pictures' shades, its answer's length, whether its last turn runs."""

    minute: int
    shades: tuple[int, ...]
    num_chars: int
    is_running: bool


KEPT = st.builds(
    Kept,
    st.integers(0, 5),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 5000),
    st.booleans(),
)


def check_retention(store: SqlStore, max_examples: int) -> None:
    """Run random histories on an empty store and leave it empty."""

    @settings(max_examples=max_examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(KEPT, max_size=7), st.integers(0, 40_000))
    def run(kept: list[Kept], max_bytes: int) -> None:
        asyncio.run(_check(store, kept, max_bytes))

    run()


async def check_sizes_of_an_older_database(store: SqlStore) -> SqlStore:
    """Take the sizes away and migrate: the same are found. Returns the store, opened again."""
    for number in range(3):
        pictures = tuple(make_picture(shade) for shade in range(number))
        chat, turn = make_chat(), make_turn("Was ist das? 猫", tuple(p.info for p in pictures))
        await store.begin_chat(chat, turn, pictures, None)
        reason = FinishReason.STOP_SEQUENCE if number else FinishReason.EOS
        await store.finish_turn("ada", chat.id, end(turn, "Ein Kätzchen.", reason))
        await store.begin_turn("ada", chat.id, make_turn(parent_id=turn.id), (), None)
    before = await store.count_bytes()
    with store._database.writing.begin() as connection:
        command.downgrade(alembic_config(connection), "0003")
    url = store._database.url.render_as_string(hide_password=False)
    store.close()
    again = SqlStore(url)
    assert before == await again.count_bytes() > 0
    return again


async def check_trimmed_turns_of_an_older_database(store: SqlStore) -> SqlStore:
    """Name the turns that were left out, as once, and migrate: they are counted, and take no room.

    Returns the store, opened again.
    """
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn))
    last = make_turn(parent_id=turn.id)
    await store.begin_turn("ada", chat.id, last, (), None)
    before = await store.count_bytes()
    names = json.dumps([turn.id, "b" * 32])
    with store._database.writing.begin() as connection:
        command.downgrade(alembic_config(connection), "0009")
        query = "UPDATE turns SET trimmed_turn_ids = :names, num_bytes = num_bytes + :more"
        more = {"names": names, "more": len(names) - 2, "id": last.id}
        connection.execute(text(f"{query} WHERE id = :id"), more)
    url = store._database.url.render_as_string(hide_password=False)
    store.close()
    again = SqlStore(url)
    kept = await again.get_chat("ada", chat.id)
    assert [0, 2] == [turn.num_trimmed_turns for turn in kept.turns]
    assert before == await again.count_bytes()
    return again


async def _check(store: SqlStore, kept: list[Kept], max_bytes: int) -> None:
    tenant = f"{next(_histories)}"
    idle, running, erased = [], [], []
    assert 0 == await store.count_bytes()
    for number, wish in enumerate(sorted(kept, key=lambda wish: wish.minute)):
        # Within a minute too, later chats were used later.
        minutes = wish.minute + number / 100
        chat = make_chat(tenant, minutes)
        # One of two files for each picture, and for every third none.
        pictures = tuple(
            replace(picture, original=bytes([shade, number % 2]) * 500 if shade % 3 else None)
            for shade in wish.shades
            for picture in (make_picture(shade, (40, 30)),)
        )
        turn = make_turn("?", tuple(picture.info for picture in pictures), minutes)
        await store.begin_chat(chat, turn, pictures, None)
        before = await store.count_bytes()
        await store.finish_turn(tenant, chat.id, end(turn, "x" * wish.num_chars))
        assert wish.num_chars <= await store.count_bytes() - before < wish.num_chars + 500
        if wish.is_running:
            await store.begin_turn(tenant, chat.id, make_turn(minutes=minutes), (), None)
        (running if wish.is_running else idle).append(chat.id)

    async def erase(chat: IdleChat) -> bool:
        own, total = await store.count_own_bytes(tenant, chat.id), await store.count_bytes()
        assert total > max_bytes, "no more is erased than must be"
        assert await store.retire_chat(chat)
        assert own == total - await store.count_bytes()
        erased.append(chat.id)
        return True

    retention = Retention(store, erase, max_bytes=max_bytes)
    assert await retention.retire() == len(erased)
    assert idle[: len(erased)] == erased, "the one that was used longest ago goes first"
    assert await store.count_bytes() <= max_bytes or idle == erased
    assert 0 == await retention.retire()
    for chat_id in (*running, *idle[len(erased) :]):
        await store.delete_chat(tenant, chat_id)
    assert 0 == await store.count_bytes()
