"""The chats' database while another release takes over.

A release may bring the database to a form that the one before it can not read. If it then does not
answer, the one before could not come back either; so a copy is made first, and put back with it.
Only a server that has never answered is gone back from in this way, so that no turn is lost.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from llavachat_host import layout
from llavachat_host.machine import GIB, free_gib
from llavachat_host.release import find_packages
from llavachat_host.steps import HostError, Steps

NAME = "chats.db"
COPY = "chats.db.before-update"
ENDINGS = ("", "-wal", "-shm")
"""SQLite keeps what is not yet in the database itself beside it. Source: sqlite.org/wal.html."""
SPARE_GIB = 0.5


def read_forms(release: Path) -> set[str]:
    """The forms of the database that a release knows: the names of its migrations."""
    packages = find_packages(release / "venv")
    folder = packages / "llavachat_server" / "chats" / "sql" / "migrations" / "versions"
    return {path.name for path in folder.glob("[0-9]*.py")}


def needs_copy(running: Path | None, release: Path, state: Path = layout.STATE) -> bool:
    """Whether there is a database, and the two releases do not know the same forms of it."""
    if running is None or not (state / NAME).is_file():
        return False
    return read_forms(running) != read_forms(release)


def check_room(state: Path = layout.STATE) -> None:
    """Refuse an update for whose copy there is no room.

    Raises:
        HostError: says what is free and what is needed.
    """
    sizes = [(state / (NAME + ending)) for ending in ENDINGS]
    need = sum(path.stat().st_size for path in sizes if path.exists()) / GIB + SPARE_GIB
    if (free := free_gib(state)) < need:
        raise HostError(
            f"disk: {free:.1f} GiB free for {state}; this release changes the database's form, and "
            f"a copy of it needs {need:.1f} GiB"
        )


def keep(steps: Steps, state: Path = layout.STATE) -> None:
    """Copy the database; the service must not run."""
    with steps.step("copy of the chats, whose form changes"):
        for ending in ENDINGS:
            carry(state / (NAME + ending), state / (COPY + ending))


def put_back(steps: Steps, state: Path = layout.STATE) -> None:
    """Return to the copy; the service must not run."""
    with steps.step("the chats in their form of before"):
        for ending in ENDINGS:
            (state / (NAME + ending)).unlink(missing_ok=True)
            if (copy := state / (COPY + ending)).exists():
                copy.replace(state / (NAME + ending))


def drop(state: Path = layout.STATE) -> None:
    """Remove the copy."""
    for ending in ENDINGS:
        (state / (COPY + ending)).unlink(missing_ok=True)


def carry(source: Path, target: Path) -> None:
    """Copy one file with its owner; what is not there is not there afterwards."""
    target.unlink(missing_ok=True)
    if source.exists():
        shutil.copy2(source, target)
        status = source.stat()
        os.chown(target, status.st_uid, status.st_gid)
