"""Copies of an SQLite database: taken beside a server that writes, put back while none does.

Contract: a copy is whole or not there at all, is its owner's alone, and holds all that was
committed when it was begun, also what lies in the write-ahead log still. It is one file, that needs
none beside it. Nothing here knows settings.
"""

import fcntl
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from llavachat_server.chats.sql import rows, writing
from llavachat_server.chats.sql.database import (
    BUSY_SECONDS,
    Database,
    StoreError,
    is_damaged,
    is_full,
    is_known_version,
    sqlite_url,
)
from llavachat_server.chats.sql.erasures import note_all, remove
from llavachat_server.chats.sql.files import (
    LOG,
    SHARED_MEMORY,
    beside,
    drafting,
    flush_folder,
    give_to_owner,
    list_there,
    uninterrupted,
)
from llavachat_server.chats.tombstones import ChatName

_BATCH = 500
"""Chats that are erased in one transaction."""

_NEVER = datetime.max.replace(tzinfo=UTC)

_STEP_PAGES = 4096
"""That are copied in one step, 16 MiB: what stops this process waits for one."""

_STEP_INSTRUCTIONS = 10_000
"""Of SQLite's machine, likewise while it looks for damage."""

_ADVICE = 'see "Backup and restore" in docs/store.md'


class CopyError(Exception):
    """It can not be done; one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be done to a copy before it takes the database's place.

    Args:
        erased: these of its chats are erased from it.
        noted: it is to know that these are erased, and since when: none of the chats that stay.
        settled: it need not know that these were erased, until then.
    """

    erased: Collection[ChatName] = ()
    noted: Mapping[ChatName, datetime] = field(default_factory=dict)
    settled: Mapping[ChatName, datetime] = field(default_factory=dict)


def leave_out(
    chats: Collection[ChatName], erased: Mapping[ChatName, datetime]
) -> dict[ChatName, datetime]:
    """What was erased but for these chats, the oldest first as before: that is forgotten first."""
    return {name: time for name, time in erased.items() if name not in chats}


class Account:
    """Who says which chats of a copy are not to return, and is told how that ends; this one lets
    all return. Asked while nobody else can own the database."""

    def choose(
        self, chats: Mapping[ChatName, datetime], erased: Mapping[ChatName, datetime] | None
    ) -> Choice:
        """What is to be done to a copy.

        Args:
            chats: the copy's, and when each was used last.
            erased: what the database that lies there knows to be erased, and since when. None: it
                can not be read.
        """
        return Choice(noted=leave_out(chats, erased or {}))

    def begin(self) -> None:
        """The copy takes the database's place now, unless this raises."""

    def undo(self) -> None:
        """It could not, after all."""


def back_up(path: Path, target: Path) -> int:
    """Copy a database, whether or not a server uses it. Blocks.

    Args:
        path: the database.
        target: becomes the copy; nothing may be there, nor beside it what SQLite would read as the
            copy's.

    Returns:
        How many chats the copy has.

    Raises:
        CopyError: there is no copy.
        OSError: likewise.
    """
    if not path.is_file():
        raise CopyError(f"there is no {path.name} in {path.parent}")
    for file in list_there(target):
        raise CopyError(f"{file} is there already; name another file")
    with drafting(target) as draft:
        # May write, since it takes in the log of a server that was killed.
        num_chats = _copy(path, "mode=rw", draft)
        draft.replace(target)
    flush_folder(target.parent)
    return num_chats


def restore(
    path: Path,
    source: Path,
    account: Account | None = None,
) -> tuple[int, Path | None]:
    """Put a copy in a database's place. Blocks.

    Args:
        path: the database; need not be there.
        source: the copy; stays as it is. Files that SQLite left beside it are read with it.
        account: chooses what is not to return. A copy of before is brought to this release's form
            where there is any.

    Returns:
        How many chats there are now; where the database of before lies, None where none was.

    Raises:
        CopyError: nothing was changed.
        OSError: likewise.
    """
    if not source.is_file():
        raise CopyError(f"there is no file {source}")
    account = account or Account()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _owning(path), drafting(path, is_owned=True) as draft:
        if path.exists() and path.samefile(source):
            raise CopyError(f"{source} is the database itself")
        has_log = beside(source, LOG).exists()
        num_chats = _copy(source, "mode=ro" if has_log else "mode=ro&immutable=1", draft)
        choice = account.choose(_list_chats(draft), read_erasures(path))
        known = read_erasures(draft) or {}
        settled = [name for name, time in choice.settled.items() if known.get(name, _NEVER) <= time]
        if choice.erased or choice.noted or settled:
            _erase(draft, choice, settled)
            num_chats -= len(choice.erased)
        give_to_owner(draft, path.parent)
        with uninterrupted():
            try:
                account.begin()
                kept = _put_aside(path)
                draft.replace(path)
            except BaseException:
                account.undo()
                raise
    flush_folder(path.parent)
    return num_chats, kept


def _copy(source: Path, access: str, draft: Path) -> int:
    """Copy and look whether all of it is there; the number of chats."""
    address = f"{source.absolute().as_uri()}?{access}"
    try:
        with (
            closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as old,
            closing(sqlite3.connect(draft)) as new,
        ):
            # One copy of one moment, however much a server writes between two steps; without this
            # each step would begin anew.
            old.execute("BEGIN")
            old.execute("SELECT count(*) FROM sqlite_master").fetchone()
            old.backup(new, pages=_STEP_PAGES, progress=_pause)
            # So that it needs no file beside it; a server that opens it sets this anew.
            new.execute("PRAGMA journal_mode = DELETE")
            if not _is_whole(new):
                raise CopyError(f"{source} is damaged; {_ADVICE}")
            return _count_chats(source, new)
    except sqlite3.Error as error:
        if is_full(error):
            raise CopyError(f"there is no room for a copy in {draft.parent}") from error
        if is_damaged(error):
            raise CopyError(f"{source} is damaged, or no database; {_ADVICE}") from error
        raise CopyError(f"{source} can not be copied: {error}") from error


def _pause(*_: int) -> None:
    """Between two steps of a copy: what stops this process comes here, and not within one."""


def _is_whole(copy: sqlite3.Connection) -> bool:
    """Whether nothing in it is damaged; what stops this process waits for a table's pages at most,
    from SQLite 3.41 on for a few of them."""
    look = "PRAGMA integrity_check(1)"
    with uninterrupted() as came:
        # An exception in it would be lost.
        copy.set_progress_handler(lambda: bool(came), _STEP_INSTRUCTIONS)
        try:
            found = copy.execute(look).fetchone()
        except sqlite3.OperationalError:
            if not came:
                raise
            found = None
        finally:
            copy.set_progress_handler(None, 0)
    if found is None:
        # A handler of the embedding program, which goes on.
        found = copy.execute(look).fetchone()
    return bool(found == ("ok",))


def _list_chats(draft: Path) -> dict[ChatName, datetime]:
    with closing(sqlite3.connect(draft)) as copy:
        chats = copy.execute("SELECT tenant, id, updated_at FROM chats")
        return {(tenant, chat_id): rows.read_time(time) for tenant, chat_id, time in chats}


def read_erasures(path: Path) -> dict[ChatName, datetime] | None:
    """What a database knows to be erased, be it damaged or of another release; see `erasures`.

    Nobody may write to it; it stays as it is.

    Returns:
        None: it is there and can not be read.
    """
    if not path.exists():
        return {}
    access = "mode=ro" if beside(path, LOG).exists() else "mode=ro&immutable=1"
    try:
        address = f"{path.absolute().as_uri()}?{access}"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as database:
            tables = "SELECT count(*) FROM sqlite_master WHERE name = 'erasures'"
            if database.execute(tables).fetchone() == (0,):
                return {}
            query = "SELECT tenant, chat_id, erased_at FROM erasures ORDER BY key"
            found = database.execute(query).fetchall()
    except sqlite3.Error:
        return None
    return {(tenant, chat_id): rows.read_time(time) for tenant, chat_id, time in found}


def _erase(draft: Path, choice: Choice, settled: Collection[ChatName]) -> None:
    """Erase chats as a server does, with their pictures; it is one file again afterwards."""
    try:
        database = Database(sqlite_url(draft))
        try:
            with database.writing.begin() as connection:
                remove(connection, settled)
                note_all(connection, choice.noted)
            rest = list(choice.erased)
            while rest:
                part, rest = rest[:_BATCH], rest[_BATCH:]
                with database.writing.begin() as connection:
                    for tenant, chat_id in part:
                        writing.erase_chat(connection, tenant, chat_id, is_noted=False)
        finally:
            database.close()
        with closing(sqlite3.connect(draft)) as new:
            new.execute("PRAGMA journal_mode = DELETE")
    except (SQLAlchemyError, StoreError) as error:
        if is_full(error):
            raise CopyError(f"there is no room for a copy in {draft.parent}") from error
        raise CopyError(f"what was erased can not be erased from the copy: {error}") from error


def _count_chats(source: Path, copy: sqlite3.Connection) -> int:
    try:
        version = copy.execute("SELECT version_num FROM alembic_version").fetchone()
        (num_chats,) = copy.execute("SELECT count(*) FROM chats").fetchone()
    except sqlite3.OperationalError:
        version = None
    if version is None:
        raise CopyError(f"{source} is no database of llavachat's")
    if not is_known_version(version[0]):
        raise CopyError(f"{source} is of a newer llavachat, whose version is {version[0]}")
    return int(num_chats)


@contextmanager
def _owning(path: Path) -> Iterator[None]:
    """Hold the lock that a server on this database holds."""
    lock = beside(path, ".lock")
    handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        give_to_owner(lock, path.parent)
        yield
    except BlockingIOError:
        raise CopyError(f"a server uses {path}; stop it first") from None
    finally:
        os.close(handle)


def _put_aside(path: Path) -> Path | None:
    """Rename the database with its log, which would be taken for that of the next one.

    For the same reason it gets no name whose database was removed and whose log was left.
    """
    beside(path, SHARED_MEMORY).unlink(missing_ok=True)
    if not path.exists():
        for file in list_there(path):
            file.unlink()
        return None
    names = (beside(path, f".before-restore-{number}") for number in count(1))
    kept = next(name for name in names if not list_there(name))
    for file in list_there(path):
        file.rename(beside(kept, file.name.removeprefix(path.name)))
    return kept
