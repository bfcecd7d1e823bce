"""What was erased goes out of SQLite's write-ahead log, and of the file, while a server runs.

Contract: an erasure overwrites its pages in the log; those of before stay behind them there, and in
`chats.db`, until a checkpoint, which on a quiet server nobody makes. So one is made soon after an
erasure, and once for all that gather meanwhile. What it copies it copies beside those who write
and read; they are kept out for the moment alone that the log, then empty, takes to be cut. Where a
reader, such as a backup, needs the log still, it is tried again.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

log = logging.getLogger("llavachat.store")

PAUSE_SECONDS = 5.0
"""From an erasure to the checkpoint, and between two tries: what many erasures in a row cost."""

TELL_SECONDS = 60.0
"""After which the log has it that something keeps the words of erased chats in the files."""

_WANTED = "SELECT count(*) FROM sqlite_master"
"""A connection that has read nothing knows of no log yet."""


class Checkpoints:
    """Empties the write-ahead log after erasures, in a thread.

    Args:
        path: of the database.
        in_line: has something done between two transactions of the one who writes.
    """

    def __init__(self, path: Path, in_line: Callable[[Callable[[], bool]], "Future[bool]"]) -> None:
        # Not made where somebody has taken it away.
        self._address = f"{path.absolute().as_uri()}?mode=rw"
        self._in_line = in_line
        self._is_wanted = threading.Event()
        self._is_closed = threading.Event()
        self._asking = threading.Lock()
        self._why = ""
        self._thread = threading.Thread(target=self._run, name="store-checkpoints", daemon=True)
        self._thread.start()

    def note_erasure(self) -> None:
        """Have the log emptied soon; may be called within the erasure's transaction."""
        self._is_wanted.set()

    def stop(self) -> None:
        """Ask the writer for nothing more; it may be closed after this."""
        with self._asking:
            self._is_closed.set()
        self._is_wanted.set()

    def join(self, max_seconds: float) -> None:
        """Wait for the end of what was begun, no longer than this. Blocks."""
        self._thread.join(max_seconds)

    def _run(self) -> None:
        while self._is_wanted.wait() and not self._is_closed.wait(PAUSE_SECONDS):
            # Before the checkpoint: who erases meanwhile wants another one.
            self._is_wanted.clear()
            self._see_through()

    def _see_through(self) -> None:
        began, is_told = time.monotonic(), False
        while not self._empty():
            if not is_told and time.monotonic() - began >= TELL_SECONDS:
                is_told = True
                log.warning(
                    "what was erased is in the write-ahead log still",
                    extra={"fields": {"why": self._why}},
                )
            if self._is_closed.wait(PAUSE_SECONDS):
                return

    def _empty(self) -> bool:
        """Copy what the log has, and cut it; whether nothing is left in it."""
        # However much it is, nobody waits for this.
        if not self._checkpoint("PASSIVE"):
            return False
        with self._asking:
            if self._is_closed.is_set():
                return False
            done = self._in_line(lambda: self._checkpoint("TRUNCATE"))
        return done.result()

    def _checkpoint(self, mode: str) -> bool:
        """Source of the modes and of what is told: https://www.sqlite.org/pragma.html."""
        try:
            # Nobody is waited for: the one who writes would wait as well.
            with closing(sqlite3.connect(self._address, uri=True, timeout=0)) as own:
                own.execute(_WANTED).fetchone()
                is_busy, _, _ = own.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            self._why = str(error)
            return False
        self._why = "a reader, such as a backup, needs it"
        return not is_busy
