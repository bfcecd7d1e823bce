"""A copy of the chats' database, beside it, until a first boot has come to its good end.

A new release may bring the database to a form that the one before can not read, and does so before
it loads its model. If it then does not come to answer, the machine before would get chats that its
release refuses. So where the two know different forms, a copy is made before the new one starts,
and put back by whoever has the volume next: this machine when it steps back, or the one before
when it starts. It is removed before success is signalled, so that what stands is never gone back
from after it has answered.

A copy counts once its mark is there, which names the machine that made it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

NAME = "chats.db"
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database. Source: sqlite.org/wal.html."""

COPY = "chats.db.before-handover"
DRAFT = COPY + ".new"
MARK = COPY + ".json"
MIGRATION = re.compile(r"llavachat_server/chats/sql/migrations/versions/(\d+)_\w+\.py")
SPARE_BYTES = 512 * 2**20
"""Left free beside the copy: the new release writes as it changes the form."""

STEP_PAGES = 4096


def read_form(database: Path) -> str:
    """The form that a database is in, by its last migration; empty if it has none yet.

    Raises:
        RuntimeError: it is no database.
    """
    try:
        with closing(sqlite3.connect(database)) as connection:
            known = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
            if not connection.execute(known).fetchone():
                return ""
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(found[0]) if found else ""
    except sqlite3.Error as error:
        raise RuntimeError(f"{database} can not be read: {error}") from error


def read_newest_form(release: Path) -> str:
    """The form that a release brings a database to: the last migration in its wheel."""
    (wheel,) = release.glob("llavachat-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = [match for name in archive.namelist() if (match := MIGRATION.fullmatch(name))]
    return max(match[1] for match in found)


def keep(folder: Path, release: Path, instance: str, say: Callable[[str], None]) -> None:
    """Copy the database if this release will change its form; nothing may have it open.

    Args:
        folder: what holds the chats.
        release: the folder of the release that starts next.
        instance: the machine that it starts on.

    Raises:
        RuntimeError: there is no room, or it can not be read. Nothing was changed then.
    """
    settle(folder, instance, say)
    database = folder / NAME
    if not database.is_file():
        return
    form, newest = read_form(database), read_newest_form(release)
    if form == newest:
        return
    check_room(folder)
    say(f"the chats are of form {form or 'none'}, this release's is {newest}: keeping a copy")
    try:
        copy(database, folder / DRAFT)
    except (sqlite3.Error, OSError) as error:
        drop(folder)
        raise RuntimeError(f"the chats can not be copied: {error}") from error
    except BaseException:
        drop(folder)
        raise
    (folder / DRAFT).replace(folder / COPY)
    sync(folder)
    write_mark(folder, instance)


def check_room(folder: Path) -> None:
    """Refuse to start a copy that does not fit.

    Raises:
        RuntimeError: says what is free and what is needed.
    """
    beside = [folder / (NAME + ending) for ending in ("", *BESIDE)]
    need = sum(path.stat().st_size for path in beside if path.exists()) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < need:
        raise RuntimeError(
            f"the chats' volume has {free / 2**30:.1f} GiB free; this release changes the form of "
            f"the database, and a copy of it needs {need / 2**30:.1f} GiB: make chats_gib larger"
        )


def copy(database: Path, target: Path) -> None:
    """Copy a database as of its last commit, whatever of it still lies beside it; on the disk."""
    remove(target)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(target)) as copied:
        # In steps, between which the first boot's limit can end it.
        source.backup(copied, pages=STEP_PAGES)
    status = database.stat()
    os.chown(target, status.st_uid, status.st_gid)
    sync(target)


def write_mark(folder: Path, instance: str) -> None:
    """Say that the copy is whole, and whose it is."""
    draft = folder / (MARK + ".new")
    draft.write_text(json.dumps({"instance": instance}) + "\n")
    sync(draft)
    draft.replace(folder / MARK)
    sync(folder)


def is_kept(folder: Path) -> bool:
    """Whether there is a copy, and it is whole."""
    return (folder / MARK).is_file()


def put_back(folder: Path, say: Callable[[str], None]) -> None:
    """Return to the copy, if there is one that is whole; nothing may have the database open.

    It may be broken off anywhere and done again.
    """
    if not folder.is_dir():
        return
    if is_kept(folder) and (folder / COPY).is_file():
        say("putting the chats back in the form that they had before the update")
        for ending in BESIDE:
            (folder / (NAME + ending)).unlink(missing_ok=True)
        (folder / COPY).replace(folder / NAME)
        sync(folder)
    drop(folder)


def settle(folder: Path, instance: str, say: Callable[[str], None]) -> None:
    """Put back what a machine kept that did not come to its good end and is not this one."""
    if is_kept(folder) and json.loads((folder / MARK).read_text())["instance"] == instance:
        return
    put_back(folder, say)


def drop(folder: Path) -> None:
    """Remove the copy, or the part of one; the mark first, as it vouches for the rest."""
    (folder / MARK).unlink(missing_ok=True)
    sync(folder)
    for name in (COPY, DRAFT):
        remove(folder / name)


def remove(database: Path) -> None:
    """Remove a database and what lies beside it."""
    for ending in ("", *BESIDE):
        database.with_name(database.name + ending).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or a folder's names, on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
