"""The audit record: a chain of lines that no one can alter unseen.

Contract: `AuditLog.append` returns when its line is on the disk, and not before. Every line is a
JSON object; its last field, `sha256`, is over the bytes before it, and its field `previous` is
the `sha256` of the line before, across files. So any altered, added, moved or missing byte is
found by `verify`, but for lines that are missing at the very end: note the last hash elsewhere.

It must not know chats: a record is a mapping. It belongs to one process.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

from llavachat_server.chats.lock_file import take_lock

FIRST = "0" * 64
"""What the first line of all names as the hash before it."""

_NAME = re.compile(r"audit-(\d{6})\.jsonl")
_TAIL = re.compile(rb',"sha256":"([0-9a-f]{64})"\}\n')
_TAIL_BYTES = len(',"sha256":""}\n') + 64

END_SECONDS = 2.0
"""Who verifies may read half of a line that a server is writing just now; far above what the other
half takes. Whether a server runs at all is not asked: to try its lock would be to take it, and one
that starts in that moment would be refused."""

_MOMENT_SECONDS = 0.02


class AuditError(Exception):
    """The record can not be opened or written; one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `verify` found.

    Args:
        num_lines: lines that are whole and in their place.
        last_sha256: the hash of the last of them.
        fault: what is wrong first; None when nothing is.
        file: the file of the fault.
        line: its line, counted from 1.
        byte: where that line begins in the file, counted from 0.
    """

    num_lines: int
    last_sha256: str
    fault: str | None = None
    file: Path | None = None
    line: int = 0
    byte: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """Lines that a closed record lacks.

    Args:
        num_lines: so many.
        why: the system's word.
    """

    num_lines: int
    why: str


class AuditLog:
    """Appends to the record in a folder.

    Args:
        folder: made when it is missing.
        max_file_bytes: a file that has grown beyond this is followed by a new one.

    Raises:
        AuditError: the folder can not be used, is another server's, or its last line is damaged.
    """

    def __init__(self, folder: Path, *, max_file_bytes: int = 64 * 1024**2) -> None:
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._lock = threading.Lock()
        self._waiting: list[tuple[dict[str, Any], Future[None]]] = []
        # Records that found no room; they go before the next ones.
        self._late: list[dict[str, Any]] = []
        self._is_behind = False
        self._is_torn = False
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = _own(folder)
            self._previous, self._number = FIRST, 1
            files = list_files(folder)
            num_torn_bytes = 0
            if files:
                self._number = _read_number(files[-1])
                num_torn_bytes = _cut_torn_line(files[-1])
                self._previous = _read_last_hash(files)
            self._handle = self._open(self._number)
            self._end = os.fstat(self._handle).st_size
        except OSError as error:
            raise AuditError(f"audit: {error.filename or folder}: {error.strerror}") from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        if num_torn_bytes:
            # Where the disk is full, it is written before whatever comes next.
            with suppress(OSError):
                self.append({"event": "repaired", "num_torn_bytes": num_torn_bytes}).result()

    @property
    def is_behind(self) -> bool:
        """Whether lines wait that found no room."""
        return self._is_behind

    def append(self, record: Mapping[str, Any]) -> "Future[None]":
        """Add a line.

        Returns:
            Done when the line is on the disk. An `OSError` says that it is not yet, and will be
            written before the next one. Whoever cancels it waits no more; the line is written.
        """
        done: Future[None] = Future()
        with self._lock:
            self._waiting.append((dict(record), done))
        self._thread.submit(self._write_waiting)
        return done

    def catch_up(self) -> "Future[None]":
        """Write the lines that found no room.

        Returns:
            Done when all of them are on the disk. An `OSError` says that they still wait.
        """
        return self._thread.submit(self._write, [])

    def close(self) -> Lost | None:
        """Write what was given so far, and close the file. Blocks.

        Returns:
            What found no room; nobody writes it any more.
        """
        self._thread.shutdown(wait=True)
        lost = None
        try:
            self._write([])
        except OSError as error:
            lost = Lost(len(self._late), error.strerror or str(error))
        os.close(self._handle)
        self._lock_file.close()
        return lost

    def _write_waiting(self) -> None:
        """Write all that has gathered, and flush it at once."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        # From here on nobody can cancel: a result that is refused would leave the rest without one.
        awaited = [done for _, done in waiting if done.set_running_or_notify_cancel()]
        try:
            self._write([record for record, _ in waiting])
        except OSError as error:
            self._is_behind = True
            for done in awaited:
                done.set_exception(error)
            return
        for done in awaited:
            done.set_result(None)

    def _write(self, records: list[dict[str, Any]]) -> None:
        """Write what is late and then these; all of it, or later."""
        self._late = self._late + records
        if not self._late:
            return
        if self._end > self._max_file_bytes:
            self._begin_next_file()
        lines, previous = [], self._previous
        for record in self._late:
            line, previous = _write_line(record, previous)
            lines.append(line)
        self._extend(b"".join(lines))
        self._previous, self._late, self._is_behind = previous, [], False

    def _extend(self, data: bytes) -> None:
        """Write behind the last line that is on the disk."""
        if self._is_torn:
            os.ftruncate(self._handle, self._end)
        try:
            _write_at(self._handle, data, self._end)
            os.fsync(self._handle)
        except OSError:
            self._is_torn = True
            with suppress(OSError):
                os.ftruncate(self._handle, self._end)
            raise
        self._is_torn = False
        self._end += len(data)

    def _begin_next_file(self) -> None:
        handle = self._open(self._number + 1)
        os.close(self._handle)
        self._handle, self._number, self._end = handle, self._number + 1, 0
        self._is_torn = False

    def _open(self, number: int) -> int:
        path = self._folder / f"audit-{number:06d}.jsonl"
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError:
            os.close(handle)
            raise
        finally:
            os.close(folder)
        return handle


def _own(folder: Path) -> IO[bytes]:
    try:
        return take_lock(folder / "lock")
    except BlockingIOError:
        raise AuditError(
            f"audit: another server uses {folder}; stop it, or set another state_folder"
        ) from None


def list_files(folder: Path) -> list[Path]:
    """The record's files, the oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def verify(folder: Path, *, end_seconds: float = END_SECONDS) -> Finding:
    """Read the whole record and find the first thing that is wrong.

    Args:
        folder: the record's.
        end_seconds: how long to wait for the end of the last line, which may be being written.

    Raises:
        OSError: it can not be read.
    """
    num_lines, previous = 0, FIRST
    expected_number = 1
    files = list_files(folder)
    for path in files:
        if _read_number(path) != expected_number:
            return Finding(num_lines, previous, "a file before this one is missing", path, 1)
        expected_number += 1
        seconds = end_seconds if path == files[-1] else 0.0
        for line_number, begin, line in _read_lines(path, seconds):
            fault, own = _check_line(line, previous)
            if fault is not None:
                return Finding(num_lines, previous, fault, path, line_number, begin)
            num_lines, previous = num_lines + 1, own
    return Finding(num_lines, previous)


def _write_at(handle: int, data: bytes, position: int) -> None:
    """Write all of it; a disk that fills up takes a part first and refuses the next."""
    rest = memoryview(data)
    while rest:
        num_written = os.pwrite(handle, rest, position)
        rest, position = rest[num_written:], position + num_written


def _write_line(record: Mapping[str, Any], previous: str) -> tuple[bytes, str]:
    """A line and its hash."""
    body = json.dumps(
        {**record, "previous": previous}, ensure_ascii=True, separators=(",", ":")
    ).encode()[:-1]
    own = hashlib.sha256(body).hexdigest()
    return body + f',"sha256":"{own}"}}\n'.encode(), own


def _check_line(line: bytes, previous: str) -> tuple[str | None, str]:
    """What is wrong with a line, and its hash."""
    if not line.endswith(b"\n"):
        return "the line has no end: torn, as a kill leaves the last one, or it was cut", ""
    tail = _TAIL.fullmatch(line[-_TAIL_BYTES:])
    if tail is None:
        return "the line does not end with its hash: it was altered or cut", ""
    body, own = line[:-_TAIL_BYTES], tail[1].decode()
    if hashlib.sha256(body).hexdigest() != own:
        return "the line does not have the hash that it names: it was altered", own
    if not body.endswith(f',"previous":"{previous}"'.encode()):
        return "the line does not follow the one before it: a line was removed or moved", own
    return None, own


def _read_lines(path: Path, end_seconds: float) -> Iterator[tuple[int, int, bytes]]:
    """Lines with their number and the byte where they begin; waits for an end that is missing."""
    begin = 0
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline()
            if line and not line.endswith(b"\n"):
                line = _await_end(path, begin, end_seconds)
                file.seek(begin + len(line))
            if not line:
                return
            yield number, begin, line
            begin += len(line)


def _await_end(path: Path, begin: int, max_seconds: float) -> bytes:
    """The line at a place once it is whole, or as it is after so long.

    Returns:
        b"" where its writer found no room for the rest, and took it back.
    """
    deadline = monotonic() + max_seconds
    while True:
        with path.open("rb") as file:
            file.seek(begin)
            line = file.readline()
        if not line or line.endswith(b"\n") or monotonic() >= deadline:
            return line
        sleep(_MOMENT_SECONDS)


def _read_number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _cut_torn_line(path: Path) -> int:
    """Take away an end without a line's end, which a dying process left: never acknowledged."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return 0
    os.truncate(path, whole)
    return len(data) - whole


def _read_last_hash(files: list[Path]) -> str:
    for path in reversed(files):
        data = path.read_bytes()
        if data:
            tail = _TAIL.fullmatch(data[-_TAIL_BYTES:])
            if tail is None:
                raise AuditError(
                    f"audit: the last line of {path} is damaged; move the folder away and keep it"
                )
            return tail[1].decode()
    return FIRST
