"""Chats that are erased by their age and by what they take, on SQLite."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.chats import retention
from llavachat_server.chats.audit import AuditLog, list_files, verify
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.errors import NotFound, StoreUnavailable
from llavachat_server.chats.record import Chat
from llavachat_server.chats.retention import Retention
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery, IdleChat
from llavachat_server.settings import load
from retention_history import (
    check_retention,
    check_sizes_of_an_older_database,
    check_trimmed_turns_of_an_older_database,
)
from store_records import end, make_chat, make_turn


async def keep(store: SqlStore, age: timedelta, num_chars: int = 10) -> Chat:
    """A chat that was used so long ago."""
    time = datetime.now(UTC) - age
    chat, turn = make_chat(created_at=time, updated_at=time), make_turn(created_at=time)
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn, "x" * num_chars))
    return chat


def erase_from(store: SqlStore | AuditedStore) -> retention.EraseChat:
    """What retention calls."""

    return store.retire_chat


def test_the_oldest_go_until_it_is_enough(store: SqlStore) -> None:
    """Whatever is kept, shared or being answered."""
    check_retention(store, max_examples=40)


async def test_an_older_database_is_measured(store: SqlStore) -> None:
    """By the migration, as it would have been kept."""
    (await check_sizes_of_an_older_database(store)).close()


async def test_an_older_database_has_its_left_out_turns_counted(store: SqlStore) -> None:
    """Instead of named in each turn, which took more room than all else."""
    (await check_trimmed_turns_of_an_older_database(store)).close()


async def test_chats_beyond_their_age_are_erased(store: SqlStore) -> None:
    """Age counts from the last use; younger chats stay. More than one batch is no hindrance."""
    old = [await keep(store, timedelta(days=3)) for _ in range(retention.BATCH + 1)]
    young = await keep(store, timedelta(hours=1))
    chats = Retention(store, erase_from(store), max_age=timedelta(days=2))
    assert len(old) == await chats.retire()
    with pytest.raises(NotFound):
        await store.get_chat("ada", old[0].id)
    assert young.id == (await store.get_chat("ada", young.id)).id
    assert 0 == await chats.retire()


async def test_the_longest_age_that_may_be_set_is_a_time(store: SqlStore) -> None:
    """Nothing is that old, and the limit of size holds beside it."""
    max_age_days = load(["--max-chat-age-days", "36500"]).max_chat_age_days
    assert max_age_days is not None
    await keep(store, timedelta(days=9))
    max_age = timedelta(days=max_age_days)
    assert 0 == await Retention(store, erase_from(store), max_age).retire()
    assert 1 == await Retention(store, erase_from(store), max_age, 0).retire()


async def test_both_limits_hold(store: SqlStore) -> None:
    """What is young is erased all the same where there is too much."""
    chats = [await keep(store, timedelta(hours=9 - hour), 10_000) for hour in range(9)]
    await keep(store, timedelta(days=9))
    both = Retention(store, erase_from(store), timedelta(days=2), 4 * 12_000)
    assert 1 + 5 == await both.retire()
    kept = [(await store.get_chat("ada", chat.id)).id for chat in chats[5:]]
    assert [chat.id for chat in chats[5:]] == kept


async def test_a_clock_that_went_back_hinders_nothing(store: SqlStore) -> None:
    """Chats of the future are old enough to give way."""
    await keep(store, timedelta(days=-400))
    assert 1 == await Retention(store, erase_from(store), max_bytes=0).retire()


async def test_a_chat_that_is_answered_or_gone_is_passed_over(store: SqlStore) -> None:
    """Neither stops the others from being erased, and neither is tried for ever."""
    busy, gone, idle = [await keep(store, timedelta(days=3 - day)) for day in range(3)]
    real = erase_from(store)

    async def erase(idle: IdleChat) -> bool:
        if idle.id == gone.id:
            raise NotFound("chat", idle.id)
        return idle.id != busy.id and await real(idle)

    assert 0 == await store.count_own_bytes("ada", "0" * 32)
    assert 1 == await Retention(store, erase, max_bytes=0).retire()
    with pytest.raises(NotFound):
        await store.get_chat("ada", idle.id)
    assert 0 == await Retention(store, erase, timedelta(hours=1), 0).retire()


@pytest.mark.parametrize(
    ("limit", "staying"),
    [({"max_age": timedelta(days=1.5)}, [1, 2]), ({"max_bytes": 15_000}, [1])],
)
async def test_a_chat_that_is_used_after_it_was_found_stays(
    store: SqlStore, limit: dict[str, Any], staying: list[int]
) -> None:
    """Many are found at once, and erased one by one: who comes in between keeps the chat."""
    chats = [await keep(store, timedelta(days=3 - day), 10_000) for day in range(3)]

    async def erase(idle: IdleChat) -> bool:
        if idle.id == chats[0].id:
            # While the clock is behind: the time of its last use stays as it was found.
            turn = make_turn(created_at=chats[1].created_at - timedelta(hours=1))
            await store.begin_turn("ada", chats[1].id, turn, (), None)
            await store.finish_turn("ada", chats[1].id, end(turn))
        return await store.retire_chat(idle)

    assert 3 - len(staying) == await Retention(store, erase, **limit).retire()
    listed = (await store.list_chats("ada", ChatQuery())).chats
    assert {chats[number].id for number in staying} == {chat.id for chat in listed}
    assert 2 == len((await store.get_chat("ada", chats[1].id)).turns)


async def test_a_tombstone_stays_for_each(store: SqlStore, tmp_path: Path) -> None:
    """The audit record tells what became of them."""
    log = AuditLog(tmp_path / "audit")
    chats = [await keep(store, timedelta(days=2 - day)) for day in range(2)]
    await Retention(store, erase_from(AuditedStore(store, log)), max_bytes=0).retire()
    log.close()
    lines = list_files(tmp_path / "audit")[0].read_text().splitlines()
    for chat, line in zip(chats, lines, strict=True):
        assert '"event":"erased"' in line
        assert chat.id in line
    assert verify(tmp_path / "audit").fault is None


class Absent:
    """A store that does not answer at first, but with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.num_calls = 0
        self.answered = asyncio.Event()

    async def find_idle(self, before: datetime, limit: int) -> Sequence[IdleChat]:
        """Fail once."""
        self.num_calls += 1
        if self.num_calls == 1:
            raise self.error
        self.answered.set()
        return ()

    async def count_bytes(self) -> int:
        """Too much, and nothing can be done about it."""
        return 1

    async def count_own_bytes(self, tenant: str, chat_id: str) -> int:
        """There is none."""
        return 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnavailable(1.0), "retention waits: the server can not reach its chats now"),
        (OverflowError("date value out of range"), "retention failed"),
    ],
)
async def test_a_store_that_fails_is_asked_again(
    error: Exception,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Retention waits and says so, whatever it is; the server goes on."""
    monkeypatch.setattr(retention, "SIZE_PAUSE_SECONDS", 0.0)
    store = Absent(error)

    async def erase(idle: IdleChat) -> bool:
        raise AssertionError

    task = asyncio.create_task(Retention(store, erase, max_bytes=0).run())
    await asyncio.wait_for(store.answered.wait(), 10)
    task.cancel()
    assert told in caplog.text
