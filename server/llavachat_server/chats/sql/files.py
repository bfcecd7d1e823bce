"""The files of SQLite databases while copies of them are made and put in place.

Contract: a draft is gone when its process ends it, however that comes about; what a killed one
leaves goes with the next draft in its place.
"""

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOG, SHARED_MEMORY, JOURNAL = "-wal", "-shm", "-journal"
"""What SQLite keeps beside a database. Source: https://www.sqlite.org/tempfiles.html."""

_ENDINGS = ("", LOG, SHARED_MEMORY, JOURNAL)

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def drafting(target: Path, *, is_owned: bool = False) -> Iterator[Path]:
    """A file beside the target that only its owner reads, gone afterwards.

    Args:
        target: what the draft may become.
        is_owned: nobody else can have a draft of it now.
    """
    _remove_left(target, is_owned=is_owned)
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        yield draft
    finally:
        # Who is told to stop twice would leave the rest.
        with uninterrupted():
            for file in list_there(draft):
                file.unlink()
            # Of who erased from it, or could not open it for that.
            beside(draft, ".lock").unlink(missing_ok=True)


@contextmanager
def uninterrupted() -> Iterator[Sequence[int]]:
    """Hold back what would stop this process, and tell of what has come: between two names there is
    no database, and a server would begin one.

    By handlers: what is blocked in this thread goes to another one, as a library's, and Python
    would take it up here all the same.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    try:
        # Of other threads it stops none.
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    before[number] = handler
                    signal.signal(number, lambda number, _: came.append(number))
        yield came
    finally:
        for taken, handler in before.items():
            signal.signal(taken, handler)
        for late in came:
            signal.raise_signal(late)


def give_to_owner(file: Path, folder: Path) -> None:
    """Have a file be its folder's owner's: the server could not open what root has made for it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


def list_there(path: Path) -> list[Path]:
    """What there is of a database: its file, and what SQLite has left beside it."""
    files = (beside(path, ending) for ending in _ENDINGS)
    return [file for file in files if os.path.lexists(file)]


def beside(path: Path, ending: str) -> Path:
    """The file whose name goes on so."""
    return path.with_name(path.name + ending)


def flush_folder(folder: Path) -> None:
    """Have names that have changed be so after a loss of power, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_left(target: Path, *, is_owned: bool) -> None:
    """Remove drafts whose processes were killed: the words of erased chats may be in them."""
    endings = "|".join(map(re.escape, (*_ENDINGS, ".lock")))
    name = re.compile(rf"\.{re.escape(target.name)}\.(\d{{1,9}})\.new(?:{endings})")
    # What can not be looked at, or is another user's, does not keep a copy from being made.
    with suppress(OSError):
        for file in target.parent.iterdir():
            match = name.fullmatch(file.name)
            if match and (is_owned or not _is_another(int(match[1]))):
                file.unlink(missing_ok=True)


def _is_another(process: int) -> bool:
    """Whether that is the number of another process that lives."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
