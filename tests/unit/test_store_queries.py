"""What SQLite reads to find a page of chats: one index, in its order, and no more."""

from datetime import timedelta
from typing import Any

import pytest
from llavachat_server.chats import aside
from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.sql import reading, schema
from llavachat_server.chats.sql.reading import SHORT_CHATS
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery, PageMark
from sqlalchemy import event
from store_records import NOON, end, make_chat, make_turn

CHATS_INDEX = "ix_chats_tenant_updated_at_id (tenant=?"
LABELS_INDEX = (
    "COVERING INDEX ix_labels_tenant_name_value_updated_at_chat_id_label_bits "
    "(tenant=? AND name=? AND value=?"
)
NOW_AND_THEN = {"updated_since": NOON, "updated_before": NOON + timedelta(days=1)}
NEXT_PAGE = {"after": PageMark(NOON, "c")}


@pytest.mark.parametrize(
    ("fields", "leading", "start"),
    [
        ({}, None, f"SEARCH chats USING INDEX {CHATS_INDEX})"),
        (NOW_AND_THEN, None, f"{CHATS_INDEX} AND updated_at>? AND updated_at<?)"),
        (NEXT_PAGE, None, f"{CHATS_INDEX} AND (updated_at,id)<(?,?))"),
        ({"labels": {"a": "b"}}, ("a", "b"), f"{LABELS_INDEX})"),
        (
            {"labels": {"a": "b", "c": "d"}, **NOW_AND_THEN},
            ("c", "d"),
            f"{LABELS_INDEX} AND updated_at>? AND updated_at<?)",
        ),
        (
            {"labels": {"a": "b"}, **NEXT_PAGE},
            ("a", "b"),
            f"{LABELS_INDEX} AND (updated_at,chat_id)<(?,?))",
        ),
    ],
)
def test_a_page_is_read_from_one_index_in_its_order(
    store: SqlStore, fields: dict[str, Any], leading: tuple[str, str] | None, start: str
) -> None:
    """However many chats there are: nothing is scanned from its beginning, nothing sorted."""
    query = reading._page_query("ada", ChatQuery(**fields), leading)
    with store._database.reading.begin() as connection:
        text = query.compile(dialect=connection.dialect)
        values = tuple(text.params[name] for name in text.positiontup or ())
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
        steps = [row[3] for row in plan]
    assert start in steps[0], steps
    assert [] == [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step]


@pytest.mark.parametrize("num_rare", [0, 3])
async def test_of_several_labels_the_rarest_leads(store: SqlStore, num_rare: int) -> None:
    """It is what bounds how much is read; another tenant's chats are not counted."""
    for number in range(6):
        labels = {"common": "1", **({"rare": "1"} if number < num_rare else {})}
        await store.begin_chat(make_chat(labels=labels, minutes=number), make_turn(), (), None)
        await store.begin_chat(make_chat("bob", labels={"rare": "1"}), make_turn(), (), None)
    wanted = {"common": "1", "rare": "1"}
    with store._database.reading.begin() as connection:
        assert ("rare", "1") == reading._find_rarest(connection, "ada", wanted)
    page = await store.list_chats("ada", ChatQuery(labels=wanted))
    assert num_rare == len(page.chats)


async def test_the_filter_of_labels_is_read_first_and_not_believed(store: SqlStore) -> None:
    """What lacks a bit is passed by; what has all of them is looked at."""
    both, one, unmarked = (
        make_chat(labels={"a": "b", **more}, minutes=minute)
        for minute, more in enumerate(({"c": "d"}, {}, {"c": "d"}))
    )
    for chat in (both, one, unmarked):
        await store.begin_chat(chat, make_turn(), (), None)
    marks = schema.labels.c
    with store._database.writing.begin() as connection:
        for chat, bits in ((one, 2**63 - 1), (unmarked, 0)):
            is_its = marks.chat_id == chat.id
            connection.execute(schema.labels.update().where(is_its).values(label_bits=bits))
    page = await store.list_chats("ada", ChatQuery(labels={"a": "b", "c": "d"}))
    assert [both.id] == [found.id for found in page.chats]


async def test_a_branch_is_walked_by_indexes(store: SqlStore) -> None:
    """However long its chat is: no turn is looked at that is not on the way."""
    told: list[tuple[str, tuple[Any, ...]]] = []
    chat = make_chat()
    await store.begin_chat(chat, make_turn(), (), None)
    with store._database.reading.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *call: told.append(call[2:4]))
        with pytest.raises(NotFound):
            reading.read_branch(connection, "ada", chat.id, "no such turn")
        _, *branches = tuple(told)
        for statement, values in branches:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            scans = [row[3] for row in plan if row[3].startswith("SCAN")]
            assert ["SCAN branch"] * 2 == scans
    assert 2 == len(branches)


async def test_the_cut_turns_are_found_without_the_others(store: SqlStore) -> None:
    """A start does not read all that was ever said."""
    told: list[tuple[str, tuple[Any, ...]]] = []
    with store._database.reading.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *call: told.append(call[2:4]))
        reading.read_running(connection)
        ((statement, values),) = tuple(told)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        scans = [row[3] for row in plan if row[3].startswith("SCAN")]
    assert ["SCAN turns USING INDEX ix_turns_running"] == scans


@pytest.mark.parametrize(("num_turns", "num_times"), [(15, 0), (16, 1), (40, 2)])
async def test_reading_a_chat_gives_way_between_turns(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, num_turns: int, num_times: int
) -> None:
    """Whoever wants Python's lock meanwhile gets it before a long chat is read to its end."""
    given: list[float] = []
    monkeypatch.setattr(aside, "sleep", given.append)
    turns = [end(make_turn())]
    while len(turns) < num_turns:
        turns.append(end(make_turn(parent_id=turns[-1].id)))
    chat = make_chat(turns=tuple(turns))
    await store.add_chat(chat, ())
    assert chat.turns == (await store.get_branch("ada", chat.id, None)).turns
    assert num_times == len(given)
    assert all(seconds > 0 for seconds in given)


async def test_a_page_that_ends_early_is_not_read_to_its_end(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many chats are read a few at a time, and those alone that may be told."""
    for number in range(3 * SHORT_CHATS):
        await store.begin_chat(make_chat(minutes=number), make_turn(), (), None)

    def read_page(limit: int) -> tuple[int, list[Any]]:
        told: list[Any] = []
        with store._database.reading.begin() as connection:
            event.listen(connection, "before_cursor_execute", lambda *call: told.append(call[3]))
            page = reading.read_page(connection, "ada", ChatQuery(limit=limit))
        return len(page.chats), [SHORT_CHATS + 1 in values for values in told]

    assert (3 * SHORT_CHATS, [True] * 3) == read_page(1000)
    assert (SHORT_CHATS, [True]) == read_page(SHORT_CHATS)
    monkeypatch.setattr("llavachat_server.chats.store.MAX_PAGE_BYTES", 1)
    assert (1, [True]) == read_page(1000)
