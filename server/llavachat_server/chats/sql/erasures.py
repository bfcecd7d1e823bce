"""What was erased, for as long as the audit record may not have it.

Contract: a chat is either there or, once it is erased, in this table, until the record's line is on
the disk: both change in one transaction. Where there is no record the table is all that knows, and
keeps the latest `MAX_ERASURES`.
"""

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import islice

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from llavachat_server.chats.sql import rows
from llavachat_server.chats.sql.database import Database
from llavachat_server.chats.sql.schema import erasures
from llavachat_server.chats.sql.writer import Writer
from llavachat_server.chats.tombstones import ChatName

MAX_ERASURES = 100_000
"""Of about a hundred bytes each."""

MAX_REMOVED = 500
"""Rows that go with one erasure, which waits for that."""


class Erasures:
    """A store's table of them.

    Args:
        database: of the store.
        writer: of the store.
    """

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        self._lock = threading.Lock()
        self._settled: set[ChatName] = set()
        # What was read, and its last row's key and latest time: all of it goes at once. SQLite
        # gives keys again once their rows are gone, to what was erased later.
        self._read: frozenset[ChatName] = frozenset()
        self._read_last = self._settled_last = (0, 0)

    def read(self) -> dict[ChatName, datetime]:
        """When each was erased, the oldest first. Blocks.

        Raises:
            StoreError: they can not be read.
        """
        query = sa.select(erasures).order_by(erasures.c.key)
        try:
            with self._database.reading.begin() as connection:
                found = connection.execute(query).all()
        except DBAPIError as error:
            raise self._database.refuse(error) from error
        erased = {(row.tenant, row.chat_id): rows.read_time(row.erased_at) for row in found}
        with self._lock:
            self._read = frozenset(erased)
            self._read_last = (
                max((row.key for row in found), default=0),
                max((row.erased_at for row in found), default=0),
            )
        return erased

    def settle(self, names: Collection[ChatName]) -> None:
        """Say that the record has them; any thread may. They go with what is erased next, or at the
        end: a commit for each would cost as much as the erasure."""
        with self._lock:
            rest = set(names)
            if self._read and self._read <= rest:
                rest -= self._read
                self._settled_last, self._read = self._read_last, frozenset()
            self._settled |= rest

    def remove_settled(self, *, is_last: bool = False) -> None:
        """Have those that are settled removed, in the commit that comes next.

        Args:
            is_last: nothing waits for the next call.
        """
        with self._lock:
            names = frozenset(islice(self._settled, None if is_last else MAX_REMOVED))
            self._settled -= names
            (last_key, last_time), self._settled_last = self._settled_last, (0, 0)
        if not names and not last_key:
            return

        def put_back(done: "Future[None]") -> None:
            if done.cancelled() or done.exception() is not None:
                with self._lock:
                    self._settled |= names
                    self._settled_last = max(self._settled_last, (last_key, last_time))

        def work(connection: Connection) -> None:
            if last_key:
                is_read = (erasures.c.key <= last_key) & (erasures.c.erased_at <= last_time)
                connection.execute(erasures.delete().where(is_read))
            remove(connection, names)

        self._writer.submit(work).add_done_callback(put_back)


def note(connection: Connection, name: ChatName) -> None:
    """Keep that a chat is erased now, in the transaction that erases it."""
    note_all(connection, {name: datetime.now(UTC)})


def note_all(connection: Connection, erased: Mapping[ChatName, datetime]) -> None:
    """Keep that chats are erased, and since when."""
    noted = [
        {"tenant": tenant, "chat_id": chat_id, "erased_at": rows.write_time(time)}
        for (tenant, chat_id), time in erased.items()
    ]
    if noted:
        connection.execute(erasures.insert(), noted)
    first = sa.select(sa.func.max(erasures.c.key) - MAX_ERASURES).scalar_subquery()
    connection.execute(erasures.delete().where(erasures.c.key <= first))


def remove(connection: Connection, names: Collection[ChatName]) -> None:
    """Forget that chats are erased."""
    if not names:
        return
    is_it = sa.and_(
        erasures.c.tenant == sa.bindparam("name"), erasures.c.chat_id == sa.bindparam("id")
    )
    found = [{"name": tenant, "id": chat_id} for tenant, chat_id in names]
    connection.execute(erasures.delete().where(is_it), found)
