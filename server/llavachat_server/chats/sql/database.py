"""A database as the store needs it: opened so that a commit is durable, one owner, up to date.

Contract: an answer to "is it committed?" is true on disk. SQLite runs in WAL mode with
synchronous=FULL; a second server on the same database is refused, because the first thing that a
store does is to end the turns of a process that died.
"""

import errno
import logging
import os
import sqlite3
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from llavachat_server.chats.errors import StoreDamaged
from llavachat_server.chats.lock_file import take_lock
from llavachat_server.chats.sql.schema import HEAD

log = logging.getLogger("llavachat.store")

BUSY_SECONDS = 5.0
"""How long a statement waits for another process, such as a backup, to let go of the file."""

NUM_READERS = 4
"""Connections that read, each for a thread."""

_PAGE_BYTES = 4096

_NO_UTF_8 = "Could not decode to UTF-8"

DAMAGE_ADVICE = 'keep it, and restore a backup: see "Backup and restore" in docs/store.md'
"""What to do about a database that is not as it was written."""

MIGRATIONS = Path(__file__).parent / "migrations"


class StoreError(Exception):
    """The store can not be opened; one sentence for the operator."""


class NotOwned(Exception):
    """The database is another server's: nothing may be written."""


class Database:
    """One database, owned until `close`.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``; a path that may hold
            ``?`` or ``%`` comes as `sqlite_url` makes it.
        max_bytes: of an SQLite file; more is refused as a full disk is. None: the disk's size.

    Raises:
        StoreError: it can not be opened, is another server's, or is newer than this release.
    """

    def __init__(self, url: str | URL, *, max_bytes: int | None = None) -> None:
        self.url = _read_url(url)
        self._max_bytes = max_bytes
        self._lock_file: IO[bytes] | None = None
        self.lost: Future[str] = Future()
        """Done, with a sentence for the log, once another server owns the database."""
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.had_log = False
        """Whether an SQLite file's write-ahead log was there: its server was killed."""
        try:
            self._own_file()
            if not self.is_sqlite:
                # Here, because SQLite does not need its library.
                from llavachat_server.chats.sql.postgresql import Links, Owner

                self._links, self._owner = Links(self.url), Owner(self.lost)
            self.writing = self._make_engine("BEGIN IMMEDIATE", pool_size=1)
            self.reading = self._make_engine("BEGIN", pool_size=NUM_READERS)
            self._migrate()
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            self.close()
            raise self.refuse(error) from error
        except NotOwned:
            self.close()
            raise StoreError(
                f"store: another server uses {self._name}; give each its own database"
            ) from None
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        for name in ("writing", "reading"):
            engine: Engine | None = getattr(self, name, None)
            if engine is not None:
                engine.dispose()
        if self._lock_file is not None:
            self._lock_file.close()

    def refuse(self, error: Exception) -> StoreError:
        """Why it can not be opened, for the operator."""
        if is_full(error):
            grow = "" if self._max_bytes is None else ", or raise max_store_bytes,"
            return StoreError(
                f"store: there is no room for {self._name}: make some on its disk (1 MB will do)"
                f"{grow} and start again"
            )
        if is_damaged(error):
            return StoreError(f"store: {self._name} is damaged; {DAMAGE_ADVICE}")
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return StoreError(f"store: {self._name} can not be opened: {reason}")

    @property
    def _name(self) -> str:
        if self.is_sqlite:
            return self.url.database or ""
        return self.url.render_as_string(hide_password=True)

    def _own_file(self) -> None:
        """Take the lock beside an SQLite file."""
        if not self.is_sqlite:
            return
        path = Path(self.url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._lock_file = take_lock(path.with_name(path.name + ".lock"))
        except BlockingIOError:
            raise StoreError(
                f"store: another server uses {path}; stop it, or set another state_folder"
            ) from None
        self.had_log = path.with_name(path.name + "-wal").exists()
        # Made here, so that nobody else can read it, not even for a moment.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    def _make_engine(self, begin: str, pool_size: int) -> Engine:
        if not self.is_sqlite:
            options = {} if begin != "BEGIN" else {"isolation_level": "REPEATABLE READ"}
            engine = sqlalchemy.create_engine(
                self.url,
                pool_size=pool_size,
                max_overflow=0,
                pool_pre_ping=True,
                hide_parameters=True,
                **options,
            )
            # One connection writes, and as long as it lives it owns.
            self._links.serve(engine, None if begin == "BEGIN" else self._owner.take)
            return engine
        engine = sqlalchemy.create_engine(
            self.url,
            pool_size=pool_size,
            # What was said in a chat is not for the log, not even when it can not be kept.
            hide_parameters=True,
            connect_args={"check_same_thread": False, "isolation_level": None},
        )
        event.listen(engine, "connect", self._set_up_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _set_up_sqlite(self, connection: Any, _record: object) -> None:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {round(BUSY_SECONDS * 1000)}",
            # What was erased is overwritten.
            "secure_delete = ON",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if self._max_bytes is not None:
            connection.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // _PAGE_BYTES)}")

    def _migrate(self) -> None:
        with self.writing.begin() as connection:
            current = _read_revision(connection)
            if current == HEAD:
                return
            if current is None and sqlalchemy.inspect(connection).has_table("builds"):
                # A copy that was cut short, or a hand's work.
                raise StoreError(
                    f"store: {self._name} is not whole: it has chats, and not their version; "
                    f"{DAMAGE_ADVICE}"
                )
            if current is not None and not is_known_version(current):
                raise StoreError(
                    f"store: the database is of a newer llavachat (its version is {current}, this "
                    f"release knows {HEAD}); install that release again"
                )
            # Needed once in a database's life, and slow to import.
            from alembic import command

            logging.getLogger("alembic").setLevel(logging.WARNING)
            log.info("store migration", extra={"fields": {"from": current or "", "to": HEAD}})
            if self.is_sqlite:
                command.upgrade(alembic_config(connection), "head")
                return
            with self._links.patient():
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection) -> Any:
    """Alembic's configuration for the shipped migrations on an open connection."""
    from alembic.config import Config

    config = Config()
    # Alembic reads a `%` as the beginning of another option's name.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def is_full(error: Exception) -> bool:
    """Whether the database, or the system, said that no more fits.

    Source: https://www.sqlite.org/rescode.html and PostgreSQL's appendix A, class 53.
    """
    cause = _find_cause(error)
    if isinstance(cause, sqlite3.Error):
        name = getattr(cause, "sqlite_errorname", "")
        return name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return str(getattr(cause, "sqlstate", None) or "").startswith("53100")


def is_damaged(error: Exception) -> bool:
    """Whether the database found that what it has written is not what it reads.

    Source: https://www.sqlite.org/rescode.html and PostgreSQL's appendix A, class XX.
    """
    cause = _find_cause(error)
    if isinstance(cause, StoreDamaged):
        return True
    if isinstance(cause, sqlite3.Error):
        name = getattr(cause, "sqlite_errorname", "")
        # What Python's own module finds has no name.
        return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or _NO_UTF_8 in str(cause)
    return getattr(cause, "sqlstate", None) in ("XX001", "XX002")


def has_waited(error: Exception) -> bool:
    """Whether the database ended a statement that took too long, as one that waits for a lock.

    What was asked is undone, and the connection is good. Source: PostgreSQL's appendix A.
    """
    cause = error.orig if isinstance(error, DBAPIError) else None
    return getattr(cause, "sqlstate", None) in ("57014", "55P03")


def _find_cause(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def is_away(error: DBAPIError) -> bool:
    """Whether the database can not be asked now, or not for this.

    Class 25 is what a standby says, or a managed database whose disk is nearly full: read-only for
    a while. psycopg takes it for an internal error.

    Source: PostgreSQL's appendix A.
    """
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return isinstance(error, OperationalError) or state.startswith("25")


def sqlite_url(path: Path) -> URL:
    """The address of an SQLite file, whatever its path holds: in a text, ``?`` and ``%`` would be
    read as an address's."""
    return URL.create("sqlite+pysqlite", database=str(path.absolute()))


def _read_url(url: str | URL) -> URL:
    try:
        read = make_url(url)
    except ArgumentError:
        raise StoreError(
            "store: allowed: memory, sqlite, or postgresql://USER:PASSWORD@HOST/NAME"
        ) from None
    backend = read.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return read.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and read.database and read.database != ":memory:":
        return read.set(drivername="sqlite+pysqlite")
    raise StoreError("store: allowed: memory, sqlite, or postgresql://USER:PASSWORD@HOST/NAME")


def _read_revision(connection: Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    query = sqlalchemy.text("SELECT version_num FROM alembic_version")
    return connection.execute(query).scalar_one_or_none()


def is_known_version(revision: str) -> bool:
    """Whether this release can open a database of such a version."""
    return any(path.name.startswith(f"{revision}_") for path in (MIGRATIONS / "versions").iterdir())
