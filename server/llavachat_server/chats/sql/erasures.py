"""What was erased, for as long as the audit record may not have it.

Contract: a chat is either there or, once it is erased, in this table, until the record's line is on
the disk: both change in one transaction. Where there is no record the table is all that knows, and
keeps the latest `MAX_ERASURES`.
"""

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime

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
        return {(row.tenant, row.chat_id): rows.read_time(row.erased_at) for row in found}

    def settle(self, names: Collection[ChatName]) -> None:
        """Say that the record has them; any thread may. They go with what is erased next, or at the
        end: a commit for each would cost as much as the erasure."""
        with self._lock:
            self._settled.update(names)

    def remove_settled(self) -> None:
        """Have those that are settled removed, in the commit that comes next."""
        with self._lock:
            names = frozenset(self._settled)
        if not names:
            return

        def forget(done: "Future[None]") -> None:
            if not done.cancelled() and done.exception() is None:
                with self._lock:
                    self._settled -= names

        done = self._writer.submit(lambda connection: remove(connection, names))
        done.add_done_callback(forget)


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
