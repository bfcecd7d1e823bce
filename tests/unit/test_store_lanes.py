"""Who reads a database when: what is short at once, what is long by tenants in turn."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from llavachat_server.chats.errors import NotFound, StoreUnavailable, TooManyAtOnce
from llavachat_server.chats.sql import lanes
from llavachat_server.chats.sql.lanes import NUM_LONG
from llavachat_server.chats.sql.store import NUM_PACKERS, SqlStore
from llavachat_server.chats.store import ChatQuery
from sqlalchemy import Connection, text
from store_records import end, make_chat, make_picture, make_turn


class Hold:
    """A long read, which ends once it may."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.has_begun, self.may_end = threading.Semaphore(0), threading.Event()

    def __call__(self, connection: Connection) -> str:
        """Read, and wait."""
        connection.execute(text("SELECT 1"))
        self.num_begun += 1
        self.has_begun.release()
        self.may_end.wait()
        return "read"


def is_long(_: Connection) -> bool:
    """What says that a read is not short."""
    return False


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Let go at last, or else no thread would end."""
    hold = Hold()
    yield hold
    hold.may_end.set()


async def begin_many(store: SqlStore, hold: Hold, tenant: str) -> list["asyncio.Task[str]"]:
    """Begin more long reads of a tenant than there are threads; one has begun."""
    reads = [
        asyncio.create_task(store._lanes.read_by_size(tenant, is_long, hold))
        for _ in range(3 * NUM_LONG)
    ]
    await asyncio.to_thread(hold.has_begun.acquire)
    return reads


async def test_what_is_short_waits_for_nothing_long(store: SqlStore, hold: Hold) -> None:
    """Be it of the tenants who read so much, or of another; and so does a turn's beginning."""
    for tenant in ("ada", "bob"):
        await begin_many(store, hold, tenant)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    assert turn == await store.get_turn("ada", chat.id, turn.id)
    assert (turn,) == (await store.get_chat("ada", chat.id)).turns
    assert await store.find_claim("eve", "r") is None


async def test_a_tenant_that_reads_much_leaves_a_place(store: SqlStore, hold: Hold) -> None:
    """Long reads of another go on, however many of the first one's wait before them."""
    await begin_many(store, hold, "ada")
    own = Hold()
    own.may_end.set()
    for _ in range(2):
        assert "read" == await store._lanes.read_by_size("bob", is_long, own)
    assert (1, 2) == (hold.num_begun, own.num_begun)


async def test_who_leaves_gives_no_place_back_before_its_thread(
    store: SqlStore, hold: Hold
) -> None:
    """Or else who calls and leaves, again and again, would take all threads."""
    reads = await begin_many(store, hold, "ada")
    for read in reads:
        read.cancel()
    await asyncio.wait(reads)
    more = asyncio.create_task(store._lanes.read_by_size("ada", is_long, hold))
    await store.find_claim("ada", "r")
    assert 1 == hold.num_begun
    hold.may_end.set()
    assert "read" == await more


async def test_a_tenant_that_reads_too_much_is_told_so(
    store: SqlStore, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the database that does not answer, but for who has a thread."""

    def look(_: Connection) -> bool:
        # Now, because what is looked up may take its time.
        monkeypatch.setattr(lanes, "READ_SECONDS", 0.05)
        return False

    read = store._lanes.read_by_size
    with pytest.raises(StoreUnavailable):
        await read("ada", look, hold)
    monkeypatch.undo()
    with pytest.raises(TooManyAtOnce):
        await read("ada", look, hold)
    monkeypatch.undo()
    store._lanes._line._max_waiting_per_tenant = 0
    with pytest.raises(TooManyAtOnce):
        await read("ada", is_long, hold)


async def test_long_chats_and_large_pictures_wait_in_line(
    store: SqlStore, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is not there does not."""
    monkeypatch.setattr("llavachat_server.chats.sql.store.SHORT_TURNS", 1)
    monkeypatch.setattr("llavachat_server.chats.sql.store.SHORT_BYTES", 50)
    picture, chat = make_picture(1, (50, 50)), make_chat()
    first = end(make_turn(images=(picture.info,)))
    second = end(make_turn(parent_id=first.id))
    await store.add_chat(make_chat(id=chat.id, turns=(first, second)), (picture,))
    waiting = [
        *await begin_many(store, hold, "ada"),
        asyncio.create_task(store.get_chat("ada", chat.id)),
        asyncio.create_task(store.get_branch("ada", chat.id, second.id)),
        asyncio.create_task(store.get_png("ada", picture.info.id)),
        asyncio.create_task(store.list_chats("ada", ChatQuery(limit=101))),
    ]
    assert 1 == len((await store.list_chats("ada", ChatQuery(limit=100))).chats)
    assert first == await store.get_turn("ada", chat.id, first.id)
    assert picture.info == await store.get_image("ada", picture.info.id)
    for missing in (
        store.get_chat("ada", "x"),
        store.get_branch("ada", "x", None),
        store.get_png("ada", "x"),
        store.get_original("ada", picture.info.id),
    ):
        with pytest.raises(NotFound):
            await missing
    assert not any(read.done() for read in waiting)
    hold.may_end.set()
    *_, whole, branch, png, page = await asyncio.gather(*waiting)
    assert (first, second) == whole.turns == branch.turns  # type: ignore[attr-defined]
    assert picture.info == png[0]
    assert 1 == len(page.chats)


async def test_who_reads_does_not_wait_for_pictures_to_be_packed(store: SqlStore) -> None:
    """A large one takes a second."""
    has_begun = threading.Semaphore(0)

    def pack(may_end: threading.Event) -> None:
        has_begun.release()
        may_end.wait()

    may_end, (chat, turn) = threading.Event(), (make_chat(), make_turn())
    await store.begin_chat(chat, turn, (), None)
    packing = [asyncio.create_task(store._compute(pack, may_end)) for _ in range(2 * NUM_PACKERS)]
    try:
        for _ in range(NUM_PACKERS):
            await asyncio.to_thread(has_begun.acquire)
        assert (turn,) == (await store.get_chat("ada", chat.id)).turns
    finally:
        may_end.set()
        await asyncio.wait(packing)
